//! Where things are in each runtime: data, one table per major version.
//!
//! Offsets are bytes from the start of the structure named. They come from the sources of dotnet/runtime (files named
//! at each table) and, for 9 and 10, from the runtime's own data contract descriptor
//! (`docs/design/datacontracts` of dotnet/runtime); every table was checked against real cores.
//! `docs/new-runtime.md` is the list of what to do for a new version.

mod arm64;
mod described;
mod globals;
mod loader;
mod v10;
mod v3_1;
mod v5;
mod v6;
mod v8;
mod v9;

pub use described::{Difference, LayoutFacts};
pub(crate) use described::{agrees, align, apply};
pub use globals::{Globals, TableEntry, TableShape, shape_of};
pub(crate) use globals::{TABLE_3_1, nearest};
pub use loader::LoaderLayout;

use dnd_memory::Arch;

use crate::code::DebugInfoForm;
use crate::stack::ExplicitKind;

/// Layout of one major version on one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Major version: 3 is .NET Core 3.1.
    pub major: u8,
    /// `MethodTable`.
    pub method_table: MethodTableLayout,
    /// `EEClass`.
    pub ee_class: EeClassLayout,
    /// `Module` and what leads from it to metadata.
    pub module: ModuleLayout,
    /// `AppDomain` and its list of assemblies.
    pub app_domain: AppDomainLayout,
    /// `ThreadStore` and `Thread`.
    pub thread: ThreadLayout,
    /// The GC's description of itself.
    pub gc: GcLayout,
    /// Handle tables.
    pub handles: HandleLayout,
    /// Sync blocks.
    pub sync: SyncLayout,
    /// `MethodDesc`.
    pub method_desc: MethodDescLayout,
    /// Managed code: code heaps and ReadyToRun images.
    pub code: CodeLayout,
    /// Explicit frames.
    pub frames: FrameLayout,
    /// The loader's heaps; `None` where they were never checked on a real core.
    pub loader: Option<LoaderLayout>,
}

/// `MethodTable`; source: `src/coreclr/vm/methodtable.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodTableLayout {
    /// 9 and later: the type's row id is `flags2 >> 8`; before: the upper half of the second flags word.
    pub wide_token: bool,
    /// Flag that the type may be unloaded with its load context.
    pub collectible: u32,
    /// Bits of the `EEClass` pointer that mark it as a pointer to the canonical method table instead.
    pub canon_mask: u64,
    /// 9 and later: the module stands at +24. Before, +24 is the *loader* module, and generic types keep their own
    /// module in an optional slot.
    pub direct_module: bool,
    /// What a `ParamTypeDesc` (a pointer or by-reference type, which has no method table) is made of; source:
    /// `src/coreclr/vm/typedesc.h`. Behind a template until 5, at once until 8, behind the type's object since.
    pub type_parameter: u64,
}

/// `EEClass`; source: `src/coreclr/vm/class.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EeClassLayout {
    /// Counts are 16-bit fields (9 and later).
    Plain {
        /// `m_NumInstanceFields`, with those of the parents.
        instance_fields: u64,
        /// `m_NumMethods`.
        methods: u64,
        /// `m_NumStaticFields`, with the thread statics.
        static_fields: u64,
        /// `m_NumThreadStaticFields`.
        thread_static_fields: u64,
        /// `m_NormType`, a `CorElementType`.
        norm_type: u64,
    },
    /// Counts are packed behind the class (`PackedDWORDFields`, 3.1 and 8).
    Packed {
        /// Byte that holds where the packed fields begin.
        fixed_size: u64,
        /// Byte that tells whether they are bit-packed.
        packed_flag: u64,
        /// `m_NormType`, a `CorElementType`.
        norm_type: u64,
    },
}

