//! Finding the runtime in a target, and its globals in the runtime.
//!
//! Sources: `src/coreclr/inc/dacvars.h` and `debug/ee/dactable.cpp` (`g_dacTable`),
//! `docs/design/datacontracts/contract-descriptor.md`, `src/native/corehost` (single-file hosts export the same symbols).

use std::path::PathBuf;

use dnd_memory::{ElfImage, Memory, Symbol, Target};

use crate::error::{Error, Reading};
use crate::layout::{Globals, Layout, TableEntry, TableShape, layout, shape_of};
use crate::layout::TABLE_3_1;

/// Entries that a run of 32-bit offsets must have to be 3.1's table: its variables alone are 104.
const RUN_3_1: u64 = 90;
/// Offsets below this lie in the image's headers and are none of a variable.
const FIRST_RVA: u32 = 0x1000;

/// The image of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeImage {
    /// Address of its first byte.
    pub base: u64,
    /// First address behind it.
    pub end: u64,
    /// The file that it was loaded from: `libcoreclr.so`, or a single-file program.
    pub path: PathBuf,
    /// The runtime is part of the program's own file.
    pub single_file: bool,
    /// Its build-id, where the note is in the dump.
    pub build_id: Option<Vec<u8>>,
}

/// A runtime whose globals were found and checked.
pub(crate) struct Located {
    pub(crate) image: RuntimeImage,
    pub(crate) elf: ElfImage,
    pub(crate) shape: TableShape,
    pub(crate) layout: Layout,
    /// Addresses of the globals.
    pub(crate) globals: Globals<u64>,
}

/// Finds the runtime: `libcoreclr.so`, else a program with the runtime inside.
pub(crate) fn locate(target: &dyn Target) -> Result<Located, Error> {
    let firsts = || target.mappings().iter().filter(|mapping| mapping.offset == 0);
    let mut images = 0;
    for mapping in firsts() {
        images += 1;
        if mapping.file_name() == "libcoreclr.so" {
            let Ok(elf) = ElfImage::at(target, mapping.start) else { continue };
            let image = describe(target, &elf, mapping.path.clone(), false);
            return globals(target, image, elf);
        }
    }
    for mapping in firsts() {
        let Ok(elf) = ElfImage::at(target, mapping.start) else { continue };
        if symbol(target, &elf, "g_dacTable").is_some() || symbol(target, &elf, "DotNetRuntimeInfo").is_some() {
            let image = describe(target, &elf, mapping.path.clone(), true);
            return globals(target, image, elf);
        }
    }
    Err(Error::NoRuntime { images })
}

/// A dump may lack the pages of a symbol table; then the symbol is as good as not there.
fn symbol(target: &dyn Target, elf: &ElfImage, name: &str) -> Option<Symbol> {
    elf.symbol(target, name).ok().flatten()
}

fn describe(target: &dyn Target, elf: &ElfImage, path: PathBuf, single_file: bool) -> RuntimeImage {
    let range = elf.range();
    let build_id = elf.build_id(target).ok().flatten();
    RuntimeImage { base: range.start, end: range.end, path, single_file, build_id }
}

fn globals(target: &dyn Target, image: RuntimeImage, elf: ElfImage) -> Result<Located, Error> {
    let base = image.base;
    let (shape, globals) = match symbol(target, &elf, "g_dacTable") {
        Some(table) => {
            let Some(shape) = shape_of(table.size) else {
                let version = crate::version::find(target, &image).map(|v| v.text);
                return Err(Error::UnknownRuntime { base, table_bytes: table.size, version });
            };
            (shape, resolve(target, &shape, table.address, base)?)
        }
        None => scan(target, &elf, base)?,
    };
    let Some(layout) = layout(shape.major, target.arch()) else {
        let version = crate::version::find(target, &image).map(|v| v.text);
        return Err(Error::UnknownRuntime { base, table_bytes: shape.entries * 8, version });
    };
    check(target, &layout, &globals).map_err(|what| Error::FailedCheck { base, major: shape.major, what })?;
    Ok(Located { image, elf, shape, layout, globals })
}

