//! `g_dacTable`: the addresses of the runtime's globals, by index.
//!
//! Source: `src/coreclr/inc/dacvars.h` (its order, with the platform's `#if`s) and `debug/ee/dactable.cpp`; for 3.1
//! dotnet/coreclr, `src/inc/dacvars.h`. Since 8 the table is an exported array of absolute addresses; in 3.1 it is an
//! array of 32-bit offsets from the image's base that no symbol names. Servicing inserts entries, so the number of entries is
//! part of the key.

/// How the entries of a table are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableEntry {
    /// 64-bit addresses.
    Absolute,
    /// 32-bit offsets from the base of the runtime's image.
    Relative,
}

/// A known table: which runtime it belongs to and where the globals stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableShape {
    /// Number of entries, functions and vtables included.
    pub entries: u64,
    /// Major version of the runtime.
    pub major: u8,
    /// How entries are stored.
    pub entry: TableEntry,
    /// Index of each global.
    pub globals: Globals<u64>,
}

/// The globals that are used, as indices into the table or as addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Globals<T> {
    /// Range sections: `ExecutionManager::g_codeRangeMap`; 3.1: `m_CodeRangeList`.
    pub code_ranges: T,
    /// `ExecutionManager::m_pEEJitManager`.
    pub jit_manager: T,
    /// `ExecutionManager::m_pReadyToRunJitManager`.
    pub r2r_manager: T,
    /// `ThreadStore::s_pThreadStore`.
    pub thread_store: T,
    /// `g_pFinalizerThread`.
    pub finalizer_thread: T,
    /// `g_pSuspensionThread`: the thread that suspends all others, for a GC.
    pub suspension_thread: T,
    /// `g_heap_type`: 1 workstation, 2 server.
    pub heap_type: T,
    /// `g_gcDacGlobals`.
    pub gc_dac_globals: T,
    /// `AppDomain::m_pTheAppDomain`.
    pub app_domain: T,
    /// `SystemDomain::m_pSystemDomain`.
    pub system_domain: T,
    /// `g_CoreLib`.
    pub core_lib: T,
    /// `g_global_alloc_context`; 3.1 has none (the index is not used).
    pub global_alloc: Option<T>,
    /// `g_pObjectClass`.
    pub object_class: T,
    /// `g_pStringClass`.
    pub string_class: T,
    /// `g_pExceptionClass`.
    pub exception_class: T,
    /// `g_pFreeObjectMethodTable`.
    pub free_object: T,
    /// `g_pSyncTable`.
    pub sync_table: T,
    /// `SyncBlockCache::s_pSyncBlockCache`.
    pub sync_block_cache: T,
}

impl<T> Globals<T> {
    /// The same globals, each turned into something else.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<U, E>(self, mut f: impl FnMut(T) -> Result<U, E>) -> Result<Globals<U>, E> {
        Ok(Globals {
            code_ranges: f(self.code_ranges)?,
            jit_manager: f(self.jit_manager)?,
            r2r_manager: f(self.r2r_manager)?,
            thread_store: f(self.thread_store)?,
            finalizer_thread: f(self.finalizer_thread)?,
            suspension_thread: f(self.suspension_thread)?,
            heap_type: f(self.heap_type)?,
            gc_dac_globals: f(self.gc_dac_globals)?,
            app_domain: f(self.app_domain)?,
            system_domain: f(self.system_domain)?,
            core_lib: f(self.core_lib)?,
            global_alloc: self.global_alloc.map(&mut f).transpose()?,
            object_class: f(self.object_class)?,
            string_class: f(self.string_class)?,
            exception_class: f(self.exception_class)?,
            free_object: f(self.free_object)?,
            sync_table: f(self.sync_table)?,
            sync_block_cache: f(self.sync_block_cache)?,
        })
    }
}

impl<T: Copy> Globals<T> {
    /// All of them in the order of their declaration; `None` for one that the runtime doesn't have.
    pub(super) fn list(&self) -> [Option<T>; 18] {
        [
            Some(self.code_ranges),
            Some(self.jit_manager),
            Some(self.r2r_manager),
            Some(self.thread_store),
            Some(self.finalizer_thread),
            Some(self.suspension_thread),
            Some(self.heap_type),
            Some(self.gc_dac_globals),
            Some(self.app_domain),
            Some(self.system_domain),
            Some(self.core_lib),
            self.global_alloc,
            Some(self.object_class),
            Some(self.string_class),
            Some(self.exception_class),
            Some(self.free_object),
            Some(self.sync_table),
            Some(self.sync_block_cache),
        ]
    }
}

const V3_1: Globals<u64> = Globals {
    code_ranges: 0,
    jit_manager: 4,
    r2r_manager: 5,
    thread_store: 16,
    finalizer_thread: 31,
    suspension_thread: 32,
    heap_type: 33,
    gc_dac_globals: 34,
    app_domain: 35,
    system_domain: 36,
    core_lib: 45,
    global_alloc: None,
    object_class: 53,
    string_class: 56,
    exception_class: 61,
    free_object: 68,
    sync_table: 94,
    sync_block_cache: 95,
};

/// `src/coreclr/src/inc/dacvars.h` of 5.0.3.
const V5: Globals<u64> = Globals {
    code_ranges: 0,
    jit_manager: 4,
    r2r_manager: 5,
    thread_store: 17,
    finalizer_thread: 32,
    suspension_thread: 33,
    heap_type: 34,
    gc_dac_globals: 35,
    app_domain: 36,
    system_domain: 37,
    core_lib: 46,
    global_alloc: None,
    object_class: 54,
    string_class: 57,
    exception_class: 63,
    free_object: 70,
    sync_table: 94,
    sync_block_cache: 95,
};