/// `Module`, `PEAssembly`, `PEImage`; sources: `vm/ceeload.h`, `vm/peassembly.h`, `vm/peimage.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleLayout {
    /// `PEAssembly*` (3.1: `PEFile*`).
    pub pe_assembly: u64,
    /// `Assembly*`.
    pub assembly: u64,
    /// `LoaderAllocator*`: in the module, or (3.1) in the assembly.
    pub loader_allocator: LoaderAllocatorAt,
    /// Handle of the managed `LoaderAllocator` object, in the `LoaderAllocator`.
    pub loader_allocator_handle: u64,
    /// Metadata of a module made by Reflection.Emit (9 and later).
    pub dynamic_metadata: Option<u64>,
    /// The same in a `ReflectionModule` of 3.1 and 8: `SBuffer*`.
    pub dynamic_buffer: Option<u64>,
    /// Map from type row to method table.
    pub type_def_map: u64,
    /// Map from row of the types of other modules to method table.
    pub type_ref_map: u64,
    /// Map from method row to method description.
    pub method_def_map: u64,
    /// `ReadyToRunInfo*`.
    pub ready_to_run: u64,
    /// `DomainLocalModule*`, where statics were before 9.
    pub domain_local_module: Option<u64>,
    /// Arrays and instances of generic types; `None` where that was never checked on a real core.
    pub constructed_types: Option<TypeTable>,
    /// Image layouts of a `PEImage`, best first.
    pub image_layouts: &'static [u64],
}

/// A module's hash table of types (`EETypeHashTable`); sources: `vm/typehash.h`, `vm/dacenumerablehash.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeTable {
    /// `m_pAvailableParamTypes`, in the module.
    pub table: u64,
    /// Number of entries, in the table.
    pub count: u64,
    /// The list of buckets begins with its length and two more special ones (8 and later).
    pub special: bool,
}

impl TypeTable {
    /// As since 8.
    const fn at(table: u64) -> Self {
        Self { table, count: 24, special: true }
    }
}

/// Where a module's `LoaderAllocator*` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoaderAllocatorAt {
    /// Offset in the module.
    Module(u64),
    /// Offset in the module's assembly.
    Assembly(u64),
}

/// `AppDomain`; source: `vm/appdomain.hpp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppDomainLayout {
    /// `ArrayList` of `DomainAssembly*`.
    pub assemblies: u64,
    /// `Assembly*` in a `DomainAssembly`.
    pub domain_assembly: u64,
    /// Manifest `Module*` in an `Assembly`.
    pub assembly_module: u64,
}

/// `Thread`; source: `vm/threads.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadLayout {
    /// First link, in the `ThreadStore`.
    pub first_link: u64,
    /// Number of threads, in the `ThreadStore`.
    pub total: u64,
    /// Further numbers, in the `ThreadStore`: unstarted, background, pending, dead follow each other.
    pub counts: u64,
    /// Link to the next thread.
    pub link: u64,
    /// State bits.
    pub state: u64,
    /// Non-zero in cooperative mode.
    pub preemptive_disabled: u64,
    /// Chain of explicit frames.
    pub frame: u64,
    /// `AppDomain*`, before 9.
    pub app_domain: Option<u64>,
    /// Managed thread id.
    pub id: u64,
    /// Operating system thread id.
    pub os_id: u64,
    /// Allocation context: in the thread, or behind a pointer.
    pub alloc: AllocAt,
    /// Highest address of the stack; the lowest is the next word.
    pub stack_base: u64,
    /// Handle of the managed `Thread` object.
    pub exposed_object: u64,
    /// Handle of the exception last thrown.
    pub last_thrown: u64,
    /// Exception being handled.
    pub exception_tracker: u64,
    /// Handle of the exception in a tracker.
    pub tracker_thrown: u64,
    /// Outer tracker.
    pub tracker_previous: u64,
    /// `ThreadLocalData*`, 9 and later.
    pub thread_local_data: Option<u64>,
    /// `ThreadLocalBlock`, before 9, where that was checked: where it is in one build or another.
    pub local_modules: &'static [u64],
    /// `GCFrame*`: references that native code of the runtime protects (5 and later; 3.1 has explicit frames for them).
    pub gc_frame: Option<GcFrameAt>,
    /// Lock count, 3.1 only.
    pub lock_count: Option<u64>,
}

/// Where a thread's chain of `GCFrame`s is, and what is where in one behind the link to the next; source: `vm/frames.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcFrameAt {
    /// First frame, in the thread.
    pub first: u64,
    /// `Thread*`.
    pub thread: u64,
    /// First reference.
    pub references: u64,
    /// Number of references.
    pub count: u64,
    /// Whether they may point into objects.
    pub interior: u64,
}

