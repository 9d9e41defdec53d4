//! Finding the runtime in a target, and its globals in the runtime.
//!
//! Sources: `src/coreclr/inc/dacvars.h` and `debug/ee/dactable.cpp` (`g_dacTable`),
//! `docs/design/datacontracts/contract-descriptor.md`, `src/native/corehost` (single-file hosts export the same symbols).

use std::path::PathBuf;

use dnd_memory::{ElfImage, Memory, Missing, Symbol, Target};

use crate::descriptor::{self, Descriptor};
use crate::error::{Error, Reading};
use crate::layout::{
    Globals, Layout, LayoutFacts, TABLE_3_1, TableEntry, TableShape, agrees, align, apply, caveat, layout,
    nearest, shape_of, source_candidates,
};
use crate::trial::{plausible, source_fits};
use crate::version;

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
    /// Address of the table of globals.
    pub(crate) table: u64,
    pub(crate) layout: Layout,
    /// Addresses of the globals.
    pub(crate) globals: Globals<u64>,
    /// Where the layout is from.
    pub(crate) facts: LayoutFacts,
}

/// Finds the runtime: `libcoreclr.so`, else a program with the runtime inside.
pub(crate) fn locate(target: &dyn Target) -> Result<Located, Error> {
    let firsts = || target.mappings().iter().filter(|mapping| mapping.offset == 0);
    let (mut images, mut native_aot, mut unread) = (0, false, None);
    let mut not_there = None;
    for mapping in firsts() {
        images += 1;
        if mapping.file_name() == "libcoreclr.so" {
            let Ok(elf) = ElfImage::at(target, mapping.start) else {
                let path = mapping.path.display().to_string();
                not_there.get_or_insert(Error::RuntimeNotInDump { base: mapping.start, path });
                continue;
            };
            let image = describe(target, &elf, mapping.path.clone(), false);
            return globals(target, image, elf);
        }
    }
    for mapping in firsts() {
        let Ok(elf) = ElfImage::at(target, mapping.start) else { continue };
        if symbol(target, &elf, "g_dacTable").is_some() || symbol(target, &elf, "DotNetRuntimeInfo").is_some()
        {
            let image = describe(target, &elf, mapping.path.clone(), true);
            return globals(target, image, elf);
        }
        match elf.symbol(target, "DotNetRuntimeDebugHeader") {
            Ok(found) => native_aot |= found.is_some(),
            // The program comes first.
            Err(_) => _ = unread.get_or_insert_with(|| mapping.path.display().to_string()),
        }
    }
    Err(not_there.unwrap_or(Error::NoRuntime { images, native_aot, unread }))
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
    // Content alone can't tell versions apart that look alike: where the version is told, it must fit.
    let told = version::cheap(target, &image);
    let major = told.as_ref().and_then(version::Version::major);
    let Some(table) = symbol(target, &elf, "g_dacTable") else {
        return oldest(target, image, elf, told);
    };
    let known = shape_of(table.size).filter(|shape| major.is_none_or(|major| major == shape.major));
    if known.is_none() && major.is_none_or(|major| (5..8).contains(&major)) {
        let mut candidates = source_candidates(table.size, target.arch());
        candidates.retain(|(shape, _)| major.is_none_or(|major| major == shape.major));
        let tried = from_source(target, &image, table, told.as_ref(), candidates)?;
        if let Some((shape, layout, globals, facts)) = tried {
            return Ok(Located { image, elf, shape, table: table.address, layout, globals, facts });
        }
    }
    let descriptor = if known.is_some_and(|shape| shape.major < FIRST_DESCRIBED) {
        Ok(None)
    } else {
        descriptor::find(target, &elf)
    };
    let Some(shape) = known else {
        let version = told.or_else(|| version::find(target, &image));
        return newer(target, image, elf, table, descriptor, version);
    };
    let base = image.base;
    let Some(embedded) = layout(shape.major, target.arch()) else {
        let descriptor = format!("its {} layout was never checked", target.arch().name());
        let version = told.map(|v| v.text);
        return Err(Error::UnknownRuntime { base, table_bytes: table.size, version, descriptor });
    };
    let globals = resolve(target, &shape, table.address, base)?;
    check(target, &embedded, &globals).map_err(|found| found.error(base, shape.major))?;
    let unverified = caveat(shape.major, target.arch()).map(str::to_owned);
    let mut facts = LayoutFacts { unverified: unverified.clone(), ..LayoutFacts::default() };
    match descriptor {
        Ok(None) => {}
        Ok(Some(descriptor)) => match described(target, base, table, shape, embedded, &descriptor) {
            Ok((shape, layout, globals, mut facts)) => {
                facts.unverified = unverified;
                return Ok(Located { image, elf, shape, table: table.address, layout, globals, facts });
            }
            Err(reason) => facts.refused = Some(reason),
        },
        Err(reason) => facts.refused = Some(reason),
    }
    Ok(Located { image, elf, shape, table: table.address, layout: embedded, globals, facts })
}

