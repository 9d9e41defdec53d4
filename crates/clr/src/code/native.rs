//! The methods of a type, their slots, and where a call of them goes.
//!
//! Source: `vm/method.hpp` (`MethodDesc`, `MethodDescChunk`, `MethodImpl`, `MethodDescCodeData`), `vm/methodtable.h` of
//! dotnet/runtime v8.0.0 to v10.0.14 and dotnet/coreclr v3.1.23.

use super::method::{CHUNK_HEADER, Method, MethodKind, UNIT};
use crate::error::{Error, Reading};
use crate::runtime::Runtime;
use crate::types::MethodTable;

/// `MethodDesc` flags: a slot of its own behind the description, an implementation of other slots, a slot for native code.
const OWN_SLOT: u16 = 0x8;
const METHOD_IMPL: u16 = 0x10;
const NATIVE_CODE_SLOT: u16 = 0x20;
/// `MethodDesc` flags3 of 8 and later: the entry never changes, it is a stub, the code may be made again.
const STABLE_ENTRY: u16 = 0x1000;
const HAS_PRECODE: u16 = 0x2000;
pub(super) const TIERED: u16 = 0x8000;
/// The same in flags2 of 3.1, with that for a slot for native code.
const OLD_STABLE_ENTRY: u8 = 1;
const OLD_HAS_PRECODE: u8 = 2;
const OLD_NATIVE_CODE_SLOT: u8 = 8;
const OLD_TIERED: u8 = 0x20;
/// `MethodImpl`: list of slots, list of methods.
const METHOD_IMPL_SIZE: u64 = 16;
/// Before 9: the slot number has all 16 bits; else the upper six are part of a hash.
const FULL_SLOT: u16 = 0x8000;
const PACKED_SLOT: u16 = 0x3ff;
/// Virtual methods in a chunk of a method table.
const VTABLE_CHUNK: u64 = 8;
/// Chunks of method descriptions of a type; more is damage.
const MAX_CHUNKS: usize = 1 << 12;
/// Base types of a type.
const MAX_BASES: usize = 256;
/// `MethodDescCodeData*` in a `MethodDesc` (9 and later).
pub(super) const CODE_DATA: u64 = 8;

/// A method of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeMethod {
    /// Its slot.
    pub slot: u16,
    /// What a call through the slot jumps to: a stub or the code; 0 for a method that has neither yet.
    pub entry: u64,
    /// Its description.
    pub method: Method,
}

