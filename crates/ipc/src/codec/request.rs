//! Every command that can be sent, and the one place where it becomes bytes.

use thiserror::Error;

use super::dump::DumpRequest;
use super::session::{SessionId, SessionRequest};
use super::wire::{message, put_string, put_u32, put_u64};

/// A request that would not be understood by a runtime, or would harm it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A string holds a NUL.
    #[error("the {what} holds a NUL character")]
    Nul {
        /// What the string is.
        what: &'static str,
    },
    /// The path of a dump must be absolute.
    #[error("the dump path `{0}` is not absolute")]
    RelativePath(String),
    /// Only `GenerateCoreDump2` and later write crash reports.
    #[error("the runtime is too old to write a crash report (.NET 6 is the first)")]
    CrashReport,
    /// A session without providers.
    #[error("no event provider is given")]
    NoProviders,
    /// A provider without a name.
    #[error("the name of an event provider is empty")]
    EmptyProvider,
    /// A provider argument without a key.
    #[error("an argument of the event provider `{provider}` has no name")]
    EmptyKey {
        /// The provider.
        provider: String,
    },
    /// A provider argument that the grammar can't express.
    #[error("the argument `{text}` of the event provider `{provider}` holds a quotation mark")]
    Quote {
        /// The provider.
        provider: String,
        /// Key or value.
        text: String,
    },
    /// One provider asked for twice with different values of one argument.
    #[error("the event provider `{provider}` is asked for with two values of `{key}`")]
    Conflict {
        /// The provider.
        provider: String,
        /// The argument.
        key: String,
    },
    /// An environment variable's name is empty or holds `=`.
    #[error("`{0}` can't be the name of an environment variable")]
    VariableName(String),
    /// The message would not fit its 16-bit size.
    #[error("the request is {len} bytes long, more than the {max} that the protocol can carry")]
    TooLarge {
        /// Length of the payload.
        len: usize,
        /// Longest payload.
        max: usize,
    },
}

/// A command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Process id, command line, architecture (.NET 5).
    ProcessInfo,
    /// Also entry assembly and runtime version (.NET 6).
    ProcessInfo2,
    /// Also the runtime identifier (.NET 8).
    ProcessInfo3,
    /// All environment variables (.NET 5).
    ProcessEnvironment,
    /// Lets a runtime go on that is suspended at startup (.NET 5).
    ResumeRuntime,
    /// Sets a variable, or removes it (.NET 6).
    SetEnvironmentVariable {
        /// Name of the variable.
        name: String,
        /// New value; `None` removes the variable.
        value: Option<String>,
    },
    /// Writes a dump (.NET Core 3.0).
    GenerateCoreDump(DumpRequest),
    /// With flags (.NET 6).
    GenerateCoreDump2(DumpRequest),
    /// Answers with the cause of a failure (.NET 7).
    GenerateCoreDump3(DumpRequest),
    /// Starts a session (.NET Core 3.0).
    CollectTracing2(SessionRequest),
    /// With or without stacks (.NET 9).
    CollectTracing3(SessionRequest),
    /// With rundown keywords (.NET 9).
    CollectTracing4(SessionRequest),
    /// With event filters (.NET 10).
    CollectTracing5(SessionRequest),
    /// Ends a session; the answer comes after all of the session's stream was read.
    StopTracing(SessionId),
}

