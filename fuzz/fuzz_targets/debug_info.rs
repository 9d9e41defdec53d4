//! Debug info of jitted and ReadyToRun methods.
#![no_main]

use dnd_clr::fuzzing::{DebugInfoForm, debug_info};
use dnd_fuzz::{BASE, Input, Numbers, SPAN};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers(data);
    let offset = u64::from(numbers.u8());
    let memory = Input(numbers.0);
    for form in [DebugInfoForm::Plain, DebugInfoForm::Flags, DebugInfoForm::Packed] {
        if let Some((bounds, variables)) = debug_info(&memory, BASE + offset, form) {
            assert!(bounds <= 8 * data.len() && variables <= 8 * data.len(), "more than there are bits");
        }
    }
    for index in [0, 1, 17, u32::MAX] {
        let _ = dnd_clr::fuzzing::array_element(&memory, BASE, index);
        let _ = dnd_clr::fuzzing::array_element(&memory, BASE + SPAN, index);
    }
});
