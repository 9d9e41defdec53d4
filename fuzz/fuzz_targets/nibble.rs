//! Nibble maps of both kinds.
#![no_main]

use dnd_clr::fuzzing::method_start;
use dnd_fuzz::{BASE, Input, Numbers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers(data);
    let code = 0x7f00_0000_0000;
    let ip = code + u64::from(numbers.u16()) * u64::from(numbers.u8());
    let memory = Input(numbers.0);
    for pointers in [false, true] {
        if let Some(start) = method_start(&memory, ip, code, BASE, pointers) {
            assert!(start >= code, "a method before the heap");
            assert!(pointers || start <= ip | 3, "a method behind the address");
        }
        for (ip, base, map) in [(u64::MAX, 0, BASE), (u64::MAX, 0, u64::MAX), (0, u64::MAX, 0)] {
            let _ = method_start(&memory, ip, base, map, pointers);
        }
    }
});
