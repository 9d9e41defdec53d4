//! Where the values of static fields are.
//!
//! Source: `vm/methodtable.h` (`DynamicStaticsInfo`, `ThreadStaticsInfo`, 9 and later; `GenericsStaticsInfo`, before),
//! `vm/threadstatics.h`, `vm/appdomain.hpp` (`DomainLocalModule`, before 9), `vm/class.h` (`EEClassOptionalFields`).

use dnd_memory::{Memory, Missing};

use crate::error::{Error, Reading};
use crate::fields::{ElementType, Field};
use crate::modules;
use crate::runtime::Runtime;
use crate::threads::Thread;
use crate::types::{MethodTable, StaticsIn};

/// Bytes of an array in front of its elements.
const ARRAY_DATA: u64 = 16;
/// `ClassInitFlags::COLLECTIBLE_FLAG` of an entry of a table of dynamic classes.
const COLLECTIBLE: u32 = 8;
/// More modules than a process has.
const MAX_MODULES: u64 = 1 << 16;

impl Field {
    /// Whether its value stands among the references: a struct does, in a box.
    fn is_among_references(&self) -> bool {
        self.element.is_reference() || self.element == ElementType::VALUE_TYPE
    }
}

impl Runtime<'_> {
    /// The value's place of a static field, `None` when the type's statics do not exist (yet). For a thread static, the
    /// place of `thread`'s own value.
    ///
    /// # Errors
    /// [`Error::Missing`] when a structure on the way is not in the dump.
    pub fn static_address(
        &self,
        table: &MethodTable,
        field: &Field,
        thread: Option<&Thread>,
    ) -> Result<Option<u64>, Error> {
        let gc = field.is_among_references();
        let what = "a type's statics";
        if field.has_rva {
            return Ok(None);
        }
        let base = match (self.layout().module.domain_local_module, field.is_thread_static) {
            (None, false) => self.static_base(table, gc),
            (None, true) => thread.map_or(Ok(None), |thread| self.thread_static_base(table, gc, thread)),
            (Some(at), false) => self.module_static_base(table, gc, at),
            (Some(at), true) => {
                thread.map_or(Ok(None), |thread| self.module_thread_static_base(table, gc, at, thread))
            }
        };
        Ok(base.reading(what)?.filter(|&base| base != 0).map(|base| base.wrapping_add(field.offset.into())))
    }

    /// Where the references of a type's own static fields begin, or those of `thread`'s own; `None` when there are none
    /// (yet).
    #[must_use]
    pub fn statics_start(&self, table: &MethodTable, thread: Option<&Thread>) -> Option<u64> {
        let first = Field {
            address: 0,
            name: String::new(),
            row: 0,
            type_name: String::new(),
            declared_by: table.address,
            element: ElementType::CLASS,
            offset: 0,
            is_static: true,
            is_thread_static: thread.is_some(),
            has_rva: false,
        };
        self.static_address(table, &first, thread).ok().flatten()
    }

    /// 9 and later: `DynamicStaticsInfo` ends at the auxiliary data: references, then plain values.
    fn static_base(&self, table: &MethodTable, gc: bool) -> Result<Option<u64>, Missing> {
        if table.auxiliary == 0 {
            return Ok(None);
        }
        Ok(Some(self.target().u64(table.auxiliary.wrapping_sub(if gc { 24 } else { 16 }))? & !1))
    }

    /// 9 and later: `ThreadStaticsInfo` ends at the auxiliary data: index of the plain values, then of the references.
    fn thread_static_base(
        &self,
        table: &MethodTable,
        gc: bool,
        thread: &Thread,
    ) -> Result<Option<u64>, Missing> {
        if thread.thread_local_data == 0 || table.auxiliary == 0 {
            return Ok(None);
        }
        let memory = self.target();
        let index = memory.u32(table.auxiliary.wrapping_sub(if gc { 36 } else { 40 }))?;
        Ok(base_of_index(memory, thread, index))
    }

    /// Before 9: in the `DomainLocalModule`, which a module has at `at`.
    fn module_static_base(&self, table: &MethodTable, gc: bool, at: u64) -> Result<Option<u64>, Missing> {
        let memory = self.target();
        let Some((module, statics)) = self.static_place(table)? else { return Ok(None) };
        let local = memory.u64(module.wrapping_add(at))?;
        if local == 0 {
            return Ok(None);
        }
        match statics {
            StaticsIn::Module if gc => memory.u64(local.wrapping_add(32)).map(Some),
            StaticsIn::Module => Ok(Some(local)),
            // Table of dynamic classes, number of entries.
            StaticsIn::Entry(number) => {
                let (entries, count) =
                    (memory.u64(local.wrapping_add(8))?, memory.u64(local.wrapping_add(16))?);
                let Some((entry, collectible)) = self.dynamic_entry(entries, count, number)? else {
                    return Ok(None);
                };
                match (collectible, gc) {
                    (true, _) => self.collectible_base(module, entry, gc),
                    (false, true) => memory.u64(entry).map(Some),
                    (false, false) => Ok(Some(entry)),
                }
            }
        }
    }

    /// Before 9: in the `ThreadLocalModule`, which the thread has for the module of the index that stands behind its
    /// `DomainLocalModule`.
    fn module_thread_static_base(
        &self,
        table: &MethodTable,
        gc: bool,
        at: u64,
        thread: &Thread,
    ) -> Result<Option<u64>, Missing> {
        let memory = self.target();
        let Some((module, statics)) = self.static_place(table)? else { return Ok(None) };
        let index = memory.u64(module.wrapping_add(at + 8))?;
        let Some((modules, count)) = self.local_modules(thread) else { return Ok(None) };
        if index >= count {
            return Ok(None);
        }
        let local = memory.u64(modules.wrapping_add(8 * index))?;
        if local == 0 {
            return Ok(None);
        }
        // A handle of an array.
        let array = |at: u64| -> Result<Option<u64>, Missing> {
            let handle = memory.u64(at)?;
            let array = if handle == 0 { 0 } else { memory.u64(handle)? };
            Ok((array != 0).then(|| array.wrapping_add(ARRAY_DATA)))
        };
        match statics {
            StaticsIn::Module if gc => array(local.wrapping_add(16)),
            StaticsIn::Module => Ok(Some(local)),
            StaticsIn::Entry(number) => {
                let (entries, count) = (memory.u64(local)?, memory.u64(local.wrapping_add(8))?);
                let Some((entry, collectible)) = self.dynamic_entry(entries, count, number)? else {
                    return Ok(None);
                };
                match (collectible, gc) {
                    (true, _) => self.collectible_base(module, entry, gc),
                    (false, true) => array(entry),
                    (false, false) => Ok(Some(entry)),
                }
            }
        }
    }

    /// A thread's table of `ThreadLocalModule`s (`ThreadLocalBlock`), and its length.
    fn local_modules(&self, thread: &Thread) -> Option<(u64, u64)> {
        let memory = self.target();
        self.layout().thread.local_modules.iter().find_map(|&offset| {
            let at = thread.address.wrapping_add(offset);
            let (modules, count) = (memory.u64(at).ok()?, memory.u64(at.wrapping_add(8)).ok()?);
            // Of another build the words here are others: no pointer, or no length.
            let plausible = modules.is_multiple_of(8) && (1..=MAX_MODULES).contains(&count);
            (plausible && memory.u64(modules).is_ok()).then_some((modules, count))
        })
    }

    /// Before 9: the module whose statics hold a type's, and where in them.
    fn static_place(&self, table: &MethodTable) -> Result<Option<(u64, StaticsIn)>, Missing> {
        let memory = self.target();
        let Some(statics) = table.statics_in(memory)? else { return Ok(None) };
        let module = if table.is_generic() {
            table.module_word
        } else {
            match table.module(memory, self.layout()) {
                Ok(module) => module,
                Err(_) => return Ok(None),
            }
        };
        Ok(Some((module, statics)))
    }

    /// An entry of a table of dynamic classes, and whether it is of a collectible type.
    fn dynamic_entry(&self, entries: u64, count: u64, number: u64) -> Result<Option<(u64, bool)>, Missing> {
        if entries == 0 || number >= count {
            return Ok(None);
        }
        let at = entries.wrapping_add(number.wrapping_mul(16));
        let entry = self.target().u64(at)?;
        let flags = self.target().u32(at.wrapping_add(8))?;
        Ok((entry != 0).then_some((entry, flags & COLLECTIBLE != 0)))
    }

    /// `CollectibleDynamicEntry`: slots of arrays that the managed `LoaderAllocator` keeps: references, then plain values.
    fn collectible_base(&self, module: u64, entry: u64, gc: bool) -> Result<Option<u64>, Missing> {
        let memory = self.target();
        let slot = memory.u64(entry.wrapping_add(if gc { 0 } else { 8 }))?;
        let allocator = modules::loader_allocator_object(memory, self.layout(), module).unwrap_or(0);
        let Some(index) = (slot >> 1).checked_sub(1).filter(|_| allocator != 0) else { return Ok(None) };
        // `m_slots`: behind the scout.
        let slots = memory.u64(allocator.wrapping_add(16))?;
        if index >= u64::from(memory.u32(slots.wrapping_add(8))?) {
            return Ok(None);
        }
        let array = memory.u64(slots.wrapping_add(ARRAY_DATA + 8 * index))?;
        // Offsets of plain values count the word in front of them, which here is the array's length.
        let data = if gc { ARRAY_DATA } else { ARRAY_DATA - 8 };
        Ok((array != 0).then(|| array.wrapping_add(data)))
    }
}

