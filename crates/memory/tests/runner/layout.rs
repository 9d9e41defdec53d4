//! What is in a core is found, and nothing else.

use dnd_memory::{Arch, Memory, Missing, Registers, Target};

use crate::writer::{R, RX, Scratch, Segment, arm64, byte_at, pattern, x64};

#[test]
fn bytes_are_where_the_headers_say() {
    let scratch = Scratch::new();
    let core = x64()
        .segment(Segment::new(0x7000, pattern(0x7000, 0x1000)).flags(RX))
        // Continues the first in memory and in the file.
        .segment(Segment::new(0x8000, pattern(0x8000, 0x1000)))
        // Says that there is more memory than the file has: the rest is missing, not zero.
        .segment(Segment::new(0x2_0000, pattern(0x2_0000, 0x800)).claiming(0x2000))
        // As createdump of 3.1 writes it: a range of which nothing is in the file, beside one that is.
        .segment(Segment::new(0x3_0000, Vec::new()).claiming(0x1000))
        .segment(Segment::new(0x3_1000, pattern(0x3_1000, 0x1000)).flags(R))
        .segment(Segment::new(0x1000, pattern(0x1000, 0x1000)));
    let core = scratch.core(&core.build()).unwrap();

    let ranges: Vec<_> =
        core.ranges().iter().map(|r| (r.start, r.end, r.permissions.write, r.permissions.execute)).collect();
    let expected = [
        (0x1000, 0x2000, true, false),
        (0x7000, 0x8000, false, true),
        (0x8000, 0x9000, true, false),
        (0x2_0000, 0x2_0800, true, false),
        (0x3_1000, 0x3_2000, false, false),
    ];
    assert_eq!(ranges, expected);
    assert_eq!(core.present_memory(), 0x4800);
    assert_eq!(core.described_memory(), 0x1000 * 5 + 0x2000);
    assert_eq!(core.overlaps(), 0);
    assert_eq!(core.truncation(), None);

    for addr in (0..0x4_0000).step_by(0x200) {
        let there = expected.iter().any(|&(start, end, ..)| start <= addr && addr < end);
        assert_eq!(core.u8(addr).ok(), there.then(|| byte_at(addr)), "{addr:#x}");
    }
    // One slice over two segments that lie behind each other.
    assert_eq!(core.run(0x7ff8), pattern(0x7ff8, 0x1008));
    assert_eq!(core.slice(0x7000, 0x2000), Some(&*pattern(0x7000, 0x2000)));
    assert_eq!(core.slice(0x7000, 0x2001), None);
    assert_eq!(core.run(0x2_0800), b"");
    assert_eq!(core.u64(0x2_07fc), Err(Missing { addr: 0x2_07fc, len: 8 }));
    assert_eq!(core.u64(u64::MAX - 2), Err(Missing { addr: u64::MAX - 2, len: 8 }));
    let word = u64::from_le_bytes(pattern(0x7ffd, 8).try_into().unwrap());
    assert_eq!(core.u64(0x7ffd), Ok(word));
    core.populate(0x7000, u64::MAX);
    core.populate(0x5, 10);
}

#[test]
fn a_read_crosses_segments_that_are_apart_in_the_file() {
    let scratch = Scratch::new();
    let core = x64()
        .segment(Segment::new(0x2000, pattern(0x2000, 0x1000)))
        .segment(Segment::new(0x1000, pattern(0x1000, 0x1000)))
        .segment(Segment::new(0x3000, pattern(0x3000, 0x10)));
    let core = scratch.core(&core.build()).unwrap();
    let mut bytes = vec![0; 0x2010];
    core.read(0x1000, &mut bytes).unwrap();
    assert_eq!(bytes, pattern(0x1000, 0x2010));
    let mut more = vec![0; 0x2011];
    assert_eq!(core.read(0x1000, &mut more), Err(Missing { addr: 0x1000, len: 0x2011 }));
    assert_eq!(core.slice(0x1ff8, 16), None);
}

#[test]
fn overlapping_segments_keep_the_first_bytes_and_are_counted() {
    let scratch = Scratch::new();
    let core = x64()
        .segment(Segment::new(0x1000, vec![1; 0x1000]))
        .segment(Segment::new(0x1800, vec![2; 0x1000]))
        .segment(Segment::new(0x1000, vec![3; 0x100]));
    let core = scratch.core(&core.build()).unwrap();
    assert_eq!(core.overlaps(), 2);
    assert_eq!([0x1000, 0x1fff, 0x2000, 0x27ff].map(|a| core.u8(a)), [Ok(1), Ok(1), Ok(2), Ok(2)]);
    assert!(core.u8(0x2800).is_err());
    assert_eq!(core.ranges().len(), 2);
    assert_eq!(core.ranges()[1].start, 0x2000);
}

#[test]
fn the_end_of_the_address_space_does_not_wrap() {
    let scratch = Scratch::new();
    let core = x64()
        .segment(Segment::new(u64::MAX - 0xfff, vec![7; 0x1000]))
        .segment(Segment::new(0, vec![9; 0x10]));
    let core = scratch.core(&core.build()).unwrap();
    assert_eq!(core.u64(u64::MAX - 0xfff), Ok(0x0707_0707_0707_0707));
    assert!(core.u64(u64::MAX - 3).is_err(), "it would continue at 0");
    assert_eq!(core.u8(0), Ok(9));
}

