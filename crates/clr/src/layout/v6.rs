//! .NET 6. Source: dotnet/runtime, main as of June 2021 (between previews 5 and 6 of 6.0), `src/coreclr/vm` and
//! `src/coreclr/gc`, with what is known to have changed until the release: the GC describes its fields (July 2021). No runtime
//! of it could be had: the offsets are those that a compiler gives the structures of that source. **Not verified on a real
//! core**; a core that this does not fit is refused by the checks of `trial.rs`.

use super::*;
use crate::code::DebugInfoForm;
use crate::stack::ExplicitKind::{self, *};

/// Kinds of explicit frames in the order of their vtables; nine other classes follow.
const FRAMES: &[ExplicitKind] = &[
    DebuggerClassInitMarkFrame,
    DebuggerSecurityCodeMarkFrame,
    DebuggerExitFrame,
    DebuggerU2MCatchHandlerFrame,
    FaultingExceptionFrame,
    FuncEvalFrame,
    HelperMethodFrame,
    HelperMethodFrame_1OBJ,
    HelperMethodFrame_2OBJ,
    HelperMethodFrame_3OBJ,
    HelperMethodFrame_PROTECTOBJ,
    HijackFrame,
    InlinedCallFrame,
    MulticastFrame,
    PInvokeCalliFrame,
    PrestubMethodFrame,
    ProtectByRefsFrame,
    ProtectValueClassFrame,
    ResumableFrame,
    RedirectedThreadFrame,
    StubDispatchFrame,
    CallCountingHelperFrame,
    ExternalMethodFrame,
    DynamicHelperFrame,
    ExceptionFilterFrame,
];

/// The segments of handle tables, which lie behind a lock in that source, moved to where 8 has them at an unknown time.
pub(super) const LATER_HANDLES: Layout =
    Layout { handles: HandleLayout { segments: 48, types: 12 }, ..LAYOUT };

pub(super) const LAYOUT: Layout = Layout {
    major: 6,
    method_table: MethodTableLayout {
        wide_token: false,
        collectible: 0x1000_0000,
        canon_mask: 3,
        direct_module: false,
        type_parameter: 8,
    },
    ee_class: EeClassLayout::Packed { fixed_size: 50, packed_flag: 49, norm_type: 48 },
    module: ModuleLayout {
        pe_assembly: 16,
        assembly: 40,
        loader_allocator: LoaderAllocatorAt::Assembly(64),
        loader_allocator_handle: 624,
        dynamic_metadata: None,
        dynamic_buffer: Some(1752),
        type_def_map: 656,
        type_ref_map: 688,
        method_def_map: 720,
        ready_to_run: 1168,
        domain_local_module: Some(1264),
        constructed_types: None,
        image_layouts: &[104, 96, 112],
    },
    app_domain: AppDomainLayout { assemblies: 2312, domain_assembly: 104, assembly_module: 24 },
    thread: ThreadLayout {
        first_link: 160,
        total: 184,
        counts: 192,
        link: 240,
        state: 8,
        preemptive_disabled: 12,
        frame: 16,
        app_domain: Some(24),
        id: 32,
        os_id: 432,
        alloc: AllocAt::Inline(88),
        stack_base: 256,
        exposed_object: 440,
        last_thrown: 472,
        exception_tracker: 488,
        tracker_thrown: 64,
        tracker_previous: 8,
        thread_local_data: None,
        local_modules: &[],
        gc_frame: Some(GcFrameAt { first: 1352, thread: 24, references: 8, count: 16, interior: 32 }),
        lock_count: None,
    },
    gc: GcLayout { first_pointer: 24, fixed_generations: None, fixed_heap: None, global_alloc_pointer: 0 },
    handles: HandleLayout { segments: 200, types: 12 },
    sync: SyncLayout { holder_is_id: false },
    method_desc: MethodDescLayout {
        size: 8,
        token_bits: 14,
        generic_args: 16,
        dynamic_name: 24,
        dynamic_user: 0x0002_0000,
        versions_map: Some(2520),
        version_flags: 52,
    },
    code: CodeLayout {
        range_list: true,
        pointer_nibbles: false,
        runtime_function: 12,
        r2r_functions: 64,
        r2r_entry_points: 416,
        gc_info: 2,
        debug_info: DebugInfoForm::Flags,
    },
    frames: FrameLayout {
        kinds: FrameKinds::Vtables { from_end: FRAMES.len() + 9, kinds: FRAMES },
        call_site: 32,
        block_size: 104,
        block_return: 96,
        block_saved: 48,
        hijack_size: 72,
        hijack_saved: 16,
        faulting_context: 32,
        software_context: None,
        helper_state: Some(HelperState::X64),
        helper_references: 232,
    },
    loader: None,
};
