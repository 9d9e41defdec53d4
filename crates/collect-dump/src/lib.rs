//! A dump of a process, written by the process's own runtime.
//!
//! The runtime starts its `createdump`, which writes where it is told with the rights of the *target*, in the *target's*
//! view of the file system; it follows links, overwrites what is there, leaves what it had written when it fails, and
//! (.NET Core 3) makes it readable for everybody. So it is told a file in a private directory (mode 0700) beside the
//! destination, and only what has been checked, is complete and has mode 0600 gets the destination's name, which must
//! not exist. Whatever else happens, the private directory is removed.
//!
//! [`prepare`] checks all that can be known before, [`Prepared::run`] does it.

mod collect;
mod error;
mod explain;
mod facts;
mod preflight;
mod staging;

pub use collect::{Prepared, Request, prepare};
pub use dnd_ipc::DumpType;
pub use error::Error;
pub use facts::{DumpFacts, write_text};
