//! What differs on arm64. Source: the arm64 contract descriptor of 10.0.12; checked on 10.0.12 (glibc).

use super::*;

/// The arm64 table for a version, where one was checked.
pub(super) fn adjust(mut table: Layout) -> Option<Layout> {
    if table.major != 10 {
        return None;
    }
    // Everything in `Thread` behind the runtime's thread locals lies 40 bytes further, because the contexts saved in
    // it are larger.
    let thread = &mut table.thread;
    for field in [
        &mut thread.link,
        &mut thread.stack_base,
        &mut thread.os_id,
        &mut thread.exposed_object,
        &mut thread.last_thrown,
        &mut thread.exception_tracker,
    ] {
        *field += 40;
    }
    thread.gc_frame = thread.gc_frame.map(|at| GcFrameAt { first: at.first + 40, ..at });
    thread.thread_local_data = thread.thread_local_data.map(|at| at + 40);
    table.code.runtime_function = 8;
    table.frames = FrameLayout {
        block_size: 176,
        block_return: 8,
        block_saved: 0,
        hijack_size: 192,
        hijack_saved: 0,
        software_context: Some(192),
        ..table.frames
    };
    Some(table)
}
