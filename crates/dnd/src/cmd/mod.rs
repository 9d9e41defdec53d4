//! One file per command: its arguments, and how its facts reach the user.

pub(crate) mod counters;
pub(crate) mod dump;
pub(crate) mod ps;
