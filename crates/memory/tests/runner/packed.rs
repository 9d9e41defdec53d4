//! Compressed cores.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use dnd_contract::{Explain, Kind};
use dnd_memory::{Core, Error, Memory, Packing, Progress, Target};
use dnd_testkit::shared_core;
use xtask::runtimes::shared_folder;

use crate::writer::{Scratch, Segment, byte_at, pattern, x64};

const START: u64 = 0x7f00_0000_0000;
const SIZE: usize = 3 << 20;

/// A core of three megabytes: text that packs well, noise that doesn't, and zeros.
fn plain() -> Vec<u8> {
    let mut data = pattern(START, SIZE);
    data[1 << 20..2 << 20].fill(0);
    for (i, byte) in data[2 << 20..].iter_mut().enumerate() {
        *byte = b"System.String "[i % 14];
    }
    x64().thread(77, 0, &[1; 27]).segment(Segment::new(START, data)).build()
}

fn pack(packing: Packing, bytes: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Zstd => {
            ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
        }
        Packing::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        Packing::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .content_checksum(true);
            let mut out = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        Packing::Xz => {
            let options = lzma_rust2::XzOptions::with_preset(1);
            let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
    }
}

const ALL: [Packing; 4] = [Packing::Zstd, Packing::Gzip, Packing::Lz4, Packing::Xz];

fn open(path: &Path, folder: &Path) -> Result<Core, Error> {
    Core::open_packed(path, folder, &mut |_| ControlFlow::Continue(()))
}

/// A folder for temporary files; nothing may be left in it.
fn folder(scratch: &Scratch) -> std::path::PathBuf {
    let path = scratch.path("tmp");
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[track_caller]
fn is_empty(folder: &Path) {
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "something was left in the folder");
}

#[test]
fn every_format_gives_the_same_core() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let bytes = plain();
    let truth = scratch.core(&bytes).unwrap();
    for packing in ALL {
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let mut frames = pack(packing, first);
        if packing == Packing::Zstd {
            // A frame that is to be skipped.
            frames.extend(b"\x53\x2a\x4d\x18\x05\0\0\0hello");
        }
        frames.extend(pack(packing, second));
        for (name, packed) in [("one", pack(packing, &bytes)), ("frames", frames)] {
            let path = scratch.write(name, &packed);
            let mut steps = Vec::new();
            let core = Core::open_packed(&path, &folder, &mut |progress| {
                steps.push(progress);
                ControlFlow::Continue(())
            });
            let core = core.unwrap_or_else(|e| panic!("{name} {packing:?}: {e}"));
            is_empty(&folder);
            let how = core.packed().unwrap();
            assert_eq!((how.packing, &how.damage), (packing, &None), "{name}");
            assert_eq!(core.path(), path);
            assert_eq!((core.file_size(), core.truncation()), (bytes.len() as u64, None));
            assert_eq!(core.threads(), truth.threads());
            assert!(core.run(START) == truth.run(START), "{name} {packing:?}");
            let (len, size) = (packed.len() as u64, bytes.len() as u64);
            assert_eq!(steps.last(), Some(&Progress { read: len, of: len, unpacked: size }), "{packing:?}");
            assert!(steps.len() > 2 && steps.is_sorted_by_key(|step| step.unpacked));
        }
    }
    // A plain one is just opened.
    let core = open(&scratch.write("plain", &bytes), &scratch.path("nowhere")).unwrap();
    assert!(core.packed().is_none() && core.u8(START) == Ok(byte_at(START)));
}

/// A byte that no format finds a rule in.
fn noise(at: u64) -> u8 {
    let mixed = (at ^ at >> 3).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ mixed >> 29).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
}

