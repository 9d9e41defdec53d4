//! Modules, and where their metadata is.
//!
//! Source: `src/coreclr/vm/ceeload.h` (`Module`), `vm/peassembly.h`, `vm/peimage.h` (`PEImage`), `vm/peimagelayout.h`
//! (`PEImageLayout`), `vm/assembly.hpp`, `vm/appdomain.hpp`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use dnd_memory::{Memory, Missing, Target};
use dnd_metadata::{Guid, Layout as PeLayout, Metadata, Pe, Source, Table};

use crate::error::{Error, Reading};
use crate::layout::{Globals, Layout, LoaderAllocatorAt};

/// `PEAssembly::m_PEImage`.
const PE_IMAGE: u64 = 8;
/// Buffer of `PEImage::m_path`, an `SString` (size, allocation, flags, buffer).
const IMAGE_PATH: u64 = 16;
/// `PEImageLayout`: base, size, flags.
const LAYOUT_BASE: u64 = 8;
const LAYOUT_SIZE: u64 = 16;
const LAYOUT_FLAGS: u64 = 20;
/// Flag of a layout whose sections lie at their addresses; else it is the file as it is.
const LAYOUT_MAPPED: u32 = 1;
/// Metadata larger than this is damage: the largest known is 30 MB.
const MAX_METADATA: u32 = 1 << 30;
const MAX_ASSEMBLIES: u32 = 1 << 20;

/// A module of the target.
#[derive(Debug, Clone)]
pub struct Module<'t> {
    /// Address of the `Module`.
    pub address: u64,
    /// The file, as the target saw it; empty for a module made by Reflection.Emit or inside a single-file program.
    pub path: String,
    /// Simple name of its assembly, for example `System.Private.CoreLib`; empty when the metadata can't be read.
    pub name: String,
    /// Address of its image, 0 for none.
    pub image_base: u64,
    /// Size of its image in bytes.
    pub image_size: u32,
    /// Identity of the build, from the metadata.
    pub mvid: Option<Guid>,
    /// Made at run time by Reflection.Emit.
    pub dynamic: bool,
    /// Why there is no metadata.
    pub problem: Option<String>,
    /// How its image lies in memory.
    image_layout: PeLayout,
    metadata: Option<Cow<'t, [u8]>>,
    /// The image that its metadata is in: address, and how its bytes lie.
    pub(crate) image: Option<(u64, PeLayout)>,
}

impl Module<'_> {
    /// The module's metadata.
    #[must_use]
    pub fn metadata(&self) -> Option<Metadata<'_>> {
        Metadata::parse(self.metadata.as_deref()?).ok()
    }

    /// Last component of the path, or the assembly's name with `.dll`.
    #[must_use]
    pub fn file_name(&self) -> String {
        match Path::new(&self.path).file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None => format!("{}.dll", self.name),
        }
    }
}

/// An image in a target's memory.
pub(crate) struct InMemory<'m> {
    pub(crate) memory: &'m dyn Memory,
    pub(crate) base: u64,
}

impl Source for InMemory<'_> {
    fn read(&self, offset: u64, buf: &mut [u8]) -> bool {
        self.memory.read(self.base.wrapping_add(offset), buf).is_ok()
    }
}

/// Reads the module at an address. Never fails: what is not known is left out, with the reason.
pub(crate) fn read<'t>(target: &'t dyn Target, layout: &Layout, address: u64) -> Module<'t> {
    let mut module = Module {
        address,
        path: String::new(),
        name: String::new(),
        image_base: 0,
        image_size: 0,
        mvid: None,
        dynamic: false,
        problem: None,
        image_layout: PeLayout::Mapped,
        metadata: None,
        image: None,
    };
    if let Err(error) = fill(target, layout, &mut module) {
        module.problem = Some(error);
    }
    let facts = module.metadata().map(|metadata| {
        let row = metadata.module();
        let name = metadata.assembly().map(|a| a.name.into_owned());
        (name.or_else(|| row.as_ref().map(|m| m.name.to_string())), row.map(|m| m.mvid))
    });
    if let Some((name, mvid)) = facts {
        module.name = name.unwrap_or_default();
        module.mvid = mvid;
    }
    module
}

