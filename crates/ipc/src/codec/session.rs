//! Payloads of the EventPipe command set.

use std::num::NonZeroU32;

use super::request::EncodeError;
use super::wire::{DecodeError, Reader, put_string, put_u32, put_u64};

/// Keywords of the rundown that a runtime does by itself when asked for "rundown: yes".
pub const DEFAULT_RUNDOWN: u64 = 0x8002_0139;

/// The only stream format asked for: 1, nettrace. Others crash .NET 8 and 9.
const NETTRACE: u32 = 1;

/// Identifies a running session within its process; reused after the session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        Reader::new(payload).u64("session id").map(Self)
    }
}

/// How much a provider tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventLevel {
    /// Only events that are always written.
    LogAlways = 0,
    /// Critical.
    Critical = 1,
    /// Error and above.
    Error = 2,
    /// Warning and above.
    Warning = 3,
    /// Informational and above.
    Informational = 4,
    /// Everything.
    Verbose = 5,
}

/// Which events of a provider are sent. Honoured by .NET 10 and later; earlier runtimes send all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EventFilter {
    /// All.
    #[default]
    All,
    /// Only those with these ids.
    Only(Vec<u32>),
    /// All but those with these ids.
    Except(Vec<u32>),
}

/// One provider of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Name, case-sensitive. A provider that the target doesn't know yet is enabled when it appears.
    pub name: String,
    /// Keyword mask.
    pub keywords: u64,
    /// Highest level wanted.
    pub level: EventLevel,
    /// Arguments, key and value; quoted here where the grammar needs it.
    pub args: Vec<(String, String)>,
    /// Which events.
    pub filter: EventFilter,
}

impl Provider {
    /// A provider without arguments, all events.
    pub fn new(name: impl Into<String>, keywords: u64, level: EventLevel) -> Self {
        Self { name: name.into(), keywords, level, args: Vec::new(), filter: EventFilter::All }
    }

    /// The same with one more argument.
    #[must_use]
    pub fn arg(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.args.push((key.into(), value.into()));
        self
    }
}

/// What the runtime writes about methods and modules when the session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rundown {
    /// Nothing.
    #[default]
    None,
    /// What the runtime does by default.
    Default,
    /// These keywords of the rundown provider: .NET 9 and later; earlier ones do all or, for 0, nothing.
    Keywords(u64),
}

impl Rundown {
    fn keywords(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Default => DEFAULT_RUNDOWN,
            Self::Keywords(k) => k,
        }
    }
}

/// A session to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// Size of the buffer in the target, in MB. 0 crashes runtimes and cannot be expressed.
    pub buffer_mb: NonZeroU32,
    /// Providers; those of the same name are merged, because a runtime ignores all but the first.
    pub providers: Vec<Provider>,
    /// What is written at the end.
    pub rundown: Rundown,
    /// Whether events carry the stack of the thread that wrote them (`false`: .NET 9 and later).
    pub stacks: bool,
}

impl SessionRequest {
    /// The lowest version of `CollectTracing` that can express all of the request.
    #[must_use]
    pub fn version(&self) -> u8 {
        if self.providers.iter().any(|p| p.filter != EventFilter::All) {
            5
        } else if matches!(self.rundown, Rundown::Keywords(k) if k != 0 && k != DEFAULT_RUNDOWN) {
            4
        } else if !self.stacks {
            3
        } else {
            2
        }
    }

    /// The payload of `CollectTracing{version}`, 2 to 5.
    pub(super) fn encode(&self, version: u8) -> Result<Vec<u8>, EncodeError> {
        let providers = merge(&self.providers)?;
        if providers.is_empty() {
            return Err(EncodeError::NoProviders);
        }
        let mut out = Vec::new();
        if version >= 5 {
            put_u32(&mut out, 0); // a streaming session
        }
        put_u32(&mut out, self.buffer_mb.get());
        put_u32(&mut out, NETTRACE);
        if version >= 4 {
            put_u64(&mut out, self.rundown.keywords());
        } else {
            out.push(u8::from(self.rundown.keywords() != 0));
        }
        if version >= 3 {
            out.push(u8::from(self.stacks));
        }
        put_u32(&mut out, u32::try_from(providers.len()).unwrap_or(u32::MAX));
        for p in &providers {
            put_u64(&mut out, p.keywords);
            put_u32(&mut out, p.level as u32);
            put_string(&mut out, "provider name", &p.name)?;
            put_string(&mut out, "provider arguments", &arguments(p)?)?;
            if version >= 5 {
                let (enable, ids): (u8, &[u32]) = match &p.filter {
                    EventFilter::All => (0, &[]),
                    EventFilter::Except(ids) => (0, ids),
                    EventFilter::Only(ids) => (1, ids),
                };
                out.push(enable);
                put_u32(&mut out, u32::try_from(ids.len()).unwrap_or(u32::MAX));
                for &id in ids {
                    put_u32(&mut out, id);
                }
            }
        }
        Ok(out)
    }
}

/// One entry per name: keywords are united, the highest level counts, arguments are united, and where filters
/// differ all events are sent.
fn merge(providers: &[Provider]) -> Result<Vec<Provider>, EncodeError> {
    let mut out: Vec<Provider> = Vec::new();
    for p in providers {
        if p.name.is_empty() {
            return Err(EncodeError::EmptyProvider);
        }
        let Some(seen) = out.iter_mut().find(|q| q.name == p.name) else {
            out.push(Provider { args: Vec::new(), ..p.clone() });
            // Arguments of one entry are checked against each other too.
            if let Some(last) = out.last_mut() {
                add_args(last, &p.args)?;
            }
            continue;
        };
        seen.keywords |= p.keywords;
        seen.level = seen.level.max(p.level);
        if seen.filter != p.filter {
            seen.filter = EventFilter::All;
        }
        add_args(seen, &p.args)?;
    }
    Ok(out)
}

