//! How a process comes to hold a .NET runtime, told from what it has mapped and from the file it runs.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::procfs::{ProcFs, without_deleted};

/// Where a process's runtime comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// CoreCLR as a library.
    CoreClr {
        /// The mapped `libcoreclr.so`, as the target names it.
        library: PathBuf,
    },
    /// CoreCLR inside the executable (self-contained single file, .NET 6 and later).
    SingleFile,
    /// Compiled ahead of time: no CLR.
    NativeAot,
}

/// What decides between the single file and NativeAOT: a name among the executable's exported symbols.
/// (dotnet/runtime `src/native/corehost/apphost/static`, `src/coreclr/nativeaot/Runtime/DebugHeader.cpp`.)
const SINGLE_FILE: &[u8] = b"\0DotNetRuntimeInfo\0";
const NATIVE_AOT: &[u8] = b"\0DotNetRuntimeDebugHeader\0";

/// Longest dynamic string table that is read. Those of .NET executables have a few KB.
const MAX_STRINGS: u64 = 16 << 20;

/// `Ok(None)`: there is no runtime. `Err`: the process may not be looked into, or is gone.
pub(super) fn host(proc: &ProcFs, pid: u32) -> Result<Option<Host>, Hidden> {
    let maps = File::open(proc.path(pid, "maps")).map_err(|_| Hidden)?;
    if let Some(library) = mapped_coreclr(BufReader::with_capacity(16 * 1024, maps)) {
        return Ok(Some(Host::CoreClr { library }));
    }
    let exe = File::open(proc.path(pid, "exe")).map_err(|_| Hidden)?;
    Ok(dynamic_strings(&exe).and_then(|names| {
        let has = |name: &[u8]| names.windows(name.len()).any(|w| w == name);
        if has(SINGLE_FILE) {
            Some(Host::SingleFile)
        } else if has(NATIVE_AOT) {
            Some(Host::NativeAot)
        } else {
            None
        }
    }))
}

/// The process can't be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hidden;

/// The runtime's library that a process has loaded. Who only reads the file (an analysis of a dump) has neither code nor
/// variables of it; a process under an emulator has no code that this system could execute, but its variables.
fn mapped_coreclr(maps: impl BufRead) -> Option<PathBuf> {
    // `start-end perms offset device inode  path`; a newline in a path is written as \012.
    maps.split(b'\n').map_while(Result::ok).find_map(|line| {
        let permissions = line.split(|&b| b == b' ').nth(1)?;
        if !permissions.iter().any(|p| matches!(p, b'w' | b'x')) {
            return None;
        }
        let start = line.iter().position(|&b| b == b'/')?;
        let path = line.get(start..)?;
        let plain = path.strip_suffix(b" (deleted)").unwrap_or(path);
        plain
            .ends_with(b"/libcoreclr.so")
            .then(|| without_deleted(PathBuf::from(std::ffi::OsStr::from_bytes(path))))
    })
}

/// The dynamic string table of an ELF file (64 bit, little endian), found as the loader finds it; `None` when the file
/// is no such thing, whatever else it is.
fn dynamic_strings(file: &File) -> Option<Vec<u8>> {
    let read = |offset: u64, len: usize| {
        let mut buf = vec![0; len];
        file.read_exact_at(&mut buf, offset).ok()?;
        Some(buf)
    };
    let head = read(0, 64)?;
    // ELF64, little endian: e_ident; e_phoff at 32, e_phentsize at 54, e_phnum at 56.
    if head.get(..6)? != b"\x7fELF\x02\x01" || u16_at(&head, 54)? != 56 {
        return None;
    }
    let segments = read(u64_at(&head, 32)?, usize::from(u16_at(&head, 56)?) * 56)?;
    let segments: Vec<Segment> =
        segments.as_chunks::<56>().0.iter().filter_map(|b| Segment::parse(b)).collect();
    let dynamic = segments.iter().find(|s| s.kind == 2)?;
    let dynamic = read(dynamic.offset, usize::try_from(dynamic.size.min(1 << 16)).ok()?)?;
    // DT_STRTAB = 5 (an address), DT_STRSZ = 10.
    let entry = |tag: u64| {
        let entries = dynamic.as_chunks::<16>().0;
        entries.iter().find(|e| u64_at(*e, 0) == Some(tag)).and_then(|e| u64_at(e, 8))
    };
    let (address, size) = (entry(5)?, entry(10)?);
    let load = segments
        .iter()
        .find(|s| s.kind == 1 && address.checked_sub(s.address).is_some_and(|d| d < s.size))?;
    let offset = load.offset.checked_add(address.checked_sub(load.address)?)?;
    if size > MAX_STRINGS || size > file.metadata().ok()?.len() {
        return None;
    }
    read(offset, usize::try_from(size).ok()?)
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

impl Segment {
    fn parse(b: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32::from_le_bytes(*b.first_chunk()?),
            offset: u64_at(b, 8)?,
            address: u64_at(b, 16)?,
            size: u64_at(b, 32)?,
        })
    }
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    b.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_runtime_in_maps() {
        let maps = b"5580-5590 r--p 00000000 fd:00 1  /usr/bin/dotnet\n\
            7f00-7f10 rw-p 00000000 00:00 0 \n\
            7f10-7f20 r--p 00000000 fd:00 9  /x y/3.1.23/libcoreclr.so (deleted)\n\
            7f20-7f30 r-xp 00010000 fd:00 9  /x y/3.1.23/libcoreclr.so (deleted)\n";
        assert_eq!(mapped_coreclr(&maps[..]), Some(PathBuf::from("/x y/3.1.23/libcoreclr.so")));
        assert_eq!(mapped_coreclr(&b"7f10-7f20 r-xp 0 fd:00 9 /x/notlibcoreclr.so\n"[..]), None);
        assert_eq!(mapped_coreclr(&b"7f10-7f20 r-xp 0 fd:00 9 /libcoreclr.so.dbg\n"[..]), None);
        // Under an emulator, and in a process that reads the file.
        let library = Some(PathBuf::from("/x/libcoreclr.so"));
        assert_eq!(mapped_coreclr(&b"7f10-7f20 rw-p 0 fd:00 9 /x/libcoreclr.so\n"[..]), library);
        assert_eq!(mapped_coreclr(&b"7f10-7f20 r--s 0 fd:00 9 /x/libcoreclr.so\n"[..]), None);
    }

    #[test]
    fn the_string_table_of_this_program() {
        let file = File::open("/proc/self/exe").unwrap();
        if let Some(strings) = dynamic_strings(&file) {
            assert!(strings.windows(6).any(|w| w == b"\0read\0"));
        }
        assert_eq!(dynamic_strings(&File::open("/proc/self/stat").unwrap()), None);
        assert_eq!(dynamic_strings(&File::open("/proc/self").unwrap()), None);
    }

    #[test]
    fn an_ordinary_program_is_none() {
        assert_eq!(host(&ProcFs::default(), std::process::id()), Ok(None));
        assert_eq!(host(&ProcFs::default(), u32::MAX), Err(Hidden));
    }
}
