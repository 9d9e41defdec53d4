//! What a runtime's own descriptor says of the places that the tables here are for.

use serde::Serialize;

use super::{AllocAt, EeClassLayout, FrameKinds, Globals, Layout, LoaderAllocatorAt};
use crate::descriptor::{Descriptor, DescriptorSource};

/// Where the layout of a runtime is from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayoutFacts {
    /// The runtime's descriptor took part; where it was read.
    pub descriptor: Option<DescriptorSource>,
    /// How many places the descriptor names that are used.
    pub described: usize,
    /// Where it differs from the table; the descriptor's values are used.
    pub differences: Vec<Difference>,
    /// Why a descriptor that was found was not used.
    pub refused: Option<String>,
    /// Why this layout is not one that was checked on real cores of this runtime.
    pub unverified: Option<String>,
}

/// A place where a descriptor differs from the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The field, for example `Thread.OSId`.
    pub place: String,
    /// Offset (or value) in the table.
    pub embedded: u64,
    /// The same in the descriptor.
    pub described: u64,
}

/// Places that the code relies on and no table holds: every runtime that can be read has them here.
const FIXED: &[(&str, &str, u64)] = &[
    ("Object", "m_pMethTab", 0),
    ("String", "m_StringLength", 8),
    ("String", "m_FirstChar", 12),
    ("Array", "m_NumComponents", 8),
    ("GCHandle", "!", 8),
    ("MethodTable", "MTFlags", 0),
    ("MethodTable", "BaseSize", 4),
    ("MethodTable", "MTFlags2", 8),
    ("MethodTable", "NumVirtuals", 12),
    ("MethodTable", "NumInterfaces", 14),
    ("MethodTable", "ParentMethodTable", 16),
    ("MethodTable", "Module", 24),
    ("MethodTable", "AuxiliaryData", 32),
    ("MethodTable", "EEClassOrCanonMT", 40),
    ("MethodTable", "PerInstInfo", 48),
    ("MethodTableAuxiliaryData", "LoaderModule", 8),
    ("ModuleLookupMap", "Next", 0),
    ("ModuleLookupMap", "TableData", 8),
    ("ModuleLookupMap", "Count", 16),
    ("ModuleLookupMap", "SupportedFlagsMask", 24),
    ("ArrayListBase", "Count", 0),
    ("ArrayListBase", "FirstBlock", 8),
    ("ArrayListBlock", "Next", 0),
    ("ArrayListBlock", "Size", 8),
    ("ArrayListBlock", "ArrayStart", 16),
    ("PEAssembly", "PEImage", 8),
    ("PEImageLayout", "Base", 8),
    ("PEImageLayout", "Size", 16),
    ("PEImageLayout", "Flags", 20),
    ("DynamicMetadata", "Size", 0),
    ("DynamicMetadata", "Data", 4),
    ("ThreadLocalData", "CollectibleTlsDataCount", 4),
    ("ThreadLocalData", "NonCollectibleTlsArrayData", 8),
    ("ThreadLocalData", "CollectibleTlsArrayData", 16),
    ("ThreadLocalData", "InFlightData", 32),
    ("InFlightTLSData", "Next", 0),
    ("InFlightTLSData", "TLSData", 16),
    ("EEClass", "MethodTable", 16),
    ("EEClass", "FieldDescList", 24),
    ("MethodDesc", "Flags3AndTokenRemainder", 0),
    ("MethodDesc", "ChunkIndex", 2),
    ("MethodDesc", "Slot", 4),
    ("MethodDesc", "Flags", 6),
    ("MethodDescChunk", "!", 24),
    ("MethodDescChunk", "MethodTable", 0),
    ("MethodDescChunk", "Next", 8),
    ("MethodDescChunk", "Size", 16),
    ("MethodDescChunk", "Count", 17),
    ("MethodDescChunk", "FlagsAndTokenRange", 18),
    ("SyncTableEntry", "!", 16),
    ("SyncTableEntry", "SyncBlock", 0),
    ("RangeSection", "RangeBegin", 0),
    ("RangeSection", "RangeEndOpen", 8),
    ("RangeSection", "Flags", 16),
    ("RangeSection", "JitManager", 24),
    ("RangeSection", "R2RModule", 32),
    ("RangeSection", "HeapList", 40),
    ("Frame", "Next", 8),
];

