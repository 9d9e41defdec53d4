//! Assemblies inside a single-file app: parts of its executable that are mapped besides the ELF segments.
//! Layout: dotnet/runtime src/native/corehost/bundle (marker.cpp, header.h).

use dnd_metadata::{Layout, Pe};
use memchr::memmem;

use crate::bytes::u64_at;
use crate::corefile::Core;
use crate::elf::ElfImage;
use crate::runs::Run;
use crate::target::{FileMapping, Memory};

/// Stands in the host's data behind the offset of the bundle's header, which is 0 in a host without a bundle.
const MARKER: [u8; 32] = [
    0x8b, 0x12, 0x02, 0xb9, 0x6a, 0x61, 0x20, 0x38, 0x72, 0x7b, 0x93, 0x02, 0x14, 0xd7, 0xa0, 0x32, 0x13,
    0xf5, 0xb9, 0xe6, 0xef, 0xae, 0x33, 0x18, 0xee, 0x3b, 0x2d, 0xce, 0x24, 0xb3, 0x6a, 0xae,
];

/// How far into a mapping an assembly may begin: the runtime maps from a multiple of 64 KB.
const ALIGNMENT: usize = 0x1_0000;

/// Whether the target's process ran the bundle of this file. All apps of one runtime version share the host and its
/// build-id; the place of the bundle's header, behind all its files, differs.
pub(super) fn is_same(core: &Core, image: &ElfImage, bytes: &[u8]) -> bool {
    let Some(at) = memmem::find(bytes, &MARKER).and_then(|at| at.checked_sub(8)) else { return false };
    let Some(header) = u64_at(bytes, at).filter(|&header| header != 0) else { return false };
    let offset = at as u64;
    image.segments().any(|(span, segment)| {
        let into = offset.checked_sub(segment.offset).filter(|&into| into < segment.file_size);
        into.is_some_and(|into| core.u64(span.start.wrapping_add(into)) == Ok(header))
    })
}

/// Which bytes of a mapping of the bundle are those of the file: all, when an assembly is mapped as it is in the
/// file; its headers, when it is loaded section by section.
pub(super) fn readable(core: &Core, mapping: &FileMapping, bytes: &[u8]) -> Option<Run> {
    let from = usize::try_from(mapping.offset).ok()?;
    let here = bytes.get(from..)?;
    let len = (mapping.end - mapping.start).min(here.len() as u64);
    let (skip, pe) = (0..ALIGNMENT.min(here.len())).step_by(16).find_map(|skip| {
        let image = here.get(skip..).filter(|image| image.starts_with(b"MZ"))?;
        Some((skip as u64, Pe::parse(image, Layout::File).ok()?))
    })?;
    // Where the dump has the headers, they must be the same.
    let in_dump =
        |at: u64, buf: &mut [u8]| core.read(mapping.start.wrapping_add(skip).wrapping_add(at), buf).is_ok();
    if let Ok(loaded) = Pe::parse(&in_dump, Layout::File)
        && (loaded.time_date_stamp, loaded.size_of_image) != (pe.time_date_stamp, pe.size_of_image)
    {
        return None;
    }
    let raw_end = pe.sections.iter().map(|s| u64::from(s.raw_offset) + u64::from(s.raw_size)).max()?;
    let len = if len >= skip + raw_end { len } else { len.min(skip + u64::from(pe.size_of_headers)) };
    Some(Run { start: mapping.start, end: mapping.start + len, offset: mapping.offset })
}
