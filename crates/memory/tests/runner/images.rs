//! ELF images inside a core, and as files.

use dnd_memory::{ElfFile, ElfImage, ImageError, Memory, Symbol};
use proptest::prelude::*;

use crate::writer::{CONSTANTS, Hash, POINTER, SYMBOLS, Scratch, Segment, library, pattern, x64};

const BASE: u64 = 0x7f12_3400_0000;

#[test]
fn symbols_by_both_hashes_relocated_or_not() {
    let scratch = Scratch::new();
    for hash in [Hash::Gnu, Hash::SysV] {
        for glibc in [true, false] {
            let mut writer = x64();
            writer.segments = library(&[0xab; 20], hash).loaded(BASE, glibc);
            let core = scratch.core(&writer.build()).unwrap();
            let image = ElfImage::at(&core, BASE).unwrap();
            assert_eq!((image.base(), image.bias(), image.machine()), (BASE, BASE, 62));
            assert_eq!(image.range(), BASE..BASE + 0x7000);
            let data: Vec<_> = image.data_ranges().map(|range| (range.start, range.end)).collect();
            assert_eq!(data, [(BASE + 0x5000, BASE + 0x7000)]);
            assert_eq!(image.build_id(&core), Ok(Some(vec![0xab; 20])));
            for (name, value, size) in SYMBOLS {
                let symbol = Symbol { address: BASE + value, size };
                assert_eq!(image.symbol(&core, name), Ok(Some(symbol)), "{name} {hash:?} glibc {glibc}");
            }
            for name in ["delta", "alph", "alphabet", "", "zeta"] {
                assert_eq!(image.symbol(&core, name), Ok(None), "{name} {hash:?} glibc {glibc}");
            }
        }
    }
}

#[test]
fn a_missing_table_is_told_and_not_taken_for_a_missing_symbol() {
    let scratch = Scratch::new();
    let mut segments = library(&[1; 20], Hash::Gnu).loaded(BASE, true);
    // Only the page with the headers is in the dump, cut before the hash table.
    segments[0].data.truncate(0x680);
    let mut writer = x64();
    writer.segments = segments;
    let core = scratch.core(&writer.build()).unwrap();
    let image = ElfImage::at(&core, BASE).unwrap();
    assert!(matches!(image.symbol(&core, "alpha"), Err(ImageError::Incomplete { .. })));
    assert!(image.build_id(&core).unwrap().is_some());
    assert!(matches!(ElfImage::at(&core, BASE + 0x100), Err(ImageError::NotElf { .. })));
    assert!(matches!(ElfImage::at(&core, 0x10), Err(ImageError::Incomplete { .. })));
}

#[test]
fn a_file_is_relocated_as_if_it_were_loaded() {
    let scratch = Scratch::new();
    let path = scratch.write("lib.so", &library(&[2; 20], Hash::Gnu).file);
    let file = ElfFile::open(&path, BASE).unwrap();
    assert_eq!(
        file.image().symbol(&file, "beta").unwrap(),
        Some(Symbol { address: BASE + 0x5200, size: 16 })
    );
    // Constants can be borrowed, data only be read, with relocations applied.
    assert_eq!(file.slice(BASE + CONSTANTS, 64), Some(&*pattern(CONSTANTS, 64)));
    assert_eq!(file.run(BASE + POINTER), b"");
    assert_eq!(file.u64(BASE + POINTER), Ok(BASE + 0x2010));
    assert_eq!(file.u32(BASE + POINTER + 4), Ok((BASE >> 32) as u32));
    assert_eq!(file.u64(BASE + POINTER - 8), Ok(0));
    // A word that another file decides, `.bss`, and what is outside.
    for addr in [BASE + POINTER + 8, BASE + POINTER + 4, BASE + POINTER + 15, BASE + 0x6000, BASE - 8, 0] {
        assert!(file.u64(addr).is_err(), "{addr:#x}");
    }
    let no_elf =
        scratch.write("text", b"hello world, this is no ELF file at all, but longer than one header is");
    assert_eq!(ElfFile::open(&no_elf, 0).err().unwrap().kind(), std::io::ErrorKind::InvalidData);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Damaged headers, dynamic sections, hash tables: an answer within the bounds of the loops.
    #[test]
    fn damaged_images(
        changes in prop::collection::vec((0usize..0xa00, prop::sample::select(vec![0u8, 1, 2, 0x7f, 0x80, 0xff])), 1..20),
        dynamic in prop::collection::vec((0usize..0x90, any::<u8>()), 0..4),
        sysv in any::<bool>(),
    ) {
        let hash = if sysv { Hash::SysV } else { Hash::Gnu };
        let mut library = library(&[3; 20], hash);
        for (at, value) in changes {
            library.file[at] = value;
        }
        for (at, value) in dynamic {
            library.file[0x4000 + at] = value;
        }
        let scratch = Scratch::new();
        let mut writer = x64();
        writer.segments = library.loaded(BASE, true);
        let core = scratch.core(&writer.build()).unwrap();
        if let Ok(image) = ElfImage::at(&core, BASE) {
            for name in ["alpha", "delta", "nothing"] {
                if let Ok(Some(symbol)) = image.symbol(&core, name) {
                    prop_assert_ne!(name, "nothing", "{:?}", symbol);
                }
            }
            let _ = (image.build_id(&core), image.range(), image.relro(), image.eh_frame_hdr());
        }
        let path = scratch.write("lib.so", &library.file);
        if let Ok(file) = ElfFile::open(&path, BASE) {
            let _ = file.image().symbol(&file, "gamma");
            let _ = file.u64(BASE + POINTER);
            prop_assert!(file.run(BASE + CONSTANTS).len() <= library.file.len());
        }
    }
}

#[test]
fn a_hash_chain_without_end_ends() {
    let scratch = Scratch::new();
    let mut library = library(&[4; 20], Hash::Gnu);
    // Every chain entry says that another one follows, over megabytes of memory.
    let hash = 0x700;
    for at in (hash + 28..hash + 28 + 12).step_by(4) {
        library.file[at] &= !1;
    }
    let mut segments = library.loaded(BASE, true);
    segments[0].data.truncate(0x1000);
    segments[0].data[hash + 36..].fill(0);
    segments.push(Segment::new(BASE + 0x1000, vec![0; 0x4000]));
    segments.push(Segment::new(BASE + 0x7000, vec![0; 16 << 20]));
    let mut writer = x64();
    writer.segments = segments;
    let core = scratch.core(&writer.build()).unwrap();
    let image = ElfImage::at(&core, BASE).unwrap();
    assert!(matches!(image.symbol(&core, "zeta"), Ok(None) | Err(ImageError::Incomplete { .. })));
}