#[test]
fn cut_data_gives_what_came_before_and_says_so() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    // Noise, so that each format's stream is spread evenly over the core.
    let noise: Vec<u8> = (0..1u64 << 20).map(noise).collect();
    let bytes = x64().segment(Segment::new(START, noise.clone())).build();
    for packing in ALL {
        let packed = pack(packing, &bytes);
        let mut partial = 0;
        for cut in (0..40)
            .chain((40..packed.len()).step_by(packed.len() / 150))
            .chain(packed.len() - 9..packed.len())
        {
            let path = scratch.write("core", &packed[..cut]);
            match open(&path, &folder) {
                Ok(core) => {
                    let damage = core.packed().and_then(|packed| packed.damage.clone());
                    assert!(damage.is_some(), "{packing:?} cut at {cut}: no damage told");
                    let there = core.run(START);
                    assert!(there == &noise[..there.len()], "{packing:?} cut at {cut}");
                    assert_eq!(core.truncation().is_some(), there.len() < 1 << 20);
                    partial += 1;
                }
                Err(e) => assert!(
                    matches!(e.kind(), Kind::Corrupt | Kind::Unsupported),
                    "{packing:?} cut at {cut}: {e}"
                ),
            }
        }
        assert!(partial > 20, "{packing:?}: only {partial}");
        is_empty(&folder);
    }
}

#[test]
fn damaged_data_is_never_taken_for_sound() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let bytes = x64().segment(Segment::new(START, pattern(START, 1 << 18))).build();
    for packing in ALL {
        let packed = pack(packing, &bytes);
        for i in 0..200 {
            let at = 20 + (packed.len() - 20) / 200 * i;
            let mut wrong = packed.clone();
            wrong[at] ^= 1 << (i % 8);
            let path = scratch.write("core", &wrong);
            if let Ok(core) = open(&path, &folder) {
                let sound = core.packed().unwrap().damage.is_none();
                let same = core.run(START) == pattern(START, 1 << 18);
                assert!(!sound || same, "{packing:?}: a changed byte at {at} was not noticed");
            }
        }
        // Something else behind the data.
        let mut more = packed.clone();
        more.extend(b"and more");
        let core = open(&scratch.write("core", &more), &folder).unwrap();
        assert!(core.packed().unwrap().damage.is_some(), "{packing:?}");
        assert_eq!(core.run(START).len(), 1 << 18);
    }
}

#[test]
fn errors_and_cancelling() {
    let scratch = Scratch::new();
    let folder = folder(&scratch);
    let packed = pack(Packing::Gzip, &plain());
    let path = scratch.write("core.gz", &packed);
    let error = Core::open_packed(&path, &folder, &mut |_| ControlFlow::Break(())).err().unwrap();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    is_empty(&folder);
    let error = open(&path, &scratch.path("nowhere")).err().unwrap();
    assert!(matches!(&error, Error::Temporary { .. }) && error.kind() == Kind::NotFound, "{error}");
    assert!(error.hints()[0].contains("TMPDIR"));
    // Not a core inside.
    let path = scratch.write("text.gz", &pack(Packing::Gzip, b"hello"));
    let error = open(&path, &folder).err().unwrap();
    assert!(matches!(error, Error::NotElf { .. }), "{error}");
    // A zstd frame that claims a window of 256 MB.
    let path = scratch.write("core.zst", b"\x28\xb5\x2f\xfd\0\x90\x01\0\0");
    let error = open(&path, &folder).err().unwrap().to_string();
    assert!(error.contains("268435456 bytes of memory") && error.contains("--long=31"), "{error}");
    // Empty, and in a format that isn't read.
    let path = scratch.write("empty.gz", &pack(Packing::Gzip, b""));
    assert!(matches!(open(&path, &folder).err().unwrap(), Error::Packed { .. }));
    let path = scratch.write("core.bz2", b"BZh91AY&SY and so on");
    assert!(open(&path, &folder).err().unwrap().to_string().ends_with("is not an ELF file but bzip2 data"));
    assert!(matches!(open(&folder, &folder).err().unwrap(), Error::Io { .. }));
}

/// Against the zstd program, which unpacked this core for the other tests.
#[test]
fn a_core_packed_by_zstd() {
    let name = "linux-musl-x64-10.0.12/wks-gc.withheap";
    let Some(shared) = shared_core(name) else { return };
    let packed = shared_folder().join("cores").join(format!("{name}.core.zst"));
    let scratch = Scratch::new();
    let core = open(&packed, &folder(&scratch)).unwrap();
    assert_eq!(core.packed().unwrap().damage, None);
    let truth = Core::open(&shared.path).unwrap();
    assert_eq!((core.file_size(), core.ranges()), (truth.file_size(), truth.ranges()));
    assert!(truth.ranges().iter().all(|range| core.run(range.start) == truth.run(range.start)));
}
