//! What a runtime answers on its diagnostics port.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    dnd_ipc::fuzzing::replies(data);
    // With a sound header in front, of a success and of a refusal.
    for id in [0, 0xff] {
        let size = u16::try_from(20 + data.len()).unwrap_or(u16::MAX);
        let mut reply = b"DOTNET_IPC_V1\0".to_vec();
        reply.extend(size.to_le_bytes());
        reply.extend([0xff, id, 0, 0]);
        reply.extend(data);
        dnd_ipc::fuzzing::replies(&reply);
    }
});