/// Start of a thread's statics for a type, from a TLS index (`TLSIndex` in threadstatics.h): kind in the top byte.
fn base_of_index(memory: &dyn Memory, thread: &Thread, index: u32) -> Option<u64> {
    // Entries of the array that belong to the runtime itself and are not stored.
    const NOT_STORED: u64 = 2;
    let data = thread.thread_local_data;
    let number = u64::from(index & 0x00ff_ffff);
    let object = match index >> 24 {
        0 => {
            let array = memory.u64(data.wrapping_add(8)).ok().filter(|&a| a != 0)?;
            let count = u64::from(memory.u32(data).ok()?);
            if number < NOT_STORED || number >= count.max(NOT_STORED) {
                return None;
            }
            memory.u64(array.wrapping_add(16 + 8 * (number - NOT_STORED))).ok()?
        }
        1 => {
            let count = u64::from(memory.u32(data.wrapping_add(4)).ok()?);
            if number >= count {
                return None;
            }
            let handles = memory.u64(data.wrapping_add(16)).ok().filter(|&h| h != 0)?;
            let handle = memory.u64(handles.wrapping_add(8 * number)).ok().filter(|&h| h != 0)?;
            memory.u64(handle).ok()?
        }
        2 => return Some(data.wrapping_add(number)),
        _ => return None,
    };
    (object != 0).then_some(object)
}
