//! Broken cores: a clear error or what is there, never a panic, never an invented byte.

use dnd_contract::{Explain, Kind};
use dnd_memory::{Error, Memory, Target};
use proptest::prelude::*;

use crate::writer::{CoreWriter, Scratch, Segment, byte_at, pattern, x64};

fn small() -> CoreWriter {
    let registers = [5; 27];
    x64()
        .thread(1, 0, &registers)
        .files(&[(0x1000, 0x2000, 0, "/a"), (0x2000, 0x3000, 0x1000, "/b")])
        .thread(2, 0, &registers)
        .segment(Segment::new(0x1000, pattern(0x1000, 0x180)))
        .segment(Segment::new(0x2000, pattern(0x2000, 0x100)))
}

#[test]
fn every_truncation_is_told() {
    let scratch = Scratch::new();
    let whole = small().build();
    let headers = 64 + 3 * 56;
    let notes_end = whole.len() - 0x280;
    for len in 0..whole.len() {
        let opened = scratch.core(&whole[..len]);
        if len < headers {
            let kind = opened.err().map(|e| e.kind());
            let expected = if (1..4).contains(&len) { Kind::Unsupported } else { Kind::Corrupt };
            assert_eq!(kind, Some(expected), "cut at {len}");
            continue;
        }
        let core = opened.unwrap_or_else(|e| panic!("cut at {len}: {e}"));
        let lost = core.truncation().unwrap_or_else(|| panic!("cut at {len}: no truncation"));
        assert_eq!((lost.expected, lost.actual), (whole.len() as u64, len as u64));
        let memory = (whole.len() - len).min(0x280) as u64;
        assert_eq!(lost.missing_memory, memory, "cut at {len}");
        assert_eq!(core.present_memory(), 0x280 - memory);
        assert_eq!(lost.notes, len < notes_end, "cut at {len}");
        assert_eq!(lost.segments, if memory > 0x100 { 2 } else { 1 });
        for addr in (0x1000..0x1180).chain(0x2000..0x2100) {
            match core.u8(addr) {
                Ok(byte) => assert_eq!(byte, byte_at(addr), "cut at {len}, {addr:#x}"),
                Err(missing) => assert_eq!(missing.addr, addr),
            }
        }
    }
    let core = scratch.core(&whole).unwrap();
    assert_eq!((core.truncation(), core.threads().len(), core.mappings().len()), (None, 2, 2));
}

#[test]
fn what_is_no_core_is_named() {
    let scratch = Scratch::new();
    let good = small().build();
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let cases: [(Vec<u8>, Kind, &str); 22] = [
        (Vec::new(), Kind::Corrupt, "core is empty"),
        (b"hello".to_vec(), Kind::Unsupported, "core is not an ELF file but text"),
        (vec![1, 2, 0xfe], Kind::Unsupported, "something unknown, which begins with the bytes 01 02 fe"),
        (vec![0; 9000], Kind::Unsupported, "zeros"),
        (b"MDMP...........".to_vec(), Kind::Unsupported, "a Windows minidump"),
        (b"MZ".to_vec(), Kind::Unsupported, "a PE file"),
        (vec![0x28, 0xb5, 0x2f, 0xfd, 0], Kind::Unsupported, "zstd data"),
        (vec![2, 0x21, 0x4c, 0x18, 0], Kind::Unsupported, "LZ4 data of the old format"),
        (with(4, &[1]), Kind::Unsupported, "a 32-bit process"),
        (with(5, &[2]), Kind::Unsupported, "a big-endian machine"),
        (with(4, &[9]), Kind::Corrupt, "unknown ELF class 9"),
        (with(16, &[2]), Kind::Unsupported, "core is an executable, not a core dump"),
        (with(16, &[3]), Kind::Unsupported, "a shared library or executable"),
        (with(16, &[77]), Kind::Unsupported, "an ELF file of type 77"),
        (with(18, &[40, 0]), Kind::Unsupported, "a 32-bit arm process"),
        (with(18, &[243, 0]), Kind::Unsupported, "a RISC-V machine"),
        (with(18, &[1, 2]), Kind::Unsupported, "machine 513"),
        (with(54, &[8, 0]), Kind::Corrupt, "8 bytes, it needs 56"),
        (with(56, &[0, 0]), Kind::Corrupt, "no program headers"),
        (with(56, &[0xfe, 0xff]), Kind::Corrupt, "65534 program headers"),
        (with(56, &[0xff, 0xff]), Kind::Corrupt, "which is not in the file"),
        (with(32, &[0xff; 8]), Kind::Corrupt, "don't fit"),
    ];
    for (bytes, kind, text) in cases {
        let error = scratch.core(&bytes).err().unwrap_or_else(|| panic!("{text}: it was opened"));
        assert!(error.to_string().contains(text), "{error}: not {text}");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let missing = dnd_memory::Core::open(&scratch.path("nowhere")).err().unwrap();
    assert_eq!(missing.kind(), Kind::NotFound);
    let folder = dnd_memory::Core::open(&std::env::temp_dir()).err().unwrap();
    assert!(matches!(folder, Error::Io { .. }) && folder.kind() == Kind::Usage, "{folder}");
}

/// Asks everything; what is read must be what the file has there.
fn ask(bytes: &[u8]) -> Result<(), TestCaseError> {
    let scratch = Scratch::new();
    let Ok(core) = scratch.core(bytes) else { return Ok(()) };
    let size = bytes.len() as u64;
    prop_assert!(core.threads().len() as u64 * 112 <= size);
    prop_assert!(core.mappings().len() as u64 * 24 <= size);
    let mut end = 0;
    for range in core.ranges() {
        prop_assert!(range.start >= end && range.start < range.end);
        end = range.end;
        for addr in [range.start, range.start + (range.end - range.start) / 2, range.end - 1] {
            let byte = core.u8(addr);
            prop_assert!(byte.is_ok(), "{:#x} is missing", addr);
            prop_assert!(core.run(addr).len() as u64 <= size);
        }
    }
    let _ = (core.createdump(), core.signal(), core.process(), core.auxv());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn changed_bytes(changes in prop::collection::vec((0usize..1500, any::<u8>()), 1..12), cut in 0usize..4000) {
        let mut bytes = small().build();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        // Half of the cases are cut, too.
        if cut < 2000 {
            bytes.truncate(cut);
        }
        ask(&bytes)?;
    }

    #[test]
    fn changed_words(changes in prop::collection::vec((0usize..180, prop::num::u64::ANY), 1..6)) {
        let mut bytes = small().build();
        for (at, value) in changes {
            // Values around the interesting ones.
            let value = match value % 5 { 0 => u64::MAX - value % 64, 1 => value % 4096, 2 => 1 << (value % 64), _ => value };
            if let Some(word) = bytes.get_mut(at * 8..at * 8 + 8) {
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
        ask(&bytes)?;
    }
}