fn resolve(memory: &dyn Memory, shape: &TableShape, table: u64, base: u64) -> Result<Globals<u64>, Error> {
    shape.globals.try_map(|index| match shape.entry {
        TableEntry::Absolute => memory.u64(table.wrapping_add(8 * index)).reading("the table of globals"),
        TableEntry::Relative => memory
            .u32(table.wrapping_add(4 * index))
            .map(|rva| base.wrapping_add(rva.into()))
            .reading("the table of globals"),
    })
}

/// Finds 3.1's table by its structure: the only run of so many plausible offsets in the runtime's writable data. The
/// word in front of the table may look like an offset too, so every start in the run is tried, and the content decides.
fn scan(target: &dyn Target, elf: &ElfImage, base: u64) -> Result<(TableShape, Globals<u64>), Error> {
    let shape = TABLE_3_1;
    let Some(layout) = layout(shape.major, target.arch()) else { return Err(Error::NoTable { base }) };
    let range = elf.range();
    let size = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
    let needed = shape.globals.sync_block_cache + 1;
    for (start, length) in runs(target, elf, size) {
        for shift in 0..=length.saturating_sub(needed) {
            let Ok(globals) = resolve(target, &shape, start + 4 * shift, base) else { continue };
            if check(target, &layout, &globals).is_ok() {
                return Ok((shape, globals));
            }
        }
    }
    Err(Error::NoTable { base })
}

/// Runs (address, number) of 32-bit numbers that may be offsets into an image of `size` bytes.
fn runs(target: &dyn Target, elf: &ElfImage, size: u32) -> Vec<(u64, u64)> {
    const PAGE: u64 = 4096;
    let mut found = Vec::new();
    for range in elf.data_ranges() {
        let mut run = (0u64, 0u64);
        let mut page = [0u8; PAGE as usize];
        let mut at = range.start & !(PAGE - 1);
        while at < range.end {
            // A page that is not in the dump ends a run like a zero does.
            if target.read(at, &mut page).is_err() {
                page.fill(0);
            }
            for (i, word) in page.chunks_exact(4).enumerate() {
                let value = word.try_into().map(u32::from_le_bytes).unwrap_or(0);
                if (FIRST_RVA..size).contains(&value) {
                    if run.1 == 0 {
                        run.0 = at + 4 * i as u64;
                    }
                    run.1 += 1;
                } else {
                    if run.1 >= RUN_3_1 {
                        found.push(run);
                    }
                    run.1 = 0;
                }
            }
            at += PAGE;
        }
        if run.1 >= RUN_3_1 {
            found.push(run);
        }
    }
    found
}

/// The content check: `System.Object` has no parent and the smallest size, `System.String` derives from it and has
/// elements of two bytes, and the GC's table of variables begins with believable numbers.
fn check(memory: &dyn Memory, layout: &Layout, globals: &Globals<u64>) -> Result<(), &'static str> {
    let pointer = |at: u64| memory.u64(at).unwrap_or(0);
    let half = |at: u64| memory.u32(at).unwrap_or(0);
    let object = pointer(globals.object_class);
    if half(object + 4) != 24 || memory.u64(object.wrapping_add(16)) != Ok(0) {
        return Err("System.Object");
    }
    let string = pointer(globals.string_class);
    let flags = half(string);
    if pointer(string.wrapping_add(16)) != object || flags >> 31 != 1 || flags & 0xffff != 2 {
        return Err("System.String");
    }
    let gc = pointer(globals.gc_dac_globals);
    let size = pointer(gc.wrapping_add(8));
    let major = memory.u8(gc).unwrap_or(0);
    let oldest = if layout.gc.fixed_generations.is_some() { 0 } else { 1 };
    if !(oldest..=5).contains(&major) || !(64..=2048).contains(&size) || size % 8 != 0 {
        return Err("the GC's table of variables");
    }
    Ok(())
}
