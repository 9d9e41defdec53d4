//! Bytes at target addresses.

mod target;

pub use target::{Memory, Missing};