/// Values that the code relies on.
const FIXED_VALUES: &[(&str, u64)] =
    &[("ObjectToMethodTableUnmask", 7), ("ObjectHeaderSize", 8), ("MethodDescAlignment", 8)];

/// Puts what `descriptor` says into `layout`, and returns how many places it names and which of them differ.
///
/// # Errors
/// What it says that this program can't follow; `layout` is then of no use.
pub(crate) fn apply(
    layout: &mut Layout,
    descriptor: &Descriptor,
) -> Result<(usize, Vec<Difference>), String> {
    let mut apply = Apply { descriptor, named: 0, differences: Vec::new() };
    for &(kind, field, expected) in FIXED {
        apply.expect(&format!("{kind}.{field}"), descriptor.field(kind, field), expected)?;
    }
    for &(name, expected) in FIXED_VALUES {
        apply.expect(name, descriptor.values.get(name).copied(), expected)?;
    }
    let l = &mut layout.thread;
    apply.field("Thread", "Id", &mut l.id);
    apply.field("Thread", "OSId", &mut l.os_id);
    apply.field("Thread", "State", &mut l.state);
    apply.field("Thread", "PreemptiveGCDisabled", &mut l.preemptive_disabled);
    apply.field("Thread", "Frame", &mut l.frame);
    apply.field("Thread", "LinkNext", &mut l.link);
    apply.field("Thread", "GCHandle", &mut l.exposed_object);
    apply.field("Thread", "LastThrownObject", &mut l.last_thrown);
    apply.field("Thread", "ExceptionTracker", &mut l.exception_tracker);
    apply.optional("Thread", "ThreadLocalDataPtr", &mut l.thread_local_data);
    apply.field("ExceptionInfo", "ThrownObject", &mut l.tracker_thrown);
    apply.field("ExceptionInfo", "PreviousNestedInfo", &mut l.tracker_previous);
    apply.field("ThreadStore", "FirstThreadLink", &mut l.first_link);
    apply.field("ThreadStore", "ThreadCount", &mut l.total);
    apply.field("ThreadStore", "UnstartedCount", &mut l.counts);
    for (i, field) in (1..).zip(["BackgroundCount", "PendingCount", "DeadCount"]) {
        let expected = l.counts.wrapping_add(4 * i);
        apply.expect(&format!("ThreadStore.{field}"), descriptor.field("ThreadStore", field), expected)?;
    }
    allocation(&mut apply, &mut l.alloc);

    let l = &mut layout.module;
    apply.field("Module", "PEAssembly", &mut l.pe_assembly);
    apply.field("Module", "Assembly", &mut l.assembly);
    if let LoaderAllocatorAt::Module(at) = &mut l.loader_allocator {
        apply.field("Module", "LoaderAllocator", at);
    }
    apply.optional("Module", "DynamicMetadata", &mut l.dynamic_metadata);
    apply.field("Module", "TypeDefToMethodTableMap", &mut l.type_def_map);
    apply.field("Module", "TypeRefToMethodTableMap", &mut l.type_ref_map);
    apply.field("Module", "MethodDefToDescMap", &mut l.method_def_map);
    apply.field("Module", "ReadyToRunInfo", &mut l.ready_to_run);
    if let Some(types) = &mut l.constructed_types {
        apply.field("Module", "AvailableTypeParams", &mut types.table);
        apply.field("EETypeHashTable", "Count", &mut types.count);
        apply.expect("EETypeHashTable.Buckets", descriptor.field("EETypeHashTable", "Buckets"), 16)?;
    }
    if let Some(&loaded) = l.image_layouts.first() {
        apply.expect(
            "PEImage.LoadedImageLayout",
            descriptor.field("PEImage", "LoadedImageLayout"),
            loaded,
        )?;
    }
    // Heaps elsewhere are not looked for.
    layout.loader = layout.loader.filter(|loader| loader.agrees(descriptor));
    apply.field("AppDomain", "DomainAssemblyList", &mut layout.app_domain.assemblies);
    apply.field("Assembly", "Module", &mut layout.app_domain.assembly_module);

    if let EeClassLayout::Plain { instance_fields, methods, static_fields, thread_static_fields, norm_type } =
        &mut layout.ee_class
    {
        apply.field("EEClass", "NumInstanceFields", instance_fields);
        apply.field("EEClass", "NumMethods", methods);
        apply.field("EEClass", "NumStaticFields", static_fields);
        apply.field("EEClass", "NumThreadStaticFields", thread_static_fields);
        apply.field("EEClass", "InternalCorElementType", norm_type);
    }
    apply.field("InstantiatedMethodDesc", "PerInstInfo", &mut layout.method_desc.generic_args);
    apply.field("DynamicMethodDesc", "MethodName", &mut layout.method_desc.dynamic_name);
    apply.value("MethodDescTokenRemainderBitCount", &mut layout.method_desc.token_bits);

    let l = &mut layout.code;
    apply.field("RuntimeFunction", "!", &mut l.runtime_function);
    apply.field("ReadyToRunInfo", "RuntimeFunctions", &mut l.r2r_functions);
    let number = l.r2r_functions.wrapping_add(8);
    let place = "ReadyToRunInfo.NumRuntimeFunctions";
    apply.expect(place, descriptor.field("ReadyToRunInfo", "NumRuntimeFunctions"), number)?;
    let map = descriptor.field("ReadyToRunInfo", "EntryPointToMethodDescMap");
    let buckets =
        map.zip(descriptor.field("HashMap", "Buckets")).map(|(map, buckets)| map.wrapping_add(buckets));
    apply.set("ReadyToRunInfo.EntryPointToMethodDescMap", buckets, &mut l.r2r_entry_points);
    apply.value("GCInfoVersion", &mut l.gc_info);
    let l = &mut layout.frames;
    apply.field("InlinedCallFrame", "CallSiteSP", &mut l.call_site);
    let after = l.call_site.wrapping_add(8);
    let said = descriptor.field("InlinedCallFrame", "CallerReturnAddress");
    apply.expect("InlinedCallFrame.CallerReturnAddress", said, after)?;
    apply.field("TransitionBlock", "!", &mut l.block_size);
    apply.field("TransitionBlock", "ReturnAddress", &mut l.block_return);
    apply.field("TransitionBlock", "CalleeSavedRegisters", &mut l.block_saved);
    apply.field("HijackArgs", "!", &mut l.hijack_size);
    // On arm64 the registers are named one by one, the frame pointer first.
    apply.field("HijackArgs", "CalleeSavedRegisters", &mut l.hijack_saved);
    apply.field("HijackArgs", "Fp", &mut l.hijack_saved);
    apply.field("FaultingExceptionFrame", "TargetContext", &mut l.faulting_context);
    apply.optional("SoftwareExceptionFrame", "TargetContext", &mut l.software_context);
    if let FrameKinds::Identifiers(kinds) = l.kinds {
        for (number, kind) in (1..).zip(kinds) {
            let name = format!("{}Identifier", kind.name());
            apply.expect(&name, descriptor.values.get(&name).copied(), number)?;
        }
    }
    Ok((apply.named, apply.differences))
}