fn fill<'t>(target: &'t dyn Target, layout: &Layout, module: &mut Module<'t>) -> Result<(), String> {
    let l = &layout.module;
    let text = |missing: Missing| missing.to_string();
    let assembly = target.u64(module.address.wrapping_add(l.pe_assembly)).map_err(text)?;
    let image = target.u64(assembly.wrapping_add(PE_IMAGE)).map_err(text)?;
    let dynamic =
        l.dynamic_metadata.and_then(|at| target.u64(module.address.wrapping_add(at)).ok()).unwrap_or(0);
    if image == 0 || dynamic != 0 {
        module.dynamic = true;
        let unsaved = |_| "its metadata was made at run time and is not saved".to_owned();
        module.metadata = Some(match l.dynamic_buffer {
            // `SBuffer`: size, allocation, flags, buffer.
            Some(at) => {
                let saved = target.u64(module.address.wrapping_add(at)).map_err(unsaved)?;
                let size = target.u32(saved).map_err(unsaved)?;
                bytes(target, target.u64(saved.wrapping_add(16)).map_err(unsaved)?, size)?
            }
            // `DynamicMetadata`: size, then the bytes.
            None => {
                let size = target.u32(dynamic).map_err(unsaved)?;
                bytes(target, dynamic.wrapping_add(4), size)?
            }
        });
        return Ok(());
    }
    if let Ok(buffer) = target.u64(image.wrapping_add(IMAGE_PATH))
        && buffer != 0
    {
        module.path = target.utf16_z(buffer, 4096).unwrap_or_default();
    }
    from_image(target, l.image_layouts, image, module)?;
    if let Err(problem) = check_rows(target, layout, module) {
        (module.metadata, module.image) = (None, None);
        return Err(problem);
    }
    Ok(())
}

/// The runtime made its maps for exactly as many types and methods as the module it loaded has. Metadata of another
/// build, which a file of this machine may be, hardly ever has the same numbers of both.
fn check_rows(target: &dyn Target, layout: &Layout, module: &Module<'_>) -> Result<(), String> {
    let Some(metadata) = module.metadata() else { return Ok(()) };
    let l = &layout.module;
    for (map, table) in [(l.type_def_map, Table::TypeDef), (l.method_def_map, Table::MethodDef)] {
        // Entry 0 stands for no row.
        let expected = target.u32(module.address.wrapping_add(map).wrapping_add(16)).unwrap_or(0);
        let found = metadata.rows(table).saturating_add(1);
        if expected != 0 && expected != found {
            return Err(format!(
                "the metadata of {} is of another build: it has {found} rows where the runtime has {expected}",
                module.path
            ));
        }
    }
    Ok(())
}

