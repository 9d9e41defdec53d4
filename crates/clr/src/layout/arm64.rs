//! The tables for arm64: what differs from those for x64.
//!
//! Two kinds of things do. `Thread` is larger by 40 bytes behind its first fields, in every version. And before 10, each
//! `Crst` (a lock of the runtime's, which stands inside of the structures that it guards) is larger: by 24 bytes in 3.1 and
//! by 8 in 8 and 9 (`PAL_CS_NATIVE_DATA_SIZE` in `pal/inc/pal.h`). So a field lies further by as much as there are locks in
//! front of it.
//!
//! Checked on real cores, written by createdump on an arm64 kernel (glibc), against the runtime's own library: 3.1.2,
//! 8.0.15, 8.0.31, 10.0.12; without that library: 8.0.6, 9.0.9 (see [`caveat`]). 10 is also described by the runtime's
//! contract descriptor.

use super::*;

/// By how much `Thread` is larger in front of its link to the next thread.
const THREAD: u64 = 40;

/// Everything in `Thread` behind its first fields lies [`THREAD`] bytes further.
const fn thread(t: ThreadLayout) -> ThreadLayout {
    ThreadLayout {
        link: t.link + THREAD,
        stack_base: t.stack_base + THREAD,
        os_id: t.os_id + THREAD,
        exposed_object: t.exposed_object + THREAD,
        last_thrown: t.last_thrown + THREAD,
        exception_tracker: t.exception_tracker + THREAD,
        gc_frame: match t.gc_frame {
            Some(at) => Some(GcFrameAt { first: at.first + THREAD, ..at }),
            None => None,
        },
        thread_local_data: match t.thread_local_data {
            Some(at) => Some(at + THREAD),
            None => None,
        },
        ..t
    }
}

/// What is the same in all versions; sources: `vm/arm64/cgencpu.h`, `vm/arm64/gmscpu.h`.
const fn common(table: Layout) -> Layout {
    Layout {
        thread: thread(table.thread),
        code: CodeLayout { runtime_function: 8, ..table.code },
        frames: FrameLayout {
            block_size: 176,
            block_return: 8,
            block_saved: 0,
            hijack_size: 192,
            hijack_saved: 0,
            helper_state: match table.frames.helper_state {
                Some(_) => Some(HelperState::ARM64),
                None => None,
            },
            helper_references: 264,
            ..table.frames
        },
        ..table
    }
}

/// What lies behind one lock in all versions before 10.
const fn with_locks(table: Layout, crst: u64) -> Layout {
    Layout {
        module: ModuleLayout {
            loader_allocator_handle: table.module.loader_allocator_handle + crst,
            ..table.module
        },
        thread: ThreadLayout {
            first_link: table.thread.first_link + crst,
            total: table.thread.total + crst,
            counts: table.thread.counts + crst,
            ..table.thread
        },
        code: CodeLayout { r2r_entry_points: table.code.r2r_entry_points + crst, ..table.code },
        ..table
    }
}

const V3_1: Layout = {
    const CRST: u64 = 24;
    let moved = with_locks(common(v3_1::LAYOUT), CRST);
    Layout {
        module: ModuleLayout {
            type_def_map: moved.module.type_def_map + 4 * CRST,
            type_ref_map: moved.module.type_ref_map + 4 * CRST,
            method_def_map: moved.module.method_def_map + 4 * CRST,
            ready_to_run: moved.module.ready_to_run + 5 * CRST,
            domain_local_module: Some(1304 + 5 * CRST),
            dynamic_buffer: Some(1656 + 6 * CRST),
            constructed_types: Some(TypeTable { table: 1024 + 4 * CRST, count: 28, special: false }),
            ..moved.module
        },
        app_domain: AppDomainLayout {
            assemblies: moved.app_domain.assemblies + 14 * CRST,
            ..moved.app_domain
        },
        method_desc: MethodDescLayout { versions_map: Some(2600 + 14 * CRST), ..moved.method_desc },
        handles: HandleLayout { segments: moved.handles.segments + CRST, ..moved.handles },
        loader: Some(loader::V3_1_ARM64),
        ..moved
    }
};

const V8: Layout = {
    const CRST: u64 = 8;
    let moved = with_locks(common(v8::LAYOUT), CRST);
    Layout {
        module: ModuleLayout {
            pe_assembly: moved.module.pe_assembly + CRST,
            assembly: moved.module.assembly + CRST,
            loader_allocator: LoaderAllocatorAt::Module(248 + CRST),
            type_def_map: moved.module.type_def_map + 4 * CRST,
            method_def_map: moved.module.method_def_map + 4 * CRST,
            ready_to_run: moved.module.ready_to_run + 5 * CRST,
            domain_local_module: Some(1224 + 5 * CRST),
            dynamic_buffer: Some(1688 + 7 * CRST),
            constructed_types: Some(TypeTable::at(968 + 4 * CRST)),
            ..moved.module
        },
        app_domain: AppDomainLayout {
            assemblies: moved.app_domain.assemblies + 14 * CRST,
            ..moved.app_domain
        },
        method_desc: MethodDescLayout { versions_map: Some(2520 + 14 * CRST), ..moved.method_desc },
        loader: Some(loader::V8_ARM64),
        ..moved
    }
};

const V9: Layout = {
    const CRST: u64 = 8;
    let moved = with_locks(common(v9::LAYOUT), CRST);
    Layout {
        module: ModuleLayout {
            pe_assembly: moved.module.pe_assembly + CRST,
            assembly: moved.module.assembly + CRST,
            loader_allocator: LoaderAllocatorAt::Module(248 + CRST),
            type_def_map: moved.module.type_def_map + 3 * CRST,
            method_def_map: moved.module.method_def_map + 3 * CRST,
            ready_to_run: moved.module.ready_to_run + 4 * CRST,
            dynamic_metadata: Some(1120 + 4 * CRST),
            constructed_types: Some(TypeTable::at(808 + 3 * CRST)),
            ..moved.module
        },
        app_domain: AppDomainLayout {
            assemblies: moved.app_domain.assemblies + 11 * CRST,
            ..moved.app_domain
        },
        frames: FrameLayout { software_context: Some(192), ..moved.frames },
        loader: Some(loader::V9_ARM64),
        ..moved
    }
};

const V10: Layout = {
    let x64 = common(v10::LAYOUT);
    Layout { frames: FrameLayout { software_context: Some(192), ..x64.frames }, ..x64 }
};

/// What is said of a table that is not checked as the others are.
pub(super) fn caveat(major: u8) -> Option<&'static str> {
    (major == 9).then_some(
        "on arm64 the places of .NET 9 were checked on one program (9.0.9, trimmed, in a single file) and without \
         Microsoft's library; those of precompiled code and of dynamic and collectible assemblies are concluded from \
         x64 and from .NET 8, not verified on a real core",
    )
}

/// All tables for arm64, as [`super::LAYOUTS`].
pub(super) const LAYOUTS: [&Layout; 4] = [&V3_1, &V8, &V9, &V10];
