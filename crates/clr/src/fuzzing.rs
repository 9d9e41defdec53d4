//! Readers of single structures, for the fuzz targets in `fuzz/` (feature `fuzzing`): no part of the interface.

use dnd_memory::{Arch, Memory};

use crate::code::{clauses, debug, nibble};
use crate::stack::{Context, cfi, unwind_arm64, unwind_x64};
pub use debug::DebugInfoForm;

/// Start of the method around `ip` by a nibble map, whose words may lead to the start since .NET 10.
#[must_use]
pub fn method_start(memory: &dyn Memory, ip: u64, base: u64, map: u64, pointers: bool) -> Option<u64> {
    nibble::find(memory, ip, base, map, pointers).ok().flatten()
}

/// Number of the exception clauses of a jitted method.
#[must_use]
pub fn jit_clauses(memory: &dyn Memory, at: u64) -> Option<usize> {
    Some(clauses::jit_clauses(memory, at).ok()?.len())
}

/// Number of the exception clauses of the method at an offset of a ReadyToRun image.
#[must_use]
pub fn r2r_clauses(memory: &dyn Memory, image: u64, method: u32) -> Option<usize> {
    Some(clauses::r2r_clauses(memory, image, method).ok()?.len())
}

/// The caller of a managed frame of the function at `start`, by the unwind codes at `unwind`.
#[must_use]
pub fn managed_caller(
    memory: &dyn Memory,
    context: &Context,
    start: u64,
    unwind: u64,
    interrupted: bool,
) -> Option<Context> {
    match context.arch() {
        Arch::X64 => unwind_x64::unwind(memory, context, start, unwind, start, interrupted).ok(),
        Arch::Arm64 => unwind_arm64::unwind(memory, context, start, unwind, interrupted).ok(),
    }
}

/// The caller of a native frame, by the table of functions (`.eh_frame_hdr`) at `header`.
#[must_use]
pub fn native_caller(memory: &dyn Memory, context: &Context, header: u64) -> Option<Context> {
    let function = cfi::function(memory, cfi::table_at(memory, header)?, context.ip)?;
    described_caller(memory, context, function)
}

/// The caller of a native frame, by the description of its function (FDE) at `function`.
#[must_use]
pub fn described_caller(memory: &dyn Memory, context: &Context, function: u64) -> Option<Context> {
    Some(cfi::step(memory, context, function, context.ip)?.context)
}

/// Numbers of pieces and variables that the debug info at an address has.
#[must_use]
pub fn debug_info(memory: &dyn Memory, at: u64, form: DebugInfoForm) -> Option<(usize, usize)> {
    debug::counts(memory, at, form)
}

/// The debug info of a method by the array at offset 0 of an image.
#[must_use]
pub fn array_element(memory: &dyn Memory, image: u64, index: u32) -> Option<u32> {
    debug::in_array(memory, image, 0, index).ok().flatten()
}
