//! What can go wrong while counters are watched.

use std::time::Duration;

use dnd_contract::{Explain, Kind};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of counters can't be understood.
    #[error("cannot read the counters `{text}`: {reason}")]
    Selection {
        /// The list, as given.
        text: String,
        /// What is wrong with it.
        reason: SelectionError,
    },
    /// A rule for an alert can't be understood.
    #[error("cannot read the alert `{text}`: {reason}")]
    Alert {
        /// The rule, as given.
        text: String,
        /// What is wrong with it.
        reason: AlertError,
    },
    /// An interval that runtimes don't support.
    #[error("a refresh interval of {} s is out of range", .0.as_secs_f64())]
    Interval(Duration),
    /// The session could not be started, read or stopped.
    #[error(transparent)]
    Ipc(#[from] dnd_ipc::Error),
    /// Reading the event stream failed.
    #[error("the event stream broke off")]
    Read(#[source] std::io::Error),
    /// The event stream can't be understood any further.
    #[error("the event stream can't be read")]
    Stream(#[from] dnd_nettrace::Error),
}

/// What is wrong with a list of counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Nothing where a provider should be.
    #[error("a provider's name is empty")]
    EmptyProvider,
    /// `[` without `]`.
    #[error("a `[` is not closed")]
    Unclosed,
    /// Something between `]` and the next comma.
    #[error("there is text after a `]`")]
    AfterClosing,
    /// `]` without `[`, or two `[`.
    #[error("a bracket is out of place")]
    StrayBracket,
    /// A provider both with and without `EventCounters\`.
    #[error("a provider is listed both with and without `EventCounters\\`")]
    MixedPrefix,
}

/// What is wrong with a rule for an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AlertError {
    /// Nothing to compare with.
    #[error("there is no `>`, `>=`, `<` or `<=`")]
    NoOperator,
    /// The counter's name.
    #[error("expected PROVIDER[COUNTER], or a well-known counter such as gc-heap-size or rss")]
    Counter,
    /// The braces behind the counter.
    #[error("expected tags as in {{color=red,size=\"s, m\"}} or {{Percentile=95}}")]
    Tags,
    /// No number, or one without a value.
    #[error("expected a number behind the operator")]
    Number,
    /// A unit that is not known.
    #[error(
        "the unit is not one of B, KB, MB, GB, KiB, MiB, GiB, %, ns, us, ms, s, min, h, each also with /s"
    )]
    Unit,
    /// A unit that measures something else than the counter.
    #[error("the counter is not measured in that unit")]
    OtherUnit,
    /// The duration.
    #[error("expected a time behind `for`, as in 30s or 1h30m")]
    Duration,
}

impl Explain for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Selection { .. } | Self::Alert { .. } | Self::Interval(_) => Kind::Usage,
            Self::Ipc(error) => error.kind(),
            Self::Read(_) => Kind::Failed,
            Self::Stream(error) => error.kind(),
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Selection { .. } => vec![
                "for example: System.Runtime,My.Meter[orders,latency] or EventCounters\\System.Runtime"
                    .to_owned(),
            ],
            Self::Alert { .. } => {
                vec!["for example: 'gc-heap-size>500MB for 30s', 'memory-used>=90%' or 'My.Meter[orders]{shop=eu}>100/s'".to_owned()]
            }
            Self::Interval(_) => vec!["from 0.1 to 86400 seconds".to_owned()],
            Self::Ipc(error) => error.hints(),
            Self::Read(_) | Self::Stream(_) => Vec::new(),
        }
    }
}
