//! The headers of an ELF core file. Layouts: System V ABI, "ELF-64 Object File Format"; elf(5).

use std::path::Path;

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::elf::{EM_AARCH64, EM_X86_64, PT_LOAD, PT_NOTE, ProgramHeader};
use crate::error::Error;
use crate::target::{Arch, Permissions};

/// One PT_LOAD.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) offset: u64,
    pub(super) file_size: u64,
    pub(super) memory_size: u64,
    pub(super) permissions: Permissions,
}

#[derive(Debug)]
pub(super) struct Headers {
    pub(super) arch: Arch,
    pub(super) segments: Vec<Segment>,
    /// (offset, length) of each PT_NOTE.
    pub(super) notes: Vec<(u64, u64)>,
}

const HEADER: usize = 64;
/// `e_phnum` when there are more program headers than it can count: the number is in section header 0.
const PN_XNUM: u16 = 0xffff;

pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Headers, Error> {
    if bytes.is_empty() {
        return Err(Error::Empty { path: path.to_owned() });
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Error::NotElf { path: path.to_owned(), what: looks_like(bytes) });
    }
    let damaged = |what: String| Error::Damaged { path: path.to_owned(), what };
    let (Some(class), Some(data), Some(kind), Some(machine)) =
        (bytes.get(4), bytes.get(5), u16_at(bytes, 16), u16_at(bytes, 18))
    else {
        return Err(damaged(format!("the file ends after {} bytes, inside the ELF header", bytes.len())));
    };
    let other = |what: String| Error::Machine { path: path.to_owned(), what };
    match (*class, *data) {
        (2, 1) => {}
        (1, 1 | 2) => return Err(other("a 32-bit process".to_owned())),
        (2, 2) => return Err(other("a big-endian machine".to_owned())),
        (class, data) => return Err(damaged(format!("unknown ELF class {class} or byte order {data}"))),
    }
    match kind {
        4 => {}
        1 => return Err(not_core(path, "an object file")),
        2 => return Err(not_core(path, "an executable")),
        3 => return Err(not_core(path, "a shared library or executable")),
        other => return Err(not_core(path, &format!("an ELF file of type {other}"))),
    }
    let arch = match machine {
        EM_X86_64 => Arch::X64,
        EM_AARCH64 => Arch::Arm64,
        3 => return Err(other("a 32-bit x86 process".to_owned())),
        40 => return Err(other("a 32-bit arm process".to_owned())),
        22 => return Err(other("an s390x machine".to_owned())),
        21 => return Err(other("a ppc64 machine".to_owned())),
        243 => return Err(other("a RISC-V machine".to_owned())),
        258 => return Err(other("a LoongArch machine".to_owned())),
        n => return Err(other(format!("machine {n}"))),
    };
    if bytes.len() < HEADER {
        return Err(damaged(format!("the file ends after {} bytes, inside the ELF header", bytes.len())));
    }
    let table = u64_at(bytes, 32).unwrap_or_default();
    let entry = usize::from(u16_at(bytes, 54).unwrap_or_default());
    let short = u16_at(bytes, 56).unwrap_or_default();
    if entry < ProgramHeader::SIZE {
        return Err(damaged(format!("a program header is said to have {entry} bytes, it needs 56")));
    }
    let count = if short == PN_XNUM { long_count(bytes).map_err(damaged)? } else { u64::from(short) };
    if count == 0 {
        return Err(damaged("there are no program headers".to_owned()));
    }
    // Sections' sizes come from the file: only what fits into it is allocated for.
    let available = (bytes.len() as u64).saturating_sub(table) / entry as u64;
    if available < count {
        return Err(damaged(format!(
            "{count} program headers at offset {table:#x} don't fit into a file of {} bytes",
            bytes.len()
        )));
    }
    let table = table as usize;
    let mut segments = Vec::new();
    let mut notes = Vec::new();
    for header in (0..count as usize).filter_map(|i| ProgramHeader::parse(bytes.get(table + i * entry..)?)) {
        match header.kind {
            PT_LOAD => segments.push(Segment {
                start: header.vaddr,
                offset: header.offset,
                file_size: header.file_size,
                memory_size: header.memory_size,
                permissions: header.permissions(),
            }),
            PT_NOTE => notes.push((header.offset, header.file_size)),
            _ => {}
        }
    }
    Ok(Headers { arch, segments, notes })
}

/// Section header 0's `sh_info`.
fn long_count(bytes: &[u8]) -> Result<u64, String> {
    let sections = u64_at(bytes, 40).unwrap_or_default();
    let at = usize::try_from(sections).ok().filter(|&at| at != 0).and_then(|at| at.checked_add(44));
    at.and_then(|at| u32_at(bytes, at)).map(u64::from).ok_or_else(|| {
        format!("the number of program headers stands at offset {sections:#x}, which is not in the file")
    })
}

fn not_core(path: &Path, what: &str) -> Error {
    Error::NotCore { path: path.to_owned(), what: what.to_owned() }
}

fn looks_like(bytes: &[u8]) -> String {
    const MAGIC: &[(&[u8], &str)] = &[
        (b"MDMP", "a Windows minidump"),
        (b"MZ", "a PE file (DLL or EXE)"),
        (&[0xcf, 0xfa, 0xed, 0xfe], "a Mach-O file (macOS)"),
        (b"Nettrace", "a .nettrace trace"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd data"),
        (&[0x1f, 0x8b], "gzip data"),
        (&[0x04, 0x22, 0x4d, 0x18], "LZ4 data"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "xz data"),
        (&[0x02, 0x21, 0x4c, 0x18], "LZ4 data of the old format (`lz4 -l`): `lz4 -d` unpacks it"),
        (b"BZh", "bzip2 data"),
        (b"LZIP", "lzip data"),
        (b"PK\x03\x04", "a zip archive"),
    ];
    let first = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| first.starts_with(magic)) {
        (*name).to_owned()
    } else if first.iter().all(|&b| b == 0) {
        "zeros (a file that was never written, or whose blocks were lost)".to_owned()
    } else if first.iter().all(|&b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        "text".to_owned()
    } else {
        let begin: Vec<String> = first.iter().take(8).map(|b| format!("{b:02x}")).collect();
        format!("something unknown, which begins with the bytes {}", begin.join(" "))
    }
}