fn from_image<'t>(
    target: &'t dyn Target,
    layouts: &[u64],
    image: u64,
    module: &mut Module<'t>,
) -> Result<(), String> {
    let text = |missing: Missing| missing.to_string();
    let mut problem = "its image is not loaded".to_owned();
    for &offset in layouts {
        let at = target.u64(image.wrapping_add(offset)).map_err(text)?;
        if at == 0 {
            continue;
        }
        let base = target.u64(at.wrapping_add(LAYOUT_BASE)).map_err(text)?;
        let flags = target.u32(at.wrapping_add(LAYOUT_FLAGS)).map_err(text)?;
        let layout = if flags & LAYOUT_MAPPED != 0 { PeLayout::Mapped } else { PeLayout::File };
        if module.image_base == 0 {
            module.image_base = base;
            module.image_size = target.u32(at.wrapping_add(LAYOUT_SIZE)).map_err(text)?;
            module.image_layout = layout;
        }
        match metadata_of(target, base, layout) {
            Ok(metadata) => {
                module.metadata = Some(metadata);
                module.image = Some((base, layout));
                return Ok(());
            }
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// Where what an image says to be at `rva` is in memory.
pub(crate) fn address_of(target: &dyn Target, module: &Module<'_>, rva: u32) -> Option<u64> {
    let base = module.image_base;
    let source = InMemory { memory: target, base };
    let offset = match module.image_layout {
        PeLayout::Mapped => Some(rva.into()),
        layout => Pe::parse(&source, layout).ok()?.offset(rva),
    };
    Some(base.wrapping_add(offset?)).filter(|_| base != 0)
}

fn metadata_of(target: &dyn Target, base: u64, layout: PeLayout) -> Result<Cow<'_, [u8]>, String> {
    let source = InMemory { memory: target, base };
    let text = |error: dnd_metadata::Error| match error {
        dnd_metadata::Error::Missing { .. } => {
            "its pages are neither in the dump nor in a file that is the same".to_owned()
        }
        error => error.to_string(),
    };
    let pe = Pe::parse(&source, layout).map_err(text)?;
    let (offset, size) = pe.metadata_range(&source).map_err(text)?;
    let metadata = bytes(target, base.wrapping_add(offset), size)?;
    Metadata::parse(&metadata).map_err(|e| e.to_string())?;
    Ok(metadata)
}

fn bytes(target: &dyn Target, at: u64, size: u32) -> Result<Cow<'_, [u8]>, String> {
    if size > MAX_METADATA {
        return Err(format!("its metadata would have {size} bytes"));
    }
    if let Some(borrowed) = target.slice(at, size as usize) {
        return Ok(Cow::Borrowed(borrowed));
    }
    // Not in one piece. A look at both ends first: no allocation for what is not there.
    target
        .u8(at)
        .and_then(|_| target.u8(at.wrapping_add(u64::from(size).max(1) - 1)))
        .map_err(|m| m.to_string())?;
    let mut owned = vec![0; size as usize];
    target.read(at, &mut owned).map_err(|m| m.to_string())?;
    Ok(Cow::Owned(owned))
}

/// Addresses of the manifest modules of all assemblies, in load order.
pub(crate) fn all(memory: &dyn Memory, layout: &Layout, globals: &Globals<u64>) -> Result<Vec<u64>, Error> {
    let l = &layout.app_domain;
    let what = "the list of assemblies";
    let domain = memory.u64(globals.app_domain).reading("the pointer to the application domain")?;
    // `ArrayList`: count, then blocks of (next, size, items).
    let list = domain.wrapping_add(l.assemblies);
    let count = memory.u32(list).reading(what)?.min(MAX_ASSEMBLIES);
    let mut block = list.wrapping_add(8);
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    let mut left = count;
    while left > 0 && block != 0 && seen.insert(block) {
        let size = memory.u32(block.wrapping_add(8)).reading(what)?;
        for i in 0..size.min(left) {
            let item = memory.u64(block.wrapping_add(16 + 8 * u64::from(i))).reading(what)?;
            if item == 0 {
                continue;
            }
            let module = memory
                .u64(item.wrapping_add(l.domain_assembly))
                .and_then(|assembly| memory.u64(assembly.wrapping_add(l.assembly_module)));
            match module {
                Ok(module) if module != 0 => out.push(module),
                _ => {}
            }
        }
        left -= size.min(left);
        block = memory.u64(block).reading(what)?;
    }
    Ok(out)
}

/// The `LoaderAllocator` object that keeps a collectible module's types; 0 when there is none.
pub(crate) fn loader_allocator_object(
    memory: &dyn Memory,
    layout: &Layout,
    module: u64,
) -> Result<u64, Missing> {
    let allocator = loader_allocator(memory, layout, module)?;
    match memory.u64(allocator.wrapping_add(layout.module.loader_allocator_handle))? & !1 {
        0 => Ok(0),
        handle => memory.u64(handle),
    }
}

/// A module's `LoaderAllocator*`.
pub(crate) fn loader_allocator(memory: &dyn Memory, layout: &Layout, module: u64) -> Result<u64, Missing> {
    let l = &layout.module;
    match l.loader_allocator {
        LoaderAllocatorAt::Module(at) => memory.u64(module.wrapping_add(at)),
        LoaderAllocatorAt::Assembly(at) => {
            let assembly = memory.u64(module.wrapping_add(l.assembly))?;
            memory.u64(assembly.wrapping_add(at))
        }
    }
}

/// The method table of a type definition's row, from the module's map; 0 when the type isn't loaded.
///
/// Source: `LookupMap` in `vm/ceeload.h`: next, table, count, flags in the low bits of the entries.
pub(crate) fn type_def_table(memory: &dyn Memory, layout: &Layout, module: u64, row: u32) -> u64 {
    map_entry(memory, layout, module.wrapping_add(layout.module.type_def_map), row)
}

/// The method description of a method definition's row, from the module's map; 0 when there is none yet.
pub(crate) fn method_def(memory: &dyn Memory, layout: &Layout, module: u64, row: u32) -> u64 {
    map_entry(memory, layout, module.wrapping_add(layout.module.method_def_map), row)
}

/// The loaded type that a row of the table of references to other modules' types stands for, from the module's map;
/// 0 when it isn't known.
pub(crate) fn type_ref_table(memory: &dyn Memory, layout: &Layout, module: u64, row: u32) -> u64 {
    map_entry(memory, layout, module.wrapping_add(layout.module.type_ref_map), row)
}

fn map_entry(memory: &dyn Memory, layout: &Layout, map: u64, row: u32) -> u64 {
    let mut map = map;
    let mut row = u64::from(row);
    for _ in 0..64 {
        let Ok(count) = memory.u32(map.wrapping_add(16)) else { return 0 };
        let flags = if layout.major == 3 { 3 } else { memory.u64(map.wrapping_add(24)).unwrap_or(0) };
        if row < u64::from(count) {
            let table = memory.u64(map.wrapping_add(8)).unwrap_or(0);
            return memory.u64(table.wrapping_add(8 * row)).unwrap_or(0) & !flags;
        }
        row -= u64::from(count);
        match memory.u64(map) {
            Ok(next) if next != 0 => map = next,
            _ => return 0,
        }
    }
    0
}

/// Rows that a module's type map has room for.
pub(crate) fn type_def_count(memory: &dyn Memory, layout: &Layout, module: u64) -> u32 {
    let mut map = module.wrapping_add(layout.module.type_def_map);
    let mut all = 0u32;
    for _ in 0..64 {
        all = all.saturating_add(memory.u32(map.wrapping_add(16)).unwrap_or(0));
        match memory.u64(map) {
            Ok(next) if next != 0 => map = next,
            _ => break,
        }
    }
    all.min(1 << 24)
}