struct Apply<'d> {
    descriptor: &'d Descriptor,
    named: usize,
    differences: Vec<Difference>,
}

impl Apply<'_> {
    fn field(&mut self, kind: &str, field: &str, place: &mut u64) {
        self.set(&format!("{kind}.{field}"), self.descriptor.field(kind, field), place);
    }

    fn optional(&mut self, kind: &str, field: &str, place: &mut Option<u64>) {
        if let Some(place) = place {
            self.field(kind, field, place);
        }
    }

    fn value(&mut self, name: &str, place: &mut u32) {
        let mut wide = u64::from(*place);
        self.set(name, self.descriptor.values.get(name).copied(), &mut wide);
        *place = u32::try_from(wide).unwrap_or(*place);
    }

    fn set(&mut self, name: &str, described: Option<u64>, place: &mut u64) {
        let Some(described) = described else { return };
        self.named += 1;
        if described != *place {
            self.differences.push(Difference { place: name.to_owned(), embedded: *place, described });
            *place = described;
        }
    }

    /// A place that can't be anywhere else.
    fn expect(&mut self, name: &str, described: Option<u64>, expected: u64) -> Result<(), String> {
        let Some(described) = described else { return Ok(()) };
        self.named += 1;
        if described == expected {
            return Ok(());
        }
        Err(format!("it says {described} for {name}, where this program can read only {expected}"))
    }
}

