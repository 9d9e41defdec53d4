//! PE images and the metadata of .NET assemblies (ECMA-335, 6th edition, partition II, chapters 22 to 25).
//!
//! * [`Pe`]: headers of an image, in file layout or as loaded, over a [`Source`] that may lack bytes;
//! * [`Metadata`]: tables and heaps over a borrowed slice; nothing is copied or decoded before it is asked for;
//! * [`signature`]: types, methods, fields and locals as they are written in blobs;
//! * [`Pdb`]: source lines and names of locals from a portable PDB, which is metadata too;
//! * [`Token`], [`Guid`].
//!
//! Every byte is taken for hostile: what doesn't fit gives `None` or an [`Error`], loops and recursion are bounded.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod body;
mod bytes;
mod error;
mod metadata;
mod names;
mod pdb;
mod pe;
mod rows;
pub mod signature;
mod tables;
mod token;

pub use body::{BODY_HEADER, BodyHeader, body_header};
pub use error::Error;
pub use metadata::Metadata;
pub use pdb::{Pdb, SequencePoint, embedded_pdb};
pub use pe::{
    CliHeader, CodeView, DebugEntry, Directory, Layout, Pe, Section, Source, debug_kind, directory,
};
pub use rows::{
    AssemblyRef, AssemblyRow, Constant, Field, GenericParam, MemberRef, Method, MethodSpec, ModuleRow, Param,
    TypeDef, TypeRef,
};
pub use tables::Table;
pub use token::{Guid, Token};
