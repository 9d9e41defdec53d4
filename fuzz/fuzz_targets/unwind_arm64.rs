//! Unwind codes (`.xdata`) of arm64; the function, its codes and its stack lie in the input.
#![no_main]

use dnd_clr::fuzzing::managed_caller;
use dnd_fuzz::{Input, Numbers, frame};
use dnd_memory::Arch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers(data);
    let context = frame(Arch::Arm64, &mut numbers);
    let (start, codes) = (numbers.address(), numbers.address());
    let memory = Input(numbers.0);
    for interrupted in [false, true] {
        let _ = managed_caller(&memory, &context, start, codes, interrupted);
    }
});
