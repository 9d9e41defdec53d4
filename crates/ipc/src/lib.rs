//! Reaching a .NET process through its diagnostics socket, and finding that socket.
//!
//! * [`codec`]: the protocol as bytes (no I/O). The only place where a request is serialised;
//! * [`Connection`], and a function for each command: the transport (tokio, current-thread is enough);
//! * [`Session`]: an event stream that ends for the target too, whatever happens here;
//! * [`ReversePort`]: runtimes that connect to us instead;
//! * [`discovery`]: which processes are .NET and where their sockets are, from `/proc` (blocking, no tokio).
//!
//! Three rules protect the target. A request is sent whole, with one write, because a runtime has one server thread
//! that waits for the rest of a half-sent one. A connection is closed on any error. A session is stopped and its
//! stream read to the end, or the stream is closed: the runtime blocks while nobody reads it.

pub mod codec;
mod commands;
pub mod discovery;
mod endpoint;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod procfs;
mod reverse;
mod session;
mod transport;

pub use codec::{
    DumpFlags, DumpRequest, DumpType, EventFilter, EventLevel, HResult, ProcessInfo, Provider, Rundown,
    SessionId, SessionRequest,
};
pub use commands::{
    generate_core_dump, process_environment, process_info, resume_runtime, set_environment_variable,
};
pub use endpoint::Endpoint;
pub use error::Error;
pub use reverse::{Reported, ReversePort};
pub use session::{Session, start_session, stop};
pub use transport::{Connection, Reply};
