//! The counters of a .NET process: EventCounters and the instruments of Meters.
//!
//! * [`Selection`] reads `--counters`; [`Request`] makes a session of it.
//! * [`Model`] turns the events of that session into [`Update`]s, mostly [`Sample`]s of [`Series`]. No I/O.
//! * [`Board`] keeps the last state of every series, its recent past, and how late it is. No I/O, no clock.
//! * [`alerts`] holds samples against rules. No I/O, no clock.
//! * [`session`] runs a session against a process (tokio) and always ends it.
//! * [`os`] is what the operating system knows of the process.
//! * [`export`] is what monitoring systems read: Prometheus, OpenMetrics, OTLP.
//! * [`text`] is how all that looks as text.

pub mod alerts;
mod board;
mod duration;
mod error;
mod event_counters;
pub mod export;
mod facts;
mod known;
mod meters;
mod model;
pub mod os;
mod request;
mod room;
mod sample;
mod selection;
pub mod session;
mod tags;
pub mod text;

#[cfg(test)]
mod meters_tests;
#[cfg(test)]
mod screen_tests;
#[cfg(test)]
mod tests;

pub use board::{Board, Row, Total};
pub use duration::{duration, parse_duration};
pub use error::{AlertError, Error, SelectionError};
pub use facts::{Interval, SampleFacts, rfc3339};
pub use known::{Known, known, write_known};
pub use model::Model;
pub use request::Request;
pub use sample::{Notice, Sample, Series, SeriesKind, SharedSettings, Source, Update, Value};
pub use selection::{Provider, SYSTEM_RUNTIME, Selection};
pub use tags::Tags;
