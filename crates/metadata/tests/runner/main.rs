//! Real assemblies held against System.Reflection.Metadata, and damaged ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod damage;
mod oracle;
mod pdb;
mod pe;

use dnd_metadata::{Layout, Metadata, Pe};

/// The metadata of an assembly's file; `None` for a native library.
fn metadata_of(file: &[u8]) -> Option<Metadata<'_>> {
    let pe = Pe::parse(file, Layout::File).ok()?;
    let (offset, len) = pe.metadata_range(file).ok()?;
    let bytes = &file[offset as usize..][..len as usize];
    Some(Metadata::parse(bytes).unwrap())
}