/// `src/coreclr/inc/dacvars.h` of June 2021.
const V6: Globals<u64> =
    Globals { exception_class: 62, free_object: 69, sync_table: 93, sync_block_cache: 94, ..V5 };

const V8: Globals<u64> = Globals {
    code_ranges: 0,
    jit_manager: 4,
    r2r_manager: 5,
    thread_store: 16,
    finalizer_thread: 17,
    suspension_thread: 18,
    heap_type: 19,
    gc_dac_globals: 20,
    app_domain: 21,
    system_domain: 22,
    core_lib: 31,
    global_alloc: Some(36),
    object_class: 40,
    string_class: 43,
    exception_class: 47,
    free_object: 54,
    sync_table: 80,
    sync_block_cache: 81,
};

const V9: Globals<u64> = Globals {
    code_ranges: 0,
    jit_manager: 4,
    r2r_manager: 5,
    thread_store: 16,
    finalizer_thread: 17,
    suspension_thread: 18,
    heap_type: 19,
    gc_dac_globals: 20,
    app_domain: 21,
    system_domain: 22,
    core_lib: 35,
    global_alloc: Some(40),
    object_class: 43,
    string_class: 46,
    exception_class: 50,
    free_object: 57,
    sync_table: 82,
    sync_block_cache: 83,
};

const V10: Globals<u64> = Globals {
    code_ranges: 0,
    jit_manager: 4,
    r2r_manager: 5,
    thread_store: 15,
    finalizer_thread: 16,
    suspension_thread: 17,
    heap_type: 18,
    gc_dac_globals: 19,
    app_domain: 20,
    system_domain: 21,
    core_lib: 34,
    global_alloc: Some(39),
    object_class: 42,
    string_class: 45,
    exception_class: 49,
    free_object: 56,
    sync_table: 78,
    sync_block_cache: 79,
};

/// `globals` with everything behind `index` moved by one: an entry that a servicing release inserted.
const fn before_insertion(globals: Globals<u64>) -> Globals<u64> {
    // Only the sync block globals lie behind an entry ever inserted (in 8.0 after 8.0.4, in 10.0 after 10.0.5).
    Globals { sync_table: globals.sync_table - 1, sync_block_cache: globals.sync_block_cache - 1, ..globals }
}

/// The shapes that a table of `bytes` bytes of 5.0 or 6.0 may have, the likeliest first. Both are offsets as in 3.1, and
/// exported. 5.0.3 has 104 variables, 5 functions and 63 classes. The source of June 2021 has 104, 7 (with
/// `FEATURE_COMWRAPPERS`) and 64, one less than 6.0.36: where that one is, the content must tell.
pub(super) fn source_shapes(bytes: u64) -> Vec<TableShape> {
    let shape = |entries, major, globals| TableShape { entries, major, entry: TableEntry::Relative, globals };
    match bytes {
        688 => vec![shape(172, 5, V5)],
        704 => {
            let from = |first: u64| {
                let moved = |index: u64| Ok::<u64, ()>(if index >= first { index + 1 } else { index });
                V6.try_map(moved).unwrap_or(V6)
            };
            let mut firsts: Vec<u64> = V6.list().into_iter().flatten().filter(|&index| index > 5).collect();
            firsts.reverse();
            let unmoved = [shape(176, 6, V6)];
            unmoved.into_iter().chain(firsts.into_iter().map(|first| shape(176, 6, from(first)))).collect()
        }
        _ => Vec::new(),
    }
}

/// The table of .NET Core 3.1, which is found by its structure.
pub(crate) const TABLE_3_1: TableShape =
    TableShape { entries: 177, major: 3, entry: TableEntry::Relative, globals: V3_1 };

const EXPORTED: [TableShape; 6] = [
    // 8.0.0
    TableShape { entries: 155, major: 8, entry: TableEntry::Absolute, globals: before_insertion(V8) },
    // 8.0.4 to 8.0.25
    TableShape { entries: 156, major: 8, entry: TableEntry::Absolute, globals: before_insertion(V8) },
    // 8.0.29 to 8.0.33
    TableShape { entries: 157, major: 8, entry: TableEntry::Absolute, globals: V8 },
    // 9.0.1 to 9.0.22
    TableShape { entries: 158, major: 9, entry: TableEntry::Absolute, globals: V9 },
    // 10.0.5
    TableShape { entries: 128, major: 10, entry: TableEntry::Absolute, globals: before_insertion(V10) },
    // 10.0.9 to 10.0.14
    TableShape { entries: 129, major: 10, entry: TableEntry::Absolute, globals: V10 },
];

/// The shape of an exported table of `bytes` bytes, if it is a known one.
#[must_use]
pub fn shape_of(bytes: u64) -> Option<TableShape> {
    EXPORTED.into_iter().find(|shape| shape.entries * 8 == bytes)
}

/// The newest known shape of a major version; of a newer major version the newest of all.
#[must_use]
pub(crate) fn nearest(major: u8) -> Option<TableShape> {
    let newest = EXPORTED.last().copied()?;
    let same = EXPORTED.into_iter().rev().find(|shape| shape.major == major);
    same.or((major > newest.major).then_some(newest))
}
