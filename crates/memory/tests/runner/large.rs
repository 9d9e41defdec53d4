//! Cores with many segments, and large ones.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use dnd_memory::{Core, MappedFile, Memory, Target};

use crate::writer::{Scratch, Segment, byte_at, pattern, x64};

#[test]
fn more_segments_than_the_header_can_count() {
    let scratch = Scratch::new();
    let count = 70_000u64;
    let mut writer = x64().thread(1, 0, &[0; 27]);
    // Pieces of 16 bytes, every other of 32, with gaps; written in an order that isn't that of their addresses.
    let start = |i: u64| 0x1000_0000 + i * 0x1000;
    let len = |i: u64| 16 << (i & 1);
    for i in 0..count {
        let i = i * 7919 % count;
        writer.segments.push(Segment::new(start(i), pattern(start(i), len(i) as usize)));
    }
    let core = scratch.core(&writer.build()).unwrap();
    assert_eq!((core.ranges().len(), core.threads().len()), (70_000, 1));
    for i in 0..count {
        let (start, len) = (start(i), len(i));
        assert_eq!(core.run(start + 1).len() as u64, len - 1);
        assert_eq!(core.u8(start + len - 1), Ok(byte_at(start + len - 1)));
        assert!(core.u8(start + len).is_err() && core.u8(start - 1).is_err());
    }
}

#[test]
fn many_threads_read_at_once() {
    let scratch = Scratch::new();
    let mut writer = x64();
    for i in 0..3000u64 {
        writer.segments.push(Segment::new(i * 0x2_0000, pattern(i * 0x2_0000, 64)));
    }
    let core = scratch.core(&writer.build()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let core = &core;
            scope.spawn(move || {
                for i in 0..60_000u64 {
                    let addr = i * (7 + thread) % 3000 * 0x2_0000 + i % 80;
                    let expected = (addr % 0x2_0000 < 64).then(|| byte_at(addr));
                    assert_eq!(core.u8(addr).ok(), expected);
                }
            });
        }
    });
}

#[test]
fn beyond_four_gigabytes() {
    let scratch = Scratch::new();
    let size = 6u64 << 30;
    // One segment of 6 GB; the file behind it is sparse, so that it takes a few blocks only.
    let mut bytes = x64().segment(Segment::new(0x7f00_0000_0000, Vec::new())).build();
    for at in [64 + 32, 64 + 40] {
        bytes[at..at + 8].copy_from_slice(&size.to_le_bytes());
    }
    let path = scratch.write("core", &bytes);
    let file = File::options().write(true).read(true).open(&path).unwrap();
    let data = bytes.len() as u64;
    file.set_len(data + size).unwrap();
    let places = [0, (4 << 30) - 4, (5 << 30) + 12345, size - 8];
    for place in places {
        file.write_all_at(&(place ^ 0x1234_5678_9abc).to_le_bytes(), data + place).unwrap();
    }
    let core = Core::from_map(MappedFile::new(&file).unwrap(), Path::new("core")).unwrap();
    assert_eq!((core.truncation(), core.present_memory()), (None, size));
    for place in places {
        assert_eq!(core.u64(0x7f00_0000_0000 + place), Ok(place ^ 0x1234_5678_9abc));
    }
    assert_eq!(core.run(0x7f00_0000_0000).len() as u64, size);
    assert_eq!(core.u64(0x7f00_0000_0000 + (3 << 30)), Ok(0));
    assert!(core.u64(0x7f00_0000_0000 + size - 7).is_err());
}
