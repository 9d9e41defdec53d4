//! DWARF call frame information of both processors: its table of functions, and descriptions of functions.
#![no_main]

use dnd_clr::fuzzing::{described_caller, native_caller};
use dnd_fuzz::{Input, Numbers, frame};
use dnd_memory::Arch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for arch in [Arch::X64, Arch::Arm64] {
        let mut numbers = Numbers(data);
        let context = frame(arch, &mut numbers);
        let (header, function) = (numbers.address(), numbers.address());
        let memory = Input(numbers.0);
        let _ = native_caller(&memory, &context, header);
        let _ = described_caller(&memory, &context, function);
    }
});