/// The allocation context: behind a pointer in the thread, perhaps inside another structure.
fn allocation(apply: &mut Apply<'_>, place: &mut AllocAt) {
    let AllocAt::Behind(pointer, offset) = place else { return };
    apply.field("Thread", "RuntimeThreadLocals", pointer);
    let field = |kind, field| apply.descriptor.field(kind, field);
    let inner = field("RuntimeThreadLocals", "AllocContext").zip(field("GCAllocContext", "Pointer"));
    let inner = inner.map(|(context, pointer)| {
        let wrapper = field("EEAllocContext", "GCAllocationContext").unwrap_or(0);
        context.wrapping_add(wrapper).wrapping_add(pointer)
    });
    apply.set("RuntimeThreadLocals.AllocContext", inner, offset);
}

/// The globals by the names that descriptors give them; `None` for those that they don't name.
const NAMES: Globals<Option<&str>> = Globals {
    code_ranges: Some("ExecutionManagerCodeRangeMapAddress"),
    jit_manager: None,
    r2r_manager: None,
    thread_store: Some("ThreadStore"),
    finalizer_thread: Some("FinalizerThread"),
    suspension_thread: Some("GCThread"),
    heap_type: None,
    gc_dac_globals: None,
    app_domain: Some("AppDomain"),
    system_domain: Some("SystemDomain"),
    core_lib: None,
    global_alloc: None,
    object_class: Some("ObjectMethodTable"),
    string_class: Some("StringMethodTable"),
    exception_class: Some("ExceptionMethodTable"),
    free_object: Some("FreeObjectMethodTable"),
    sync_table: Some("SyncTableEntries"),
    sync_block_cache: None,
};

/// How far behind the sync block cache `g_MiniMetaDataBuffMaxSize` stands in every table known.
const MINI_METADATA: u64 = 6;

/// Whether all globals that the descriptor names stand at the places given.
pub(crate) fn agrees(table: &[u64], places: &Globals<u64>, descriptor: &Descriptor) -> bool {
    places.list().into_iter().zip(NAMES.list()).all(|(place, name)| {
        let said = name.flatten().and_then(|name| descriptor.addresses.get(name));
        let is = place.and_then(|place| table.get(usize::try_from(place).ok()?));
        said.is_none() || said == is
    })
}