fn add_args(provider: &mut Provider, args: &[(String, String)]) -> Result<(), EncodeError> {
    for (key, value) in args {
        match provider.args.iter().find(|(k, _)| k == key) {
            None => provider.args.push((key.clone(), value.clone())),
            Some((_, v)) if v == value => {}
            Some(_) => {
                return Err(EncodeError::Conflict { provider: provider.name.clone(), key: key.clone() });
            }
        }
    }
    Ok(())
}

/// `k=v;k2="v;2"`. The grammar has no way to write a quote.
fn arguments(p: &Provider) -> Result<String, EncodeError> {
    let mut out = String::new();
    for (key, value) in &p.args {
        if key.is_empty() {
            return Err(EncodeError::EmptyKey { provider: p.name.clone() });
        }
        if !out.is_empty() {
            out.push(';');
        }
        for (text, end) in [(key, "="), (value, "")] {
            if text.contains('"') {
                return Err(EncodeError::Quote { provider: p.name.clone(), text: text.clone() });
            }
            if text.contains([';', '=']) {
                out.push('"');
                out.push_str(text);
                out.push('"');
            } else {
                out.push_str(text);
            }
            out.push_str(end);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(providers: Vec<Provider>) -> SessionRequest {
        SessionRequest {
            buffer_mb: NonZeroU32::new(10).unwrap(),
            providers,
            rundown: Rundown::None,
            stacks: true,
        }
    }

    #[test]
    fn providers_of_one_name_become_one() {
        let merged = merge(&[
            Provider::new("A", 1, EventLevel::Error).arg("x", "1"),
            Provider::new("B", 8, EventLevel::Verbose),
            Provider::new("A", 4, EventLevel::Informational).arg("y", "2").arg("x", "1"),
        ])
        .unwrap();
        assert_eq!(merged.len(), 2);
        assert_eq!((merged[0].keywords, merged[0].level), (5, EventLevel::Informational));
        assert_eq!(arguments(&merged[0]).unwrap(), "x=1;y=2");
        let a = Provider::new("A", 0, EventLevel::Error);
        assert!(matches!(
            merge(&[a.clone().arg("x", "1"), a.arg("x", "2")]),
            Err(EncodeError::Conflict { .. })
        ));
    }

    #[test]
    fn arguments_are_quoted_where_needed() {
        let p =
            Provider::new("A", 0, EventLevel::Error).arg("Metrics", "a;b,c").arg("k=", "").arg("n", "1,2");
        assert_eq!(arguments(&p).unwrap(), "Metrics=\"a;b,c\";\"k=\"=;n=1,2");
        assert!(arguments(&Provider::new("A", 0, EventLevel::Error).arg("k", "\"")).is_err());
        assert!(arguments(&Provider::new("A", 0, EventLevel::Error).arg("", "v")).is_err());
    }

    #[test]
    fn version_follows_need() {
        let mut r = request(vec![Provider::new("A", 0, EventLevel::Error)]);
        assert_eq!(r.version(), 2);
        r.stacks = false;
        assert_eq!(r.version(), 3);
        r.rundown = Rundown::Keywords(8);
        assert_eq!(r.version(), 4);
        r.providers[0].filter = EventFilter::Only(vec![1]);
        assert_eq!(r.version(), 5);
    }

    #[test]
    fn collect_tracing_2_to_the_byte() {
        let r =
            request(vec![Provider::new("P", 0x0102_0304_0506_0708, EventLevel::Informational).arg("a", "b")]);
        let tail: &[u8] = &[
            1, 0, 0, 0, // providers
            8, 7, 6, 5, 4, 3, 2, 1, // keywords
            4, 0, 0, 0, // level
            2, 0, 0, 0, b'P', 0, 0, 0, // name
            4, 0, 0, 0, b'a', 0, b'=', 0, b'b', 0, 0, 0, // arguments
        ];
        let v2 = r.encode(2).unwrap();
        assert_eq!(v2, [&[10u8, 0, 0, 0, 1, 0, 0, 0, 0][..], tail].concat());
        let v3 = r.encode(3).unwrap();
        assert_eq!(v3, [&[10u8, 0, 0, 0, 1, 0, 0, 0, 0, 1][..], tail].concat());
        let mut r4 = r.clone();
        r4.rundown = Rundown::Default;
        r4.stacks = false;
        let v4 = r4.encode(4).unwrap();
        assert_eq!(v4, [&[10u8, 0, 0, 0, 1, 0, 0, 0, 0x39, 1, 2, 0x80, 0, 0, 0, 0, 0][..], tail].concat());
        let mut r5 = r;
        r5.providers[0].filter = EventFilter::Only(vec![5, 6]);
        let v5 = r5.encode(5).unwrap();
        let head: &[u8] = &[0, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(v5, [head, tail, &[1, 2, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0]].concat());
    }

    #[test]
    fn what_would_harm_is_refused() {
        assert!(matches!(request(vec![]).encode(2), Err(EncodeError::NoProviders)));
        let nul = request(vec![Provider::new("a\0b", 0, EventLevel::Error)]);
        assert!(matches!(nul.encode(2), Err(EncodeError::Nul { .. })));
        let empty = request(vec![Provider::new("", 0, EventLevel::Error)]);
        assert!(matches!(empty.encode(2), Err(EncodeError::EmptyProvider)));
    }
}
