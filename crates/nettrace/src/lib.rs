//! Reads the *nettrace* format: the stream of events that a .NET runtime sends through its diagnostics port
//! (EventPipe), and the same bytes in a `.nettrace` file.
//!
//! The crate does no input or output. The caller pushes bytes in pieces of any size and asks for what they hold:
//!
//! ```
//! # fn more_bytes() -> Option<Vec<u8>> { None }
//! use dnd_nettrace::{Item, Order, Parser};
//!
//! let mut parser = Parser::new(Order::AsWritten);
//! while let Some(bytes) = more_bytes() {
//!     parser.push(&bytes);
//!     while let Some(item) = parser.read()? {
//!         if let Item::Event(event) = item {
//!             println!("{}/{}: {:?}", event.kind.provider, event.kind.name, event.decode().fields);
//!         }
//!     }
//! }
//! parser.finish();
//! while parser.read()?.is_some() {}
//! if !parser.is_complete() {
//!     println!("the stream was cut off");
//! }
//! # Ok::<(), dnd_nettrace::Error>(())
//! ```
//!
//! * [`Parser`] is the whole of it: bytes in, [`Item`]s out. An item borrows from the parser; nothing is allocated
//!   per event.
//! * [`Event::decode`] turns a payload into named [`Value`]s with the field list that the stream carries. The
//!   runtime's own events have no field list: their payload is read with a [`Cursor`].
//! * Lost events are reported as [`Item::Dropped`]: gaps of sequence numbers are the only sign of them in a stream
//!   that ends cleanly.
//! * The bytes come from another process, so they are taken for hostile: sizes are checked, caches are bounded,
//!   nesting is limited, and a damaged block is reported ([`Item::Damaged`]) and skipped.
//!
//! Formats: version 4 (every runtime from .NET Core 3.0 to .NET 10, with the metadata tags that are called version
//! 5), and version 6 (files of machine-wide collectors). Layouts: `src/TraceEvent/EventPipe/NetTraceFormat.md` and
//! `NetTraceFormat_v5.md` of microsoft/perfview, `docs/design-docs/ipc-protocol.md` of dotnet/diagnostics.

#![deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod blob;
mod clock;
mod container;
mod cursor;
mod error;
mod event;
mod metadata;
mod parser;
mod sequence;
mod stacks;
mod tables;
mod value;
mod waiting;

#[cfg(test)]
mod tests;

pub use clock::TraceInfo;
pub use container::BlockKind;
pub use cursor::{Cursor, OutOfBytes};
pub use error::{Damage, Error};
pub use event::{Dropped, Event, Item, Stack, Statistics};
pub use metadata::{EventType, Field, FieldType};
pub use parser::{Order, Parser};
pub use value::{Payload, Value};
