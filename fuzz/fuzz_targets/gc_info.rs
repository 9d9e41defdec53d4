//! GC info, and what is live at each offset by it.
#![no_main]

use dnd_clr::stack::{GcInfo, Stands};
use dnd_fuzz::{BASE, Input, Numbers};
use dnd_memory::Arch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers(data);
    let kind = numbers.u8();
    let offset = u64::from(numbers.u16());
    let arch = if kind & 1 == 0 { Arch::X64 } else { Arch::Arm64 };
    let version = 2 + u32::from(kind >> 1 & 3) % 3;
    let memory = Input(numbers.0);
    let Ok(info) = GcInfo::read(&memory, arch, version, BASE) else { return };
    for stands in [Stands::BehindCall, Stands::Between, Stands::CallThrew, Stands::Faulted] {
        for offset in [0, offset, offset % (info.code_length + 1), info.code_length, u64::MAX] {
            let Ok(set) = info.live_at(offset, stands) else { continue };
            let tracked = set.live.iter().take_while(|live| !live.untracked).count();
            assert!(
                set.live.iter().skip(tracked).all(|live| live.untracked),
                "those live everywhere come last"
            );
        }
    }
    let _ = info.reports_only_leaf();
});
