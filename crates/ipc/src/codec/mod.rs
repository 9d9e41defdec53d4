//! The diagnostics IPC protocol as bytes: typed requests in, bytes out; bytes in, typed replies out. No I/O.
//!
//! Layout: dotnet/diagnostics `documentation/design-docs/ipc-protocol.md`; dotnet/runtime
//! `src/native/eventpipe/ds-protocol.c`. All numbers are little endian.
//!
//! **A malformed payload kills a target of .NET 8 to 10** (the runtime reads it without checks), so every request is
//! serialised here and only here, from types that cannot express a bad one, and is tested to the byte.

mod dump;
mod hresult;
mod process;
mod request;
mod session;
mod wire;

pub use dump::{DumpFlags, DumpRequest, DumpType};
pub use hresult::HResult;
pub use process::{EnvironmentHeader, ProcessInfo, environment};
pub use request::{EncodeError, Request};
pub use session::{DEFAULT_RUNDOWN, EventFilter, EventLevel, Provider, Rundown, SessionId, SessionRequest};
pub use wire::{DecodeError, HEADER_LEN, Header, Refusal, reply};
