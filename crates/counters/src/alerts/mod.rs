//! Alerts: conditions on counters, and when to act on them.
//!
//! [`Rule`] is a condition, [`Engine`] holds samples against rules and decides, [`Event`] is what it has to say. No I/O
//! and no clock: time comes in with the samples. Who acts is not this crate's business.

mod engine;
mod event;
mod grammar;
mod rule;
mod unit;

pub use engine::{Engine, Settings};
pub use event::{Decision, Event, Facts, Fired, Outcome, Warning, What, facts, text};
pub use rule::{Rule, Unusable};
