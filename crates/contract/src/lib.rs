//! What every crate of `dnd`, and everybody who scripts it, may rely on.
//!
//! * [`Kind`]: what went wrong, in the few words that decide the exit code ([`Kind::exit_code`]);
//! * [`Explain`]: how a crate's error tells its kind and what would help;
//! * [`Envelope`]: the outermost shape of every JSON document;
//! * [`Addr`]: how an address looks in JSON;
//! * [`escape`]: how text from a target reaches a terminal.
//!
//! The crate does no input or output and knows nothing of .NET.

mod address;
mod envelope;
mod escape;
mod kind;

pub use address::{Addr, ParseAddrError};
pub use envelope::Envelope;
pub use escape::{escape, escape_into};
pub use kind::{Explain, Kind};