/// A runtime of which only the source was at hand. `None` when its table is none of these.
#[expect(clippy::type_complexity, reason = "the parts of `Located`")]
pub(crate) fn from_source(
    target: &dyn Target,
    image: &RuntimeImage,
    table: Symbol,
    told: Option<&version::Version>,
    candidates: Vec<(TableShape, Layout)>,
) -> Result<Option<(TableShape, Layout, Globals<u64>, LayoutFacts)>, Error> {
    let base = image.base;
    let mut refused = None;
    for (shape, layout) in candidates {
        let Ok(globals) = resolve(target, &shape, table.address, base) else { continue };
        if let Err(found) = check(target, &layout, &globals) {
            refused.get_or_insert_with(|| format!("by it, {} is not in its place", found.what()));
            continue;
        }
        match source_fits(target, &layout, &globals) {
            Ok(()) => {
                let unverified = Some(format!(
                    "no runtime of .NET {} was at hand to check this program on: where things are in it is known from \
                     its source, and this dump fits that as far as can be told; not verified on a real core",
                    shape.major
                ));
                let facts = LayoutFacts { unverified, ..LayoutFacts::default() };
                return Ok(Some((shape, layout, globals, facts)));
            }
            Err(reason) => refused = Some(reason),
        }
    }
    let Some(reason) = refused else { return Ok(None) };
    let version = told.cloned().or_else(|| version::find(target, image)).map(|version| version.text);
    let descriptor = format!("the tables that were made from its source do not fit it ({reason})");
    Err(Error::UnknownRuntime { base, table_bytes: table.size, version, descriptor })
}

/// .NET Core 3.1, which exports no table.
fn oldest(
    target: &dyn Target,
    image: RuntimeImage,
    elf: ElfImage,
    told: Option<version::Version>,
) -> Result<Located, Error> {
    let base = image.base;
    let of_31 = |version: &version::Version| version.major().is_none_or(|major| major == TABLE_3_1.major);
    let unknown = |version: version::Version| Error::UnknownRuntime {
        base,
        table_bytes: 0,
        version: Some(version.text),
        descriptor: "no descriptor is looked for in a runtime without that table".to_owned(),
    };
    if let Some(version) = told.as_ref().filter(|version| !of_31(version)) {
        return Err(unknown(version.clone()));
    }
    let (shape, table, globals) = scan(target, &elf, base)?;
    // .NET 5 has the same kind of table; nothing but its version tells it from 3.1 for sure.
    let version = told.or_else(|| version::find(target, &image));
    if let Some(version) = version.filter(|version| !of_31(version)) {
        return Err(unknown(version));
    }
    let Some(layout) = layout(shape.major, target.arch()) else { return Err(Error::NoTable { base }) };
    Ok(Located { image, elf, shape, table, layout, globals, facts: LayoutFacts::default() })
}

/// The first major version whose runtimes have a descriptor.
const FIRST_DESCRIBED: u8 = 9;

/// A runtime whose table has another length than all known ones: only its own descriptor can tell.
fn newer(
    target: &dyn Target,
    image: RuntimeImage,
    elf: ElfImage,
    table: Symbol,
    descriptor: Result<Option<Descriptor>, String>,
    version: Option<version::Version>,
) -> Result<Located, Error> {
    let base = image.base;
    let major = version.as_ref().and_then(version::Version::major);
    let text = version.map(|version| version.text);
    let open = || {
        if major.is_some_and(|major| major < FIRST_DESCRIBED) {
            return Err("runtimes before .NET 9 do not describe themselves".to_owned());
        }
        let descriptor = descriptor?.ok_or_else(|| {
            "its own descriptor is not at hand: a full dump or the runtime's file (--modules) may have it"
                .to_owned()
        })?;
        let refused = |reason: String| format!("its own descriptor can't be followed: {reason}");
        let major = major.ok_or_else(|| "nothing tells its version".to_owned())?;
        let shape = nearest(major).ok_or_else(|| format!(".NET {major} has no table here"))?;
        let embedded = layout(shape.major, target.arch())
            .ok_or_else(|| format!("the {} layout was never checked", target.arch().name()))?;
        let (shape, layout, globals, mut facts) =
            described(target, base, table, shape, embedded, &descriptor).map_err(refused)?;
        plausible(target, &layout, &globals).map_err(refused)?;
        facts.unverified = Some(format!(
            "this runtime{} is newer than the tables of this program; {} places are as its own descriptor says, all others \
             are assumed as in .NET {}",
            text.as_deref().map(|text| format!(" ({text})")).unwrap_or_default(),
            facts.described,
            shape.major
        ));
        Ok((shape, layout, globals, facts))
    };
    match open() {
        Ok((shape, layout, globals, facts)) => {
            Ok(Located { image, elf, shape, table: table.address, layout, globals, facts })
        }
        Err(descriptor) => {
            Err(Error::UnknownRuntime { base, table_bytes: table.size, version: text, descriptor })
        }
    }
}