impl Runtime<'_> {
    /// Bytes of a method description up to its optional parts.
    fn base_size(&self, kind: MethodKind) -> u64 {
        let more = match kind {
            MethodKind::Il => 0,
            MethodKind::FCall | MethodKind::ComInterop => 8,
            MethodKind::PInvoke if self.major() < 5 => 56,
            MethodKind::PInvoke => 40,
            MethodKind::RuntimeProvided | MethodKind::Array => 16,
            MethodKind::Instantiated => 24,
            MethodKind::Dynamic => 32,
        };
        self.layout().method_desc.size + more
    }

    fn whole_size(&self, method: &Method) -> u64 {
        let part = |flag: u16, size: u64| if method.flags & flag != 0 { size } else { 0 };
        self.base_size(method.kind)
            + part(OWN_SLOT, 8)
            + part(METHOD_IMPL, METHOD_IMPL_SIZE)
            + part(NATIVE_CODE_SLOT, 8)
    }

    /// What the flags words of a method say, whatever the version: [`OWN_SLOT`], [`METHOD_IMPL`], [`NATIVE_CODE_SLOT`],
    /// [`STABLE_ENTRY`], [`HAS_PRECODE`], [`TIERED`].
    pub(super) fn method_flags(&self, flags: u16, flags2: u8, flags3: u16) -> u16 {
        if self.major() > 3 {
            let all = flags & (OWN_SLOT | METHOD_IMPL | NATIVE_CODE_SLOT);
            return all | flags3 & (STABLE_ENTRY | HAS_PRECODE | TIERED);
        }
        let old = [
            (OLD_STABLE_ENTRY, STABLE_ENTRY),
            (OLD_HAS_PRECODE, HAS_PRECODE),
            (OLD_NATIVE_CODE_SLOT, NATIVE_CODE_SLOT),
            (OLD_TIERED, TIERED),
        ];
        let set = old.into_iter().filter(|(bit, _)| flags2 & bit != 0);
        set.fold(flags & (OWN_SLOT | METHOD_IMPL), |all, (_, flag)| all | flag)
    }

    /// A method's slot in its type.
    pub(super) fn slot_number(&self, slot: u16, flags: u16) -> u16 {
        if self.major() < 9 && flags & FULL_SLOT == 0 { slot & PACKED_SLOT } else { slot }
    }

    /// The methods that a type declares itself, as the runtime lists them.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`] for its descriptions.
    pub fn declared_methods(&self, table: &MethodTable) -> Result<Vec<Method>, Error> {
        let what = "a chunk of method descriptions";
        let memory = self.target();
        let canonical = self.method_table(table.canonical)?;
        let mut chunk = memory.u64(canonical.ee_class.wrapping_add(32)).reading("a type's methods")?;
        let mut methods = Vec::new();
        for _ in 0..MAX_CHUNKS {
            if chunk == 0 {
                return Ok(methods);
            }
            let count = u32::from(memory.u8(chunk.wrapping_add(17)).reading(what)?) + 1;
            let mut at = chunk.wrapping_add(CHUNK_HEADER);
            for _ in 0..count {
                let index = memory.u8(at.wrapping_add(2)).reading(what)?;
                if at.wrapping_sub(UNIT * u64::from(index)) != chunk.wrapping_add(CHUNK_HEADER) {
                    return Err(Error::Damaged { what, addr: chunk });
                }
                let method = self.method(at)?;
                at = at.wrapping_add(self.whole_size(&method));
                methods.push(method);
            }
            chunk = memory.u64(chunk.wrapping_add(8)).reading(what)?;
        }
        Err(Error::Damaged { what, addr: table.address })
    }

    /// All methods of a type: virtual ones by slot, inherited ones among them, then what it declares besides.
    ///
    /// # Errors
    /// As for [`Self::declared_methods`].
    pub fn type_methods(&self, table: &MethodTable) -> Result<Vec<TypeMethod>, Error> {
        let virtuals = table.virtuals;
        let mut slots: Vec<Option<Method>> = vec![None; virtuals.into()];
        let mut others = Vec::new();
        let mut at = *table;
        for depth in 0..MAX_BASES {
            for method in self.declared_methods(&at)? {
                for slot in self.implemented_slots(&method).into_iter().chain([method.slot]) {
                    match slots.get_mut(usize::from(slot)) {
                        Some(place) => drop(place.get_or_insert(method)),
                        None if depth == 0 && slot == method.slot => others.push(method),
                        None => {}
                    }
                }
            }
            if at.parent == 0 {
                break;
            }
            at = self.method_table(at.parent)?;
        }
        // In the order of the runtime's own list.
        others.sort_by_key(|method| if method.flags & OWN_SLOT == 0 { method.slot } else { u16::MAX });
        let methods = slots.into_iter().enumerate().filter_map(|(slot, method)| {
            let slot = u16::try_from(slot).ok()?;
            Some(TypeMethod { slot, entry: self.vtable_entry(table, slot), method: method? })
        });
        let others = others.into_iter().map(|method| TypeMethod {
            slot: method.slot,
            entry: self.own_entry(&method),
            method,
        });
        Ok(methods.chain(others).collect())
    }

    /// The further slots that a method implements (`MethodImpl`: number of slots, then the slots).
    fn implemented_slots(&self, method: &Method) -> Vec<u16> {
        if method.flags & METHOD_IMPL == 0 {
            return Vec::new();
        }
        let memory = self.target();
        let own = if method.flags & OWN_SLOT != 0 { 8 } else { 0 };
        let read = || -> Option<Vec<u16>> {
            let at = method.address.wrapping_add(self.base_size(method.kind) + own);
            let list = memory.u64(at).ok().filter(|&list| list != 0)?;
            let count = memory.u32(list).ok().filter(|&count| count < 1 << 16)?;
            (1..=u64::from(count))
                .map(|i| u16::try_from(memory.u32(list.wrapping_add(4 * i)).ok()?).ok())
                .collect()
        };
        read().unwrap_or_default()
    }

    fn vtable_entry(&self, table: &MethodTable, slot: u16) -> u64 {
        let memory = self.target();
        let (chunk, place) = (u64::from(slot) / VTABLE_CHUNK, u64::from(slot) % VTABLE_CHUNK);
        let chunk = memory.u64(table.address.wrapping_add(64 + 8 * chunk)).unwrap_or(0);
        if chunk == 0 { 0 } else { memory.u64(chunk.wrapping_add(8 * place)).unwrap_or(0) }
    }

    /// What a call of a method jumps to.
    pub(super) fn entry(&self, method: &Method) -> u64 {
        match self.method_table(method.table) {
            Ok(table) if method.slot < table.virtuals => self.vtable_entry(&table, method.slot),
            _ => self.own_entry(method),
        }
    }

    /// The entry of a method that has no place in the table of virtual methods.
    fn own_entry(&self, method: &Method) -> u64 {
        let memory = self.target();
        if method.flags & OWN_SLOT == 0 {
            // What is never made again needs no stub in front of it.
            let direct = method.flags & (STABLE_ENTRY | HAS_PRECODE) == STABLE_ENTRY;
            if direct && method.flags & NATIVE_CODE_SLOT != 0 {
                return self.first_code(method).ok().flatten().unwrap_or(0);
            }
            // Since 9 the entry made first is kept beside the state of its code; before it is in the type's slots.
            let place = match self.layout().method_desc.versions_map {
                None => {
                    let data = memory.u64(method.address.wrapping_add(CODE_DATA)).unwrap_or(0);
                    (data != 0).then(|| data.wrapping_add(8))
                }
                Some(_) => self
                    .method_table(method.table)
                    .ok()
                    .and_then(|table| table.non_virtual_slot(memory, self.layout(), method.slot)),
            };
            return place.and_then(|at| memory.u64(at).ok()).unwrap_or(0);
        }
        let at = method.address.wrapping_add(self.base_size(method.kind));
        memory.u64(at).unwrap_or(0)
    }

    /// The code of a method that the runtime made or found first; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Missing`] for the method's slots.
    pub fn first_code(&self, method: &Method) -> Result<Option<u64>, Error> {
        if method.flags & NATIVE_CODE_SLOT == 0 {
            // What is never made again may be called directly.
            let direct = method.flags & (STABLE_ENTRY | HAS_PRECODE) == STABLE_ENTRY;
            let entry = if direct { self.entry(method) } else { 0 };
            return Ok((entry != 0).then_some(entry));
        }
        let at = method.address.wrapping_add(self.whole_size(method) - 8);
        let code = self.target().u64(at).reading("a method's code")?;
        Ok((code != 0).then_some(code))
    }
}
