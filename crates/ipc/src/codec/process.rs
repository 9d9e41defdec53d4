//! Replies of the process command set.

use super::wire::{DecodeError, Reader};

/// Answer to `ProcessInfo`, `ProcessInfo2` or `ProcessInfo3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Process id in the target's own pid namespace.
    pub pid: u64,
    /// Identifies this runtime instance, also in reverse connections.
    pub cookie: [u8; 16],
    /// Executable, managed entry point and arguments, joined by blanks without quoting. While the runtime is
    /// suspended at startup only the executable.
    pub command_line: String,
    /// `Linux`, `macOS`, `Windows`.
    pub os: String,
    /// `x64`, `arm64`, `x86`, `arm32`.
    pub arch: String,
    /// Simple name of the entry assembly (`ProcessInfo2` and later).
    pub entry_assembly: Option<String>,
    /// Product version, SemVer (`ProcessInfo2` and later).
    pub runtime_version: Option<String>,
    /// Portable runtime identifier such as `linux-x64` (`ProcessInfo3`).
    pub rid: Option<String>,
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

impl ProcessInfo {
    /// Reads the payload of the answer to `ProcessInfo` (`version` 1), `ProcessInfo2` or `ProcessInfo3`.
    pub(crate) fn decode(version: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        if version >= 3 {
            // Version of the payload; later ones may only append.
            r.u32("payload version")?;
        }
        let mut info = Self {
            pid: r.u64("process id")?,
            cookie: r.guid("runtime cookie")?,
            command_line: r.string("command line")?,
            os: r.string("operating system")?,
            arch: r.string("architecture")?,
            entry_assembly: None,
            runtime_version: None,
            rid: None,
        };
        if version >= 2 {
            info.entry_assembly = non_empty(r.string("entry assembly")?);
            info.runtime_version = non_empty(r.string("runtime version")?);
        }
        if version >= 3 {
            info.rid = non_empty(r.string("runtime identifier")?);
        }
        Ok(info)
    }
}

/// Reply to `ProcessEnvironment`; the variables follow behind the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvironmentHeader {
    /// Number of bytes that follow the reply.
    pub len: u32,
}

impl EnvironmentHeader {
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { len: Reader::new(payload).u32("size of the environment")? })
    }
}

/// Reads the bytes behind the reply to `ProcessEnvironment`: `NAME=value` each.
///
/// # Errors
/// When the bytes end inside a variable.
pub fn environment(bytes: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut r = Reader::new(bytes);
    let count = r.u32("number of variables")?;
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(r.string("environment variable")?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::wire::{put_string, put_u32, put_u64};

    fn payload() -> Vec<u8> {
        let mut p = Vec::new();
        put_u32(&mut p, 1);
        put_u64(&mut p, 42);
        p.extend_from_slice(&[7; 16]);
        for text in ["/app/x /app/x.dll", "Linux", "x64", "x", "8.0.4", "linux-x64"] {
            put_string(&mut p, "t", text).unwrap();
        }
        p
    }

    #[test]
    fn all_three_versions() {
        let p = payload();
        let v3 = ProcessInfo::decode(3, &p).unwrap();
        assert_eq!((v3.pid, v3.cookie), (42, [7; 16]));
        assert_eq!(v3.entry_assembly.as_deref(), Some("x"));
        assert_eq!((v3.runtime_version.as_deref(), v3.rid.as_deref()), (Some("8.0.4"), Some("linux-x64")));
        let v2 = ProcessInfo::decode(2, &p[4..]).unwrap();
        assert_eq!((v2.runtime_version.as_deref(), v2.rid), (Some("8.0.4"), None));
        let v1 = ProcessInfo::decode(1, &p[4..]).unwrap();
        assert_eq!((v1.command_line.as_str(), v1.entry_assembly), ("/app/x /app/x.dll", None));
    }

    #[test]
    fn truncated_everywhere() {
        let p = payload();
        for cut in 0..p.len() {
            assert!(ProcessInfo::decode(3, &p[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn environment_is_bounded_by_its_bytes() {
        let mut b = Vec::new();
        put_u32(&mut b, 2);
        put_string(&mut b, "v", "A=1").unwrap();
        put_string(&mut b, "v", "B=x=y").unwrap();
        assert_eq!(environment(&b).unwrap(), ["A=1", "B=x=y"]);
        b[0] = 0xff;
        b[3] = 0xff;
        assert!(environment(&b).is_err());
    }
}