/// More entries than any table has.
const MAX_ENTRIES: u64 = 4096;

/// A layout and globals as the runtime's descriptor says, and the table's where it says nothing.
fn described(
    target: &dyn Target,
    base: u64,
    table: Symbol,
    shape: TableShape,
    mut layout: Layout,
    descriptor: &Descriptor,
) -> Result<(TableShape, Layout, Globals<u64>, LayoutFacts), String> {
    let entries = table.size / 8;
    if entries > MAX_ENTRIES {
        return Err(format!("a table of {entries} globals"));
    }
    let entry = |i: u64| target.u64(table.address.wrapping_add(8 * i)).map_err(|missing| missing.to_string());
    let values = (0..entries).map(entry).collect::<Result<Vec<u64>, String>>()?;
    let agree = entries == shape.entries && agrees(&values, &shape.globals, descriptor);
    let places = if agree { shape.globals } else { align(&values, &shape.globals, descriptor)? };
    let shape = TableShape { entries, globals: places, ..shape };
    let globals = resolve(target, &shape, table.address, base).map_err(|error| error.to_string())?;
    let (described, differences) = apply(&mut layout, descriptor)?;
    check(target, &layout, &globals)
        .map_err(|found| format!("by it, {} is not in its place", found.what()))?;
    if !agree || !differences.is_empty() {
        plausible(target, &layout, &globals)?;
    }
    let source = Some(descriptor.source);
    let facts = LayoutFacts { descriptor: source, described, differences, refused: None, unverified: None };
    Ok((shape, layout, globals, facts))
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
fn scan(target: &dyn Target, elf: &ElfImage, base: u64) -> Result<(TableShape, u64, Globals<u64>), Error> {
    let shape = TABLE_3_1;
    let Some(layout) = layout(shape.major, target.arch()) else { return Err(Error::NoTable { base }) };
    let range = elf.range();
    let size = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
    let needed = shape.globals.sync_block_cache + 1;
    for (start, length) in runs(target, elf, size) {
        for shift in 0..=length.saturating_sub(needed) {
            let table = start + 4 * shift;
            let Ok(globals) = resolve(target, &shape, table, base) else { continue };
            if check(target, &layout, &globals).is_ok() {
                return Ok((shape, table, globals));
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
        let end = range.end.min(at.saturating_add(version::MAX_IMAGE));
        while at < end {
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

/// What the content check found wrong.
enum Check {
    /// It is not in the dump.
    Missing(&'static str, Missing),
    /// It is something else.
    Wrong(&'static str),
}

impl Check {
    fn error(self, base: u64, major: u8) -> Error {
        match self {
            Check::Missing(what, source) => Error::Missing { what, source },
            Check::Wrong(what) => Error::FailedCheck { base, major, what },
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Check::Missing(what, _) | Check::Wrong(what) => what,
        }
    }
}

/// The content check: `System.Object` has no parent and the smallest size, `System.String` derives from it and has
/// elements of two bytes, and the GC's table of variables begins with believable numbers.
fn check(memory: &dyn Memory, layout: &Layout, globals: &Globals<u64>) -> Result<(), Check> {
    let word = |at: u64, what| memory.u64(at).map_err(|missing| Check::Missing(what, missing));
    let half = |at: u64, what| memory.u32(at).map_err(|missing| Check::Missing(what, missing));
    let object = word(globals.object_class, "the pointer to System.Object")?;
    let what = "System.Object";
    if half(object.wrapping_add(4), what)? != 24 || word(object.wrapping_add(16), what)? != 0 {
        return Err(Check::Wrong(what));
    }
    let string = word(globals.string_class, "the pointer to System.String")?;
    let what = "System.String";
    let flags = half(string, what)?;
    if word(string.wrapping_add(16), what)? != object || flags >> 31 != 1 || flags & 0xffff != 2 {
        return Err(Check::Wrong(what));
    }
    let gc = word(globals.gc_dac_globals, "the pointer to the GC's table of variables")?;
    let what = "the GC's table of variables";
    let (major, size) = (half(gc, what)? & 0xff, word(gc.wrapping_add(8), what)?);
    let oldest = if layout.gc.fixed_generations.is_some() { 0 } else { 1 };
    if !(oldest..=5).contains(&major) || !(64..=2048).contains(&size) || size % 8 != 0 {
        return Err(Check::Wrong(what));
    }
    Ok(())
}