#[test]
fn notes_tell_threads_files_and_process() {
    let scratch = Scratch::new();
    // By the kernel's order: r15 … ; each register holds 0x100 + its number in that order.
    let registers: Vec<u64> = (0..27).map(|i| 0x100 + i).collect();
    let mut process = vec![0; 136];
    process[16..20].copy_from_slice(&1000u32.to_le_bytes());
    process[24..28].copy_from_slice(&4242u32.to_le_bytes());
    process[28..32].copy_from_slice(&17u32.to_le_bytes());
    process[40..46].copy_from_slice(b"dotnet");
    process[56..72].copy_from_slice(b"dotnet Leak.dll ");
    let mut fault = vec![0; 128];
    fault[0] = 11;
    fault[8] = 1;
    fault[16..24].copy_from_slice(&0xdead_0000u64.to_le_bytes());
    let auxv: Vec<u8> =
        [6u64, 4096, 33, 0x7fff_0000, 0, 0, 9, 9].iter().flat_map(|v| v.to_le_bytes()).collect();
    let core = x64()
        .thread(4242, 11, &registers)
        .note(3, &process)
        .note(0x5349_4749, &fault)
        .note(6, &auxv)
        .files(&[(0x5000, 0x6000, 0x3000, "/app/b.so"), (0x1000, 0x2000, 0, "/app/a \u{fc}.so (deleted)")])
        .thread(4243, 0, &registers)
        // Too short for its registers.
        .note(1, &[0; 200])
        .note(0x1234, b"unknown")
        .segment(Segment::new(0x1000, vec![0; 16]));
    let core = scratch.core(&core.build()).unwrap();

    assert_eq!(core.arch(), Arch::X64);
    let tids: Vec<_> = core.threads().iter().map(|t| (t.tid, t.signal)).collect();
    assert_eq!(tids, [(4242, 11), (4243, 0)]);
    let registers = core.threads()[0].registers;
    assert_eq!((registers.ip(), registers.sp(), registers.fp()), (0x110, 0x113, 0x104));
    let named: Vec<_> = registers.named().collect();
    let expected = [
        ("rax", 10),
        ("rcx", 11),
        ("rdx", 12),
        ("rbx", 5),
        ("rsp", 19),
        ("rbp", 4),
        ("rsi", 13),
        ("rdi", 14),
        ("r8", 9),
        ("r9", 8),
        ("r10", 7),
        ("r11", 6),
        ("r12", 3),
        ("r13", 2),
        ("r14", 1),
        ("r15", 0),
    ];
    assert_eq!(named, expected.map(|(name, n)| (name, 0x100 + n)));
    let Registers::X64(registers) = registers else { panic!("not x64") };
    assert_eq!((registers.rflags, registers.fs_base, registers.gs_base), (0x112, 0x115, 0x116));

    let process = core.process().unwrap();
    assert_eq!((process.pid, process.ppid, process.uid), (4242, 17, 1000));
    assert_eq!((process.name.as_str(), process.command.as_str()), ("dotnet", "dotnet Leak.dll"));
    let signal = core.signal().unwrap();
    assert_eq!((signal.number, signal.code, signal.fault_address), (11, 1, Some(0xdead_0000)));
    assert_eq!(
        core.auxv().iter().map(|e| (e.key, e.value)).collect::<Vec<_>>(),
        [(6, 4096), (33, 0x7fff_0000)]
    );
    let files: Vec<_> = core.mappings().iter().map(|m| (m.start, m.end, m.offset, m.file_name())).collect();
    assert_eq!(
        files,
        [(0x1000, 0x2000, 0, "a \u{fc}.so (deleted)".into()), (0x5000, 0x6000, 0x3000, "b.so".into())]
    );
}

#[test]
fn arm64_threads() {
    let scratch = Scratch::new();
    let registers: Vec<u64> = (0..34).map(|i| 0x200 + i).collect();
    let core = arm64().thread(7, 0, &registers).segment(Segment::new(0x1000, vec![0; 16]));
    let core = scratch.core(&core.build()).unwrap();
    assert_eq!(core.arch(), Arch::Arm64);
    let registers = core.threads()[0].registers;
    assert_eq!((registers.fp(), registers.sp(), registers.ip()), (0x21d, 0x21f, 0x220));
    let named: Vec<_> = registers.named().collect();
    assert_eq!(named.len(), 31);
    assert_eq!((named[0], named[28], named[30]), (("x0", 0x200), ("x28", 0x21c), ("lr", 0x21e)));
    assert_eq!(core.signal(), None);
}

#[test]
fn createdump_leaves_its_mark() {
    let scratch = Scratch::new();
    let mut info = b"DIAGINFOHEADER\0\0\x02\0\0\0\xff\x7f\0\0".to_vec();
    info.extend(0x7f00_1234u64.to_le_bytes());
    info.extend(0x7f80_0000_0000u64.to_le_bytes());
    let with = |info: &[u8]| x64().segment(Segment::new(0x7fff_fff1_0000, info.to_vec())).build();
    let found = scratch.core(&with(&info)).unwrap().createdump().unwrap();
    assert_eq!(
        (found.version, found.exception_record, found.runtime_base),
        (2, Some(0x7f00_1234), Some(0x7f80_0000_0000))
    );
    // The first version ends before the base.
    info[16] = 1;
    let found = scratch.core(&with(&info[..32])).unwrap().createdump().unwrap();
    assert_eq!((found.version, found.runtime_base), (1, None));
    info[0] = b'X';
    assert_eq!(scratch.core(&with(&info)).unwrap().createdump(), None);
}
