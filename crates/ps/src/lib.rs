//! The .NET processes of this machine, and choosing one of them.
//!
//! * [`list`] asks all processes that [`dnd_ipc::discovery`] found, at once, who they are; one that doesn't answer stays
//!   in the list, with the reason;
//! * [`write_table`] prints them in the columns of `dotnet-counters ps`;
//! * [`by_pid`] and [`by_name`] find the one that the user means, or explain why there is none.

mod error;
mod facts;
mod query;
mod select;
mod table;

pub use error::Error;
pub use facts::{AssemblySource, Hosting, ProcessFacts, Processes, VersionSource};
pub use query::{ANSWER_WITHIN, facts, list};
pub use select::{Chosen, Need, by_name, by_pid, none_given};
pub use table::write_table;
