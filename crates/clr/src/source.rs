//! From native code to lines of source.
//!
//! Debug info maps native code to IL ([`crate::code::IlMap`]), a portable PDB maps IL to lines. The PDB is inside the
//! assembly, or in a file beside it; that one counts only when its id is the one that the assembly names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dnd_memory::{MappedFile, Target};
use dnd_metadata::{CodeView, DebugEntry, Pdb, Pe, Table, Token, debug_kind, embedded_pdb};

use crate::code::{Code, IlOffset};
use crate::error::Error;
use crate::modules::{InMemory, Module};
use crate::runtime::Runtime;

/// Bytes of an embedded PDB, packed.
const MAX_EMBEDDED: usize = 1 << 26;
/// Minor version of a CodeView entry that names a portable PDB.
const PORTABLE: u16 = 0x504d;

/// What a piece of native code was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Address of the `Module` whose IL it is.
    pub module: u64,
    /// Address of the `MethodDesc`.
    pub method: u64,
    /// Metadata token of the method.
    pub token: Token,
    /// Where in the method's IL; `None` when the compiler kept no map.
    pub il: Option<IlOffset>,
    /// Why that can't be told, when the map is missing or damaged.
    pub problem: Option<Error>,
    /// The line; `None` without a PDB that is the right one, and for code that no line is behind.
    pub line: Option<SourceLine>,
}

/// A line of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// The file, as the compiler was given it.
    pub file: String,
    /// From 1 on.
    pub line: u32,
}

/// The PDB of a module.
#[derive(Debug)]
pub(crate) enum ModulePdb {
    /// It was inside the assembly.
    Embedded(Vec<u8>),
    /// It was beside it.
    File(MappedFile),
}

impl ModulePdb {
    /// The PDB, ready to be asked.
    pub(crate) fn get(&self) -> Option<Pdb<'_>> {
        Pdb::parse(match self {
            ModulePdb::Embedded(bytes) => bytes,
            ModulePdb::File(file) => file.bytes(),
        })
        .ok()
    }
}

impl Runtime<'_> {
    /// What the code at `ip` was made from; `None` when there is no managed method. A return address stands behind
    /// its call, which may be the last of its line: with `is_return` the byte before it is looked up.
    #[must_use]
    pub fn source_of(&self, ip: u64, is_return: bool) -> Option<Source> {
        let at = if is_return { ip.checked_sub(1)? } else { ip };
        let code = self.method_code(at).ok()??;
        self.source_of_code(&code, at)
    }

    /// The same for an address inside code that is known already.
    #[must_use]
    pub fn source_of_code(&self, code: &Code, at: u64) -> Option<Source> {
        let method = self.method(code.method).ok()?;
        let table = self.method_table(method.table).ok()?;
        let module = table.module(self.target(), self.layout()).ok()?;
        let native = u32::try_from(at.wrapping_sub(code.start)).ok()?;
        let (map, problem) = match self.il_map(code) {
            Ok(map) => (Some(map), None),
            Err(error) => (None, Some(error)),
        };
        let token = Token(method.token);
        let line = || {
            let row = token.row_of(Table::MethodDef)?;
            let pdb = self.pdb(module)?;
            let pdb = pdb.get()?;
            let point = pdb.line_at(row, map.as_ref()?.line_offset(native)?)?;
            Some(SourceLine { file: pdb.document(point.document)?, line: point.line })
        };
        let il = map.as_ref().and_then(|map| map.at(native));
        Some(Source { module, method: code.method, token, il, problem, line: line() })
    }

    /// The PDB of a module, looked for on the first call.
    pub(crate) fn pdb(&self, module: u64) -> Option<Arc<ModulePdb>> {
        if let Ok(known) = self.pdbs().lock()
            && let Some(pdb) = known.get(&module)
        {
            return pdb.clone();
        }
        let pdb = find(self.target(), &self.module(module)).map(Arc::new);
        if let Ok(mut known) = self.pdbs().lock() {
            known.insert(module, pdb.clone());
        }
        pdb
    }
}

fn find(target: &dyn Target, module: &Module<'_>) -> Option<ModulePdb> {
    let (base, layout) = module.image?;
    let image = InMemory { memory: target, base };
    let pe = Pe::parse(&image, layout).ok()?;
    let entries = pe.debug_entries(&image).ok()?;
    let of_kind = |kind: u32| entries.iter().find(move |entry| entry.kind == kind);
    let wanted = of_kind(debug_kind::CODE_VIEW).filter(|entry| entry.version.1 == PORTABLE);
    let code_view = pe.code_view(&image).ok().flatten();
    let id = wanted.zip(code_view.as_ref()).map(|(entry, code_view)| id(entry, code_view));
    if let Some(entry) = of_kind(debug_kind::EMBEDDED_PORTABLE_PDB) {
        let unpacked =
            pe.debug_data(&image, entry, MAX_EMBEDDED).ok().and_then(|data| embedded_pdb(&data).ok());
        // It is the assembly's own, but the pages may be from a file.
        if let Some(bytes) = unpacked
            && Pdb::parse(&bytes).is_ok_and(|pdb| id.is_none_or(|id| pdb.id() == id))
        {
            return Some(ModulePdb::Embedded(bytes));
        }
    }
    let id = id?;
    let accept = |bytes: &[u8]| match Pdb::parse(bytes) {
        Ok(pdb) if pdb.id() == id => Ok(()),
        Ok(_) => Err("it is the PDB of another build".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let paths = places(&module.path, &code_view?.path);
    paths.iter().find_map(|path| target.find_file(path, &mut |bytes| accept(bytes))).map(ModulePdb::File)
}

/// GUID and time stamp, as a portable PDB has them for an id.
fn id(entry: &DebugEntry, code_view: &CodeView) -> [u8; 20] {
    let mut id = [0; 20];
    let stamp = entry.time_date_stamp.to_le_bytes();
    for (to, from) in id.iter_mut().zip(code_view.guid.0.iter().chain(&stamp)) {
        *to = *from;
    }
    id
}

/// Where a PDB may be: beside its assembly, and where the compiler wrote it.
fn places(assembly: &str, written: &str) -> Vec<PathBuf> {
    // The compiler may have run on Windows.
    let name = written.rsplit(['/', '\\']).next().unwrap_or(written);
    let mut paths = Vec::new();
    if !name.is_empty() {
        paths.push(Path::new(assembly).with_file_name(name));
    }
    let written = PathBuf::from(written);
    if written.is_absolute() && !paths.contains(&written) {
        paths.push(written);
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pdb_is_looked_for_beside_its_assembly_first() {
        let paths = |assembly, written| -> Vec<String> {
            places(assembly, written).iter().map(|path| path.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(paths("/app/A.dll", "/src/obj/A.pdb"), ["/app/A.pdb", "/src/obj/A.pdb"]);
        assert_eq!(paths("/app/A.dll", "C:\\src\\obj\\A.pdb"), ["/app/A.pdb"]);
        assert_eq!(paths("/app/A.dll", "/app/A.pdb"), ["/app/A.pdb"]);
        assert_eq!(paths("/app/A.dll", "A.pdb"), ["/app/A.pdb"]);
        assert!(paths("/app/A.dll", "").is_empty());
    }
}
