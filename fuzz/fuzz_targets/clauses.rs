//! Exception clauses, of jitted methods and of ReadyToRun images.
#![no_main]

use dnd_clr::fuzzing::{jit_clauses, r2r_clauses};
use dnd_fuzz::{BASE, Input, Numbers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers(data);
    let (at, method) = (numbers.address(), numbers.u16().into());
    let memory = Input(numbers.0);
    let _ = (jit_clauses(&memory, at), r2r_clauses(&memory, BASE, method));
    // As in a file that was found to be a ReadyToRun image.
    let mut image = vec![0; 0x40 + 24 + 112 + 8 * 15];
    image[0x3c] = 0x40;
    image[0x40 + 24 + 112 + 8 * 14..][..2].copy_from_slice(&0x138u16.to_le_bytes());
    image.resize(0x138, 0);
    image.resize(0x138 + 64, 0);
    image.extend(0x180u32.to_le_bytes());
    image.resize(0x180, 0);
    image.extend(0x0052_5452u32.to_le_bytes());
    image.extend(numbers.0);
    let _ = r2r_clauses(&Input(&image), BASE, method);
});