impl Request {
    /// Name of the command in the protocol's documentation.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.code().2
    }

    /// Whether doing it twice is no worse than doing it once, if it is not known whether it was done.
    pub(crate) fn may_be_repeated(&self) -> bool {
        !matches!(self, Self::GenerateCoreDump(_) | Self::GenerateCoreDump2(_) | Self::GenerateCoreDump3(_))
    }

    fn code(&self) -> (u8, u8, &'static str) {
        match self {
            Self::GenerateCoreDump(_) => (1, 1, "GenerateCoreDump"),
            Self::GenerateCoreDump2(_) => (1, 2, "GenerateCoreDump2"),
            Self::GenerateCoreDump3(_) => (1, 3, "GenerateCoreDump3"),
            Self::StopTracing(_) => (2, 1, "StopTracing"),
            Self::CollectTracing2(_) => (2, 3, "CollectTracing2"),
            Self::CollectTracing3(_) => (2, 4, "CollectTracing3"),
            Self::CollectTracing4(_) => (2, 5, "CollectTracing4"),
            Self::CollectTracing5(_) => (2, 6, "CollectTracing5"),
            Self::ProcessInfo => (4, 0, "ProcessInfo"),
            Self::ResumeRuntime => (4, 1, "ResumeRuntime"),
            Self::ProcessEnvironment => (4, 2, "ProcessEnvironment"),
            Self::SetEnvironmentVariable { .. } => (4, 3, "SetEnvironmentVariable"),
            Self::ProcessInfo2 => (4, 4, "ProcessInfo2"),
            Self::ProcessInfo3 => (4, 8, "ProcessInfo3"),
        }
    }

    /// The whole message, to be sent with one write.
    ///
    /// # Errors
    /// When the arguments can't be expressed, or would harm the target.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let (set, id, _) = self.code();
        let payload = match self {
            Self::ProcessInfo
            | Self::ProcessInfo2
            | Self::ProcessInfo3
            | Self::ProcessEnvironment
            | Self::ResumeRuntime => Vec::new(),
            Self::SetEnvironmentVariable { name, value } => {
                if name.is_empty() || name.contains('=') {
                    return Err(EncodeError::VariableName(name.clone()));
                }
                let mut out = Vec::new();
                put_string(&mut out, "name of the variable", name)?;
                match value.as_deref() {
                    // An empty value is one NUL; no units at all would remove the variable.
                    Some("") => {
                        put_u32(&mut out, 1);
                        out.extend_from_slice(&[0, 0]);
                    }
                    Some(value) => put_string(&mut out, "value of the variable", value)?,
                    None => put_u32(&mut out, 0),
                }
                out
            }
            Self::GenerateCoreDump(dump) => dump.encode(1)?,
            Self::GenerateCoreDump2(dump) => dump.encode(2)?,
            Self::GenerateCoreDump3(dump) => dump.encode(3)?,
            Self::CollectTracing2(session) => session.encode(2)?,
            Self::CollectTracing3(session) => session.encode(3)?,
            Self::CollectTracing4(session) => session.encode(4)?,
            Self::CollectTracing5(session) => session.encode(5)?,
            Self::StopTracing(SessionId(id)) => {
                let mut out = Vec::new();
                put_u64(&mut out, *id);
                out
            }
        };
        message(set, id, &payload)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::codec::{DumpFlags, DumpType, EventLevel, Provider, Rundown};

    fn head(size: u8, set: u8, id: u8) -> Vec<u8> {
        [b"DOTNET_IPC_V1\0".as_slice(), &[size, 0, set, id, 0, 0]].concat()
    }

    #[test]
    fn commands_without_payload() {
        for (request, set, id) in [
            (Request::ProcessInfo, 4, 0),
            (Request::ResumeRuntime, 4, 1),
            (Request::ProcessEnvironment, 4, 2),
            (Request::ProcessInfo2, 4, 4),
            (Request::ProcessInfo3, 4, 8),
        ] {
            assert_eq!(request.encode().unwrap(), head(20, set, id), "{}", request.name());
        }
    }

    #[test]
    fn stop() {
        let bytes = Request::StopTracing(SessionId(0x7f00_0000_1234)).encode().unwrap();
        assert_eq!(bytes, [head(28, 2, 1), vec![0x34, 0x12, 0, 0, 0, 0x7f, 0, 0]].concat());
    }

    #[test]
    fn dumps() {
        let dump = DumpRequest {
            path: "/a".into(),
            dump_type: DumpType::Full,
            flags: DumpFlags { log: true, verbose: false, crash_report: true },
        };
        let path = [3, 0, 0, 0, b'/', 0, b'a', 0, 0, 0];
        let v3 = Request::GenerateCoreDump3(dump.clone()).encode().unwrap();
        assert_eq!(v3, [&head(38, 1, 3)[..], &path, &[4, 0, 0, 0, 5, 0, 0, 0]].concat());
        assert_eq!(Request::GenerateCoreDump2(dump.clone()).encode().unwrap()[17], 2);
        assert_eq!(Request::GenerateCoreDump(dump.clone()).encode(), Err(EncodeError::CrashReport));
        let plain = DumpRequest {
            dump_type: DumpType::Heap,
            flags: DumpFlags { verbose: true, ..DumpFlags::default() },
            ..dump.clone()
        };
        let v1 = Request::GenerateCoreDump(plain).encode().unwrap();
        assert_eq!(v1, [&head(38, 1, 1)[..], &path, &[2, 0, 0, 0, 1, 0, 0, 0]].concat());
        let relative = DumpRequest { path: "a".into(), ..dump.clone() };
        assert!(Request::GenerateCoreDump3(relative).encode().is_err());
        let empty = DumpRequest { path: String::new(), ..dump };
        assert!(Request::GenerateCoreDump3(empty).encode().is_err());
    }

    #[test]
    fn variables() {
        let set = |name: &str, value: Option<&str>| {
            Request::SetEnvironmentVariable { name: name.into(), value: value.map(Into::into) }.encode()
        };
        let name = [2u8, 0, 0, 0, b'A', 0, 0, 0];
        assert_eq!(set("A", None).unwrap(), [&head(32, 4, 3)[..], &name, &[0; 4]].concat());
        assert_eq!(set("A", Some("")).unwrap(), [&head(34, 4, 3)[..], &name, &[1, 0, 0, 0, 0, 0]].concat());
        assert_eq!(
            set("A", Some("b")).unwrap(),
            [&head(36, 4, 3)[..], &name, &[2, 0, 0, 0, b'b', 0, 0, 0]].concat()
        );
        assert!(set("", None).is_err());
        assert!(set("A=B", None).is_err());
    }

    #[test]
    fn session_codes_and_limits() {
        let session = SessionRequest {
            buffer_mb: NonZeroU32::MIN,
            providers: vec![Provider::new("P", 1, EventLevel::Verbose)],
            rundown: Rundown::None,
            stacks: true,
        };
        for (request, id) in [
            (Request::CollectTracing2(session.clone()), 3),
            (Request::CollectTracing3(session.clone()), 4),
            (Request::CollectTracing4(session.clone()), 5),
            (Request::CollectTracing5(session.clone()), 6),
        ] {
            let bytes = request.encode().unwrap();
            assert_eq!(bytes[16..18], [2, id]);
            assert_eq!(usize::from(u16::from_le_bytes([bytes[14], bytes[15]])), bytes.len());
        }
        let mut large = session;
        large.providers[0].name = "x".repeat(40_000);
        assert!(matches!(Request::CollectTracing2(large).encode(), Err(EncodeError::TooLarge { .. })));
    }
}