impl GcFrameAt {
    /// As since 8: thread, references, number, kind.
    pub(crate) const fn at(first: u64) -> Self {
        Self { first, thread: 8, references: 16, count: 24, interior: 28 }
    }
}

/// Where a thread's allocation context (pointer, limit) is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocAt {
    /// Offset in the thread.
    Inline(u64),
    /// Offset of a pointer in the thread, and offset behind that pointer.
    Behind(u64, u64),
}

/// The GC's tables for the DAC; sources: `gc/gcinterface.dac.h`, `gc/gcinterface.dacvars.def`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcLayout {
    /// First pointer of `GcDacVars`; the others follow in the order of the `.def` file.
    pub first_pointer: u64,
    /// Generations when the structure does not tell (3.1).
    pub fixed_generations: Option<u64>,
    /// 3.1: places in a server heap, which later runtimes describe themselves.
    pub fixed_heap: Option<FixedHeap>,
    /// Offset of the allocation pointer in `g_global_alloc_context`.
    pub global_alloc_pointer: u64,
}

/// Field offsets of 3.1's server heap (`gc_heap`), from `dac_gc_heap` in `gc/gcinterface.dac.h` of 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHeap {
    /// `alloc_allocated`.
    pub alloc_allocated: u64,
    /// `ephemeral_heap_segment`.
    pub ephemeral_segment: u64,
    /// `finalize_queue`.
    pub finalize_queue: u64,
    /// `oom_info`.
    pub oom_info: u64,
    /// `generation_table`.
    pub generation_table: u64,
}

/// Handle tables; source: `gc/handletablepriv.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandleLayout {
    /// First segment, in a `HandleTable`.
    pub segments: u64,
    /// Number of internal handle types, which sizes a segment's header.
    pub types: u64,
}

/// Sync blocks; source: `vm/syncblk.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncLayout {
    /// The lock's holder is a managed thread id (10), not a `Thread*`.
    pub holder_is_id: bool,
}

/// `MethodDesc`; source: `vm/method.hpp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodDescLayout {
    /// Its size, without what further kinds of methods and flags add.
    pub size: u64,
    /// Bits of the token that stand in the method description; the rest is in its chunk.
    pub token_bits: u32,
    /// Type arguments of an instantiated method.
    pub generic_args: u64,
    /// Name of a dynamic method; its signature, that one's size and flags stand in front of it.
    pub dynamic_name: u64,
    /// Flag of a dynamic method that the program made (`DynamicMethod`), not the runtime.
    pub dynamic_user: u32,
    /// Hash table of methods with several versions of their code, in the `AppDomain` (before 9; then it is known by the
    /// method description).
    pub versions_map: Option<u64>,
    /// Flags of such a version (`NativeCodeVersionNode::m_flags`).
    pub version_flags: u64,
}

/// Managed code; sources: `vm/codeman.h`, `vm/readytoruninfo.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeLayout {
    /// Range sections are a linked list (3.1), not a map.
    pub range_list: bool,
    /// Nibble maps hold encoded pointers (10).
    pub pointer_nibbles: bool,
    /// Bytes of a `RUNTIME_FUNCTION`.
    pub runtime_function: u64,
    /// Runtime functions, in `ReadyToRunInfo`; their number is the next word.
    pub r2r_functions: u64,
    /// Hash map from entry point to method description, in `ReadyToRunInfo`.
    pub r2r_entry_points: u64,
    /// Version of the GC info format.
    pub gc_info: u32,
    /// How debug info of jitted code is written.
    pub debug_info: DebugInfoForm,
}