/// Finds the globals in a table of another length than the known one: `table` are its entries, `known` the places in
/// the table of the nearest version. What the descriptor names is found by its address; entries between two of these
/// that have moved by the same number have moved by it, too.
///
/// # Errors
/// Which global can't be found for sure.
pub(crate) fn align(
    table: &[u64],
    known: &Globals<u64>,
    descriptor: &Descriptor,
) -> Result<Globals<u64>, String> {
    let index = |address: u64| table.iter().position(|&entry| entry == address).map(|index| index as u64);
    // (place in the known table, place in this one)
    let mut anchors: Vec<(u64, u64)> = Vec::new();
    let mut anchor = |place: u64, name: &str| {
        let found = descriptor.addresses.get(name).and_then(|&address| index(address));
        anchors.extend(found.map(|found| (place, found)));
    };
    for (place, name) in known.list().into_iter().zip(NAMES.list()) {
        if let (Some(place), Some(Some(name))) = (place, name) {
            anchor(place, name);
        }
    }
    anchor(known.sync_block_cache + MINI_METADATA, "MiniMetaDataBuffMaxSize");
    anchors.sort_unstable();
    known.try_map(|place| {
        let after = anchors.partition_point(|&(at, _)| at < place);
        // The table's start is where it always was.
        let before = after.checked_sub(1).and_then(|before| anchors.get(before)).copied();
        let (below, found_below) = before.unwrap_or_default();
        match anchors.get(after) {
            Some(&(at, found)) if at == place => Ok(found),
            Some(&(above, found_above))
                if found_above.wrapping_sub(above) == found_below.wrapping_sub(below) =>
            {
                Ok(found_below + (place - below))
            }
            _ => Err(format!("the entry that was {place} in the table of globals can't be found for sure")),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::layout::{layout, nearest};
    use dnd_memory::Arch;

    fn descriptor(types: &[(&str, &str, u64)], addresses: &[(&str, u64)]) -> Descriptor {
        let mut out = Descriptor {
            source: DescriptorSource::Memory,
            types: BTreeMap::new(),
            values: BTreeMap::new(),
            addresses: addresses.iter().map(|&(name, at)| (name.to_owned(), at)).collect(),
            contracts: BTreeMap::new(),
        };
        for &(kind, field, offset) in types {
            out.types.entry(kind.to_owned()).or_default().insert(field.to_owned(), offset);
        }
        out
    }

    #[test]
    fn moved_fields_are_followed_and_told() {
        let table = layout(10, Arch::X64).unwrap();
        let mut moved = table;
        let said = descriptor(
            &[
                ("Thread", "OSId", 304),
                ("Thread", "Id", 16),
                ("RuntimeThreadLocals", "AllocContext", 16),
                ("EEAllocContext", "GCAllocationContext", 8),
                ("GCAllocContext", "Pointer", 0),
                ("NextYears", "Field", 1),
            ],
            &[],
        );
        let (named, differences) = apply(&mut moved, &said).unwrap();
        assert_eq!(named, 3);
        let told: Vec<_> = differences.iter().map(|d| (d.place.as_str(), d.embedded, d.described)).collect();
        assert_eq!(told, [("Thread.OSId", 296, 304), ("RuntimeThreadLocals.AllocContext", 8, 24)]);
        assert_eq!((moved.thread.os_id, moved.thread.alloc), (304, AllocAt::Behind(32, 24)));
        moved.thread = table.thread;
        assert_eq!(moved, table);
    }

    #[test]
    fn what_can_not_be_followed_is_refused() {
        let mut table = layout(10, Arch::X64).unwrap();
        let refused = apply(&mut table, &descriptor(&[("MethodTable", "BaseSize", 12)], &[])).unwrap_err();
        assert!(refused.contains("12 for MethodTable.BaseSize"), "{refused}");
    }

    /// Addresses of the globals in a table, as a descriptor names them.
    fn named(table: &[u64], places: &Globals<u64>) -> Vec<(&'static str, u64)> {
        let named = places.list().into_iter().zip(NAMES.list());
        let mut out: Vec<_> =
            named.filter_map(|(place, name)| Some((name??, table[place? as usize]))).collect();
        out.push(("MiniMetaDataBuffMaxSize", table[(places.sync_block_cache + MINI_METADATA) as usize]));
        out
    }

    #[test]
    fn a_longer_table_is_aligned_by_what_is_named() {
        let known = nearest(10).unwrap();
        let table: Vec<u64> = (0..known.entries).map(|i| 0x7000 + 8 * i).collect();
        let names = named(&table, &known.globals);
        // Nothing moved.
        assert_eq!(align(&table, &known.globals, &descriptor(&[], &names)), Ok(known.globals));
        // An entry more behind all classes, as in 10.0.9.
        let mut longer = table.clone();
        longer.insert(70, 1);
        let moved = align(&longer, &known.globals, &descriptor(&[], &names)).unwrap();
        assert_eq!(moved.sync_block_cache, known.globals.sync_block_cache + 1);
        assert_eq!(moved.gc_dac_globals, known.globals.gc_dac_globals);
        // An entry more between the heap's type and its neighbours that have names: which of them moved?
        let mut unsure = table.clone();
        unsure.insert(known.globals.heap_type as usize, 1);
        let why = align(&unsure, &known.globals, &descriptor(&[], &names)).unwrap_err();
        assert!(why.contains("can't be found for sure"), "{why}");
        assert!(align(&[], &known.globals, &descriptor(&[], &names)).is_err());
    }

    #[test]
    fn newer_majors_start_from_the_newest_table() {
        assert_eq!(nearest(9).map(|s| s.entries), Some(158));
        assert_eq!((nearest(11).map(|s| (s.major, s.entries)), nearest(7)), (Some((10, 129)), None));
    }
}
