//! Writes cores and images. Shares nothing with the readers: layouts are from elf(5) and core(5).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use dnd_memory::{Core, Error, MappedFile};

pub(crate) const R: u32 = 4;
pub(crate) const RW: u32 = 6;
pub(crate) const RX: u32 = 5;
pub(crate) const PAGE: u64 = 0x1000;

/// A folder that is removed with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dnd-memory-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The core that these bytes are.
    pub(crate) fn core(&self, bytes: &[u8]) -> Result<Core, Error> {
        let path = self.write("core", bytes);
        Core::from_map(MappedFile::new(&File::open(&path).unwrap()).unwrap(), Path::new("core"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) vaddr: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) memory_size: u64,
    pub(crate) flags: u32,
}

impl Segment {
    pub(crate) fn new(vaddr: u64, data: Vec<u8>) -> Self {
        Self { vaddr, memory_size: data.len() as u64, data, flags: RW }
    }

    pub(crate) fn flags(self, flags: u32) -> Self {
        Self { flags, ..self }
    }

    /// Claims more memory than it has bytes.
    pub(crate) fn claiming(self, memory_size: u64) -> Self {
        Self { memory_size, ..self }
    }
}

pub(crate) struct CoreWriter {
    pub(crate) machine: u16,
    pub(crate) segments: Vec<Segment>,
    pub(crate) notes: Vec<u8>,
}

pub(crate) fn x64() -> CoreWriter {
    CoreWriter { machine: 62, segments: Vec::new(), notes: Vec::new() }
}

pub(crate) fn arm64() -> CoreWriter {
    CoreWriter { machine: 183, ..x64() }
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    while !bytes.len().is_multiple_of(to) {
        bytes.push(0);
    }
}