/// Explicit frames; sources: `vm/frames.h`, `vm/FrameTypes.h`, `vm/amd64/cgencpu.h`, `vm/arm64/cgencpu.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLayout {
    /// How a frame tells its kind.
    pub kinds: FrameKinds,
    /// Call site's stack pointer in an `InlinedCallFrame`; return address and frame pointer follow.
    pub call_site: u64,
    /// `TransitionBlock`: its size, the return address and the callee's saved registers in it.
    pub block_size: u64,
    /// See [`Self::block_size`].
    pub block_return: u64,
    /// See [`Self::block_size`].
    pub block_saved: u64,
    /// `HijackArgs`: its size and the callee's saved registers in it.
    pub hijack_size: u64,
    /// See [`Self::hijack_size`].
    pub hijack_saved: u64,
    /// `CONTEXT` in a `FaultingExceptionFrame`.
    pub faulting_context: u64,
    /// `CONTEXT` in a `SoftwareExceptionFrame` (9 and later).
    pub software_context: Option<u64>,
    /// Registers in a `HelperMethodFrame` (before 10).
    pub helper_state: Option<HelperState>,
    /// Pointer to the protected references in a `HelperMethodFrame_1OBJ` and its kin (before 10).
    pub helper_references: u64,
}

/// What the runtime has worked out about the registers of a `HelperMethodFrame`'s caller (`MachState`); sources:
/// `vm/amd64/gmscpu.h`, `vm/arm64/gmscpu.h`. Offsets in the frame; where it keeps a word for each of the callee's saved
/// registers, these are in the order r12 to r15, rbx, rbp or x19 to x29.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelperState {
    /// Not zero once all this is known.
    pub known: u64,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Where each register was saved; 0 for one that was not.
    pub places: u64,
    /// Registers without a place.
    pub values: u64,
    /// What it is worked out from, where that is known.
    pub captured: Option<Captured>,
}

/// Where the runtime stood when it made a `HelperMethodFrame` (`LazyMachState`). Offsets in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// The callee's saved registers, in the same order.
    pub registers: u64,
}

impl HelperState {
    /// On x64, in all versions.
    pub(crate) const X64: Self = Self {
        known: 160,
        ip: 48,
        sp: 56,
        places: 112,
        values: 168,
        captured: Some(Captured { ip: 216, sp: 224, registers: 64 }),
    };
    /// On arm64, in all versions.
    pub(crate) const ARM64: Self =
        Self { known: 240, ip: 224, sp: 232, places: 136, values: 48, captured: None };
}

/// How an explicit frame tells its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKinds {
    /// By a number from 1 on, in its first word (10).
    Identifiers(&'static [ExplicitKind]),
    /// By the address of its vtable, which stands in the table of globals (before 10).
    Vtables {
        /// How many entries before the table's end the first one is.
        from_end: usize,
        /// The kinds in order.
        kinds: &'static [ExplicitKind],
    },
}

/// Tables that were never checked on a real core, as their shapes are recognised; see `trial.rs`. In the order in
/// which they are to be tried.
pub(crate) fn source_candidates(bytes: u64, arch: Arch) -> Vec<(TableShape, Layout)> {
    if arch != Arch::X64 {
        return Vec::new();
    }
    let mut all = Vec::new();
    for shape in globals::source_shapes(bytes) {
        for layout in SOURCE_LAYOUTS.into_iter().filter(|layout| layout.major == shape.major) {
            all.push((shape, *layout));
        }
    }
    all
}

/// See [`source_candidates`].
const SOURCE_LAYOUTS: [&Layout; 3] = [&v5::LAYOUT, &v6::LAYOUT, &v6::LATER_HANDLES];

/// All tables for x64; a new major version is one more. Those for arm64 are in `arm64.rs`.
const LAYOUTS: [&Layout; 4] = [&v3_1::LAYOUT, &v8::LAYOUT, &v9::LAYOUT, &v10::LAYOUT];

/// The layout for a major version and an architecture, if there is one.
#[must_use]
pub fn layout(major: u8, arch: Arch) -> Option<Layout> {
    let tables: &[&Layout] = match arch {
        Arch::X64 => &LAYOUTS,
        Arch::Arm64 => &arm64::LAYOUTS,
    };
    tables.iter().find(|table| table.major == major).map(|table| **table)
}

/// What is to be said with every answer that such a layout gives: it is not checked as the others are.
pub(crate) fn caveat(major: u8, arch: Arch) -> Option<&'static str> {
    if arch == Arch::Arm64 { arm64::caveat(major) } else { None }
}
