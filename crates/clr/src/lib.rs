//! The CoreCLR runtime's structures, read from a target's memory: no DAC, no symbols, nothing executed.
//!
//! You supply a [`dnd_memory::Target`], [`Runtime::open`] finds the runtime in it, recognises the version by the size
//! *and* content of its table of globals, and answers with plain facts: heap segments, objects, types with their names and
//! fields, GC handles, finalizer queue, threads, roots, and what reaches what. Version differences are the tables in
//! [`layout`]; everything else is written once.
//!
//! Facts are never guessed: memory that is not in the dump is an [`Error::Missing`] with the structure's name, damage on
//! the heap is counted, a conservative root is called so.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod code;
mod conservative;
mod constructed;
pub mod descriptor;
mod error;
mod exceptions;
mod field_types;
mod fields;
mod finalizer;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod handles;
mod heap;
pub mod layout;
mod load_context;
mod loader;
mod locate;
mod modules;
mod names;
mod oom;
mod progress;
mod reach;
mod roots;
mod runtime;
mod source;
pub mod stack;
mod statics;
mod syncblocks;
pub mod threads;
mod trial;
mod types;
mod typetable;
mod version;
mod walk;

pub use error::Error;
pub use exceptions::{Exception, TraceFrame};
pub use fields::{ElementType, Field};
pub use finalizer::{FinalizerQueue, Part};
pub use handles::{Handle, HandleKind};
pub use heap::{Generation, GenerationName, Heap, Segment, SegmentKind, SubHeap};
pub use loader::{Block, LoaderAllocator, LoaderHeap, LoaderHeapKind, LoaderHeaps};
pub use locate::RuntimeImage;
pub use modules::Module;
pub use names::NameStyle;
pub use oom::{Oom, OomDetail, OomReason};
pub use progress::Progress;
pub use reach::{Reached, RootPath};
pub use roots::{Root, RootKind, StackPlace};
pub use runtime::{Runtime, StackRoots};
pub use source::{Source, SourceLine};
pub use syncblocks::{SyncBlock, SyncBlocks};
pub use types::{MethodTable, References};
pub use typetable::Slot;
pub use version::{Version, VersionSource};
pub use walk::{Damage, LARGE_FREE, Object, Statistics};