pub(crate) fn note(name: &[u8], kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((name.len() as u32 + 1).to_le_bytes());
    out.extend((contents.len() as u32).to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(name);
    out.push(0);
    pad(&mut out, 4);
    out.extend(contents);
    pad(&mut out, 4);
    out
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

impl CoreWriter {
    pub(crate) fn segment(mut self, segment: Segment) -> Self {
        self.segments.push(segment);
        self
    }

    pub(crate) fn note(mut self, kind: u32, contents: &[u8]) -> Self {
        self.notes.extend(note(b"CORE", kind, contents));
        self
    }

    /// NT_PRSTATUS with the registers in the kernel's order.
    pub(crate) fn thread(self, tid: u32, signal: u16, registers: &[u64]) -> Self {
        let mut status = vec![0; 112 + 8 * registers.len() + 8];
        put(&mut status, 12, &signal.to_le_bytes());
        put(&mut status, 32, &tid.to_le_bytes());
        for (i, register) in registers.iter().enumerate() {
            put(&mut status, 112 + 8 * i, &register.to_le_bytes());
        }
        self.note(1, &status)
    }

    /// NT_FILE: (start, end, offset in bytes, path).
    pub(crate) fn files(self, files: &[(u64, u64, u64, &str)]) -> Self {
        let mut contents = Vec::new();
        contents.extend((files.len() as u64).to_le_bytes());
        contents.extend(PAGE.to_le_bytes());
        for (start, end, offset, _) in files {
            for value in [*start, *end, offset / PAGE] {
                contents.extend(value.to_le_bytes());
            }
        }
        for (.., path) in files {
            contents.extend(path.as_bytes());
            contents.push(0);
        }
        self.note(0x4649_4c45, &contents)
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let count = self.segments.len() + usize::from(!self.notes.is_empty());
        let long = count >= 0xffff;
        let mut out = vec![0; 64];
        put(&mut out, 0, b"\x7fELF\x02\x01\x01");
        put(&mut out, 16, &4u16.to_le_bytes());
        put(&mut out, 18, &self.machine.to_le_bytes());
        put(&mut out, 20, &1u32.to_le_bytes());
        put(&mut out, 32, &64u64.to_le_bytes());
        put(&mut out, 52, &64u16.to_le_bytes());
        put(&mut out, 54, &56u16.to_le_bytes());
        put(&mut out, 56, &(if long { 0xffff } else { count as u16 }).to_le_bytes());
        let mut offset = 64 + 56 * count as u64;
        if long {
            // Section header 0 behind the program headers: its sh_info is the count.
            put(&mut out, 40, &offset.to_le_bytes());
            put(&mut out, 58, &64u16.to_le_bytes());
            put(&mut out, 60, &1u16.to_le_bytes());
            offset += 64;
        }
        let mut header = |kind: u32, flags: u32, offset: u64, vaddr: u64, file: u64, memory: u64| {
            out.extend(kind.to_le_bytes());
            out.extend(flags.to_le_bytes());
            for value in [offset, vaddr, 0, file, memory, 1] {
                out.extend(value.to_le_bytes());
            }
        };
        if !self.notes.is_empty() {
            header(4, 0, offset, 0, self.notes.len() as u64, 0);
            offset += self.notes.len() as u64;
        }
        for segment in &self.segments {
            header(1, segment.flags, offset, segment.vaddr, segment.data.len() as u64, segment.memory_size);
            offset += segment.data.len() as u64;
        }
        if long {
            let mut section = [0; 64];
            put(&mut section, 44, &(count as u32).to_le_bytes());
            out.extend(section);
        }
        out.extend(&self.notes);
        for segment in &self.segments {
            out.extend(&segment.data);
        }
        out
    }
}

/// Bytes that differ from address to address.
pub(crate) fn pattern(addr: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| byte_at(addr + i)).collect()
}

pub(crate) fn byte_at(addr: u64) -> u8 {
    (addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// How an image's dynamic symbols are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hash {
    Gnu,
    SysV,
}

/// A shared library with two segments: `R` with headers, notes, symbols and constants, `RW` with the dynamic
/// section and data. It has the symbols `alpha`, `beta`, `gamma` at 0x5100, 0x5200, 0x5300 of 8, 16, 24 bytes,
/// and an undefined `delta`.
pub(crate) struct Library {
    pub(crate) file: Vec<u8>,
    /// (address, size in file, size in memory, offset in the file, flags)
    pub(crate) segments: Vec<(u64, u64, u64, u64, u32)>,
    /// Where in the file the words of the dynamic section are that ld.so of glibc relocates.
    pub(crate) addresses: Vec<usize>,
}

pub(crate) const SYMBOLS: [(&str, u64, u64); 3] =
    [("alpha", 0x5100, 8), ("beta", 0x5200, 16), ("gamma", 0x5300, 24)];
pub(crate) const CONSTANTS: u64 = 0x2000;
/// A word of data that is relocated: it holds `bias + 0x2010`; the next one is decided by another file.
pub(crate) const POINTER: u64 = 0x5400;

/// The segment `RW` lies one page further in memory than in the file.
const SHIFT: u64 = PAGE;
const DYNAMIC: u64 = 0x5000;
const SYMTAB: u64 = 0x400;
const STRTAB: u64 = 0x600;
const HASH: u64 = 0x700;
const RELA: u64 = 0x900;

fn gnu_hash(name: &str) -> u32 {
    name.bytes().fold(5381, |h: u32, c| h.wrapping_mul(33).wrapping_add(u32::from(c)))
}

fn sysv_hash(name: &str) -> u32 {
    name.bytes().fold(0, |h: u32, c| {
        let h = h.wrapping_mul(16).wrapping_add(u32::from(c));
        let g = h & 0xf000_0000;
        (h ^ (g >> 24)) & !g
    })
}

pub(crate) fn library(build_id: &[u8], hash: Hash) -> Library {
    let mut file = vec![0; 0x5000];
    let words = |values: &[u64]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &3u16.to_le_bytes());
    put(&mut file, 18, &62u16.to_le_bytes());
    put(&mut file, 32, &64u64.to_le_bytes());
    put(&mut file, 54, &56u16.to_le_bytes());
    put(&mut file, 56, &4u16.to_le_bytes());
    let id = note(b"GNU", 3, build_id);
    let headers: [(u32, u32, u64, u64, u64, u64); 4] = [
        (1, R, 0, 0, 0x3000, 0x3000),
        (1, RW, DYNAMIC - SHIFT, DYNAMIC, PAGE, 2 * PAGE),
        (2, RW, DYNAMIC - SHIFT, DYNAMIC, 0x100, 0x100),
        (4, R, 0x200, 0x200, id.len() as u64, id.len() as u64),
    ];
    for (i, (kind, flags, offset, vaddr, in_file, in_memory)) in headers.into_iter().enumerate() {
        put(&mut file, 64 + 56 * i, &kind.to_le_bytes());
        put(&mut file, 64 + 56 * i + 4, &flags.to_le_bytes());
        put(&mut file, 64 + 56 * i + 8, &words(&[offset, vaddr, vaddr, in_file, in_memory, PAGE]));
    }
    put(&mut file, 0x200, &id);
    // Symbols: 0 is empty, then delta, which is not defined here and so not hashed by GNU, then the three.
    // With GNU hash and one bucket, the order of the chain is that of the symbols.
    let names = ["", "delta", "alpha", "beta", "gamma"];
    let mut string = STRTAB + 1;
    for (i, name) in names.iter().enumerate().skip(1) {
        put(&mut file, string as usize, name.as_bytes());
        let at = SYMTAB as usize + 24 * i;
        put(&mut file, at, &((string - STRTAB) as u32).to_le_bytes());
        if let Some((_, value, size)) = SYMBOLS.iter().find(|(symbol, ..)| symbol == name) {
            put(&mut file, at + 6, &1u16.to_le_bytes());
            put(&mut file, at + 8, &words(&[*value, *size]));
        }
        string += name.len() as u64 + 1;
    }
    let mut table: Vec<u32> = Vec::new();
    let (tag, first) = match hash {
        Hash::Gnu => {
            // One bucket, symbols from 2, one Bloom word that lets everything through.
            table.extend([1, 2, 1, 6, u32::MAX, u32::MAX, 2]);
            table.extend(names[2..].iter().map(|name| gnu_hash(name) & !1));
            *table.last_mut().unwrap() |= 1;
            (0x6fff_fef5, 2)
        }
        Hash::SysV => {
            let buckets = 2;
            table.extend([buckets, names.len() as u32]);
            let mut heads = vec![0; buckets as usize];
            let mut chain = vec![0; names.len()];
            for (i, name) in names.iter().enumerate().skip(1) {
                let bucket = (sysv_hash(name) % buckets) as usize;
                chain[i] = heads[bucket];
                heads[bucket] = i as u32;
            }
            table.extend(heads);
            table.extend(chain);
            (4, 1)
        }
    };
    assert!(first > 0);
    for (i, word) in table.iter().enumerate() {
        put(&mut file, HASH as usize + 4 * i, &word.to_le_bytes());
    }
    // R_X86_64_RELATIVE with addend 0x2010, R_X86_64_64 with symbol 1.
    put(&mut file, RELA as usize, &words(&[POINTER, 8, 0x2010, POINTER + 8, 1 << 32 | 1, 0]));
    let dynamic =
        [(tag, HASH), (5, STRTAB), (6, SYMTAB), (10, 0x100), (11, 24), (7, RELA), (8, 48), (9, 24), (0, 0)];
    let at = (DYNAMIC - SHIFT) as usize;
    let addresses = [0, 1, 2, 5].map(|i| at + 16 * i + 8).to_vec();
    for (i, (tag, value)) in dynamic.into_iter().enumerate() {
        put(&mut file, at + 16 * i, &words(&[tag, value]));
    }
    let constants = pattern(CONSTANTS, 0x1000);
    put(&mut file, CONSTANTS as usize, &constants);
    let segments = vec![(0, 0x3000, 0x3000, 0, R), (DYNAMIC, PAGE, 2 * PAGE, DYNAMIC - SHIFT, RW)];
    Library { file, segments, addresses }
}

impl Library {
    /// The library as loaded at `base`: its dynamic section relocated as glibc does, or left alone as musl does.
    pub(crate) fn loaded(&self, base: u64, glibc: bool) -> Vec<Segment> {
        let mut file = self.file.clone();
        if glibc {
            for &at in &self.addresses {
                let word = u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
                put(&mut file, at, &(word + base).to_le_bytes());
            }
        }
        self.segments
            .iter()
            .map(|&(vaddr, in_file, in_memory, offset, flags)| {
                let mut data = file[offset as usize..(offset + in_file) as usize].to_vec();
                data.resize(in_memory as usize, 0);
                Segment::new(base + vaddr, data).flags(flags)
            })
            .collect()
    }

    /// NT_FILE entries of the library loaded at `base`.
    pub(crate) fn mappings<'a>(&self, base: u64, path: &'a str) -> Vec<(u64, u64, u64, &'a str)> {
        self.segments
            .iter()
            .map(|&(vaddr, in_file, _, offset, _)| (base + vaddr, base + vaddr + in_file, offset, path))
            .collect()
    }
}
