//! Which processes are .NET, and where their diagnostics sockets are.
//!
//! A runtime listens on `{TMPDIR or /tmp}/dotnet-diagnostic-{pid}-{key}-socket`: TMPDIR, pid and file system are the
//! target's own (its container's), the key is its start time, the same number everywhere. So for each process the place
//! is known, and a socket counts only when both numbers are right: one left behind by a crash, and one of an earlier
//! process with the same pid, are passed over. They are never removed; they are not ours.
//! (dotnet/runtime `src/native/eventpipe/ds-ipc-pal-socket.c`, `src/coreclr/pal/src/thread/process.cpp`.)
//!
//! A process without such a socket is still found to be .NET when it has the runtime mapped, or runs a file that holds
//! one, and then comes with the reason why it can't be reached.

mod host;
mod scan;
mod sockets;

pub use host::Host;
pub use scan::{Discovery, NotDotnet, Process, Unreachable};
