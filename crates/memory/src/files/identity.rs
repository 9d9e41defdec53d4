//! Whether a file is the one that a target had loaded, and which of its bytes are still those of memory.

use dnd_metadata::{Layout, Pe, directory};

use super::Verdict;
use crate::bytes::{u16_at, u32_at};
use crate::corefile::Core;
use crate::elf::{ElfImage, PT_LOAD, Raw};
use crate::map::MappedFile;
use crate::runs::Run;
use crate::target::{FileMapping, Memory};

pub(super) struct Checked {
    pub(super) verdict: Verdict,
    pub(super) ranges: Vec<Run>,
}

/// Compares `file` with the image at `base`, whose mappings are given; the error says why it can't be used.
pub(super) fn check(
    core: &Core,
    base: u64,
    mappings: &[&FileMapping],
    file: &MappedFile,
    unchecked: bool,
) -> Result<Checked, String> {
    let bytes = file.bytes();
    if bytes.starts_with(b"\x7fELF") {
        check_elf(core, base, mappings, bytes, unchecked)
    } else if bytes.starts_with(b"MZ") {
        check_pe(core, base, mappings, bytes, unchecked)
    } else {
        Err("it is neither an ELF nor a PE image, so it can't be told whether it is the same file".to_owned())
    }
}

/// What to do when the dump has nothing to compare with.
fn without_proof(unchecked: bool, why: &str) -> Result<Verdict, String> {
    if unchecked {
        Ok(Verdict::Unchecked(why.to_owned()))
    } else {
        Err(format!("{why}, so it can't be told whether it is the same file"))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn check_elf(
    core: &Core,
    base: u64,
    mappings: &[&FileMapping],
    bytes: &[u8],
    unchecked: bool,
) -> Result<Checked, String> {
    // The file's own headers, as if it lay where the image does.
    let image = Raw::headers(bytes, base).map_err(|e| e.to_string())?;
    let file = Raw::new(bytes, &image);
    if image.has_text_relocations(&file) {
        return Err("its code is relocated when it is loaded".to_owned());
    }
    let file_id = image.build_id(&file).ok().flatten();
    let loaded_id = ElfImage::at(core, base).and_then(|loaded| loaded.build_id(core));
    let verdict = match (loaded_id, file_id) {
        (Ok(Some(loaded)), Some(file)) if loaded == file => {
            Verdict::Used(format!("same build-id {}", hex(&file)))
        }
        (Ok(Some(loaded)), Some(file)) => {
            return Err(format!("it has build-id {}, the target had loaded {}", hex(&file), hex(&loaded)));
        }
        (Ok(Some(loaded)), None) => {
            return Err(format!("it has no build-id, the target had loaded {}", hex(&loaded)));
        }
        (Ok(None), _) => without_proof(unchecked, "the loaded image has no build-id")?,
        (Err(_), _) => without_proof(unchecked, "the dump lacks the image's headers")?,
    };
    let relro = image.relro();
    let mut ranges = Vec::new();
    for (span, header) in image.segments() {
        let overlaps_relro =
            relro.as_ref().is_some_and(|relro| relro.start < span.end && span.start < relro.end);
        if header.kind != PT_LOAD || header.permissions().write || overlaps_relro {
            continue;
        }
        for mapping in mappings {
            // Whole pages are mapped: what lies before and behind the segment in its pages is the file's, too.
            let (start, end) = (mapping.start.max(span.start & !0xfff), mapping.end.min(page_up(span.end)));
            let Some(offset) =
                start.checked_sub(mapping.start).and_then(|into| mapping.offset.checked_add(into))
            else {
                continue;
            };
            // The same byte of the file by the segment and by the mapping, or the two don't belong together.
            let expected = header.offset.wrapping_add(start.wrapping_sub(span.start));
            let end = end.min(start.saturating_add((bytes.len() as u64).saturating_sub(offset)));
            if start < end && offset == expected {
                ranges.push(Run { start, end, offset });
            }
        }
    }
    Ok(Checked { verdict, ranges: tidy(ranges) })
}

fn page_up(addr: u64) -> u64 {
    addr.checked_add(0xfff).map_or(u64::MAX, |addr| addr & !0xfff)
}

fn tidy(mut ranges: Vec<Run>) -> Vec<Run> {
    ranges.sort_by_key(|range| range.start);
    let mut end = 0;
    ranges.retain(|range| {
        let keep = range.start >= end;
        end = end.max(range.end);
        keep
    });
    ranges
}

fn check_pe(
    core: &Core,
    base: u64,
    mappings: &[&FileMapping],
    bytes: &[u8],
    unchecked: bool,
) -> Result<Checked, String> {
    let file = Pe::parse(bytes, Layout::File).map_err(|e| e.to_string())?;
    let in_dump = |at: u64, buf: &mut [u8]| core.read(base.wrapping_add(at), buf).is_ok();
    let verdict = match Pe::parse(&in_dump, Layout::Mapped) {
        Ok(loaded) => {
            let [ours, theirs] = [&file, &loaded].map(|pe| (pe.time_date_stamp, pe.size_of_image));
            if ours != theirs {
                return Err(format!(
                    "it has time stamp {:08x} and image size {:#x}, the target had loaded {:08x} and {:#x}",
                    ours.0, ours.1, theirs.0, theirs.1
                ));
            }
            Verdict::Used(format!("same time stamp {:08x} and image size {:#x}", ours.0, ours.1))
        }
        Err(dnd_metadata::Error::Missing { .. }) => {
            without_proof(unchecked, "the dump lacks the image's headers")?
        }
        Err(e) => return Err(format!("what the target had loaded is no PE image any more: {e}")),
    };
    // In file offsets, so that it holds for both layouts: what is written to or relocated after loading.
    let mut changed: Vec<(u64, u64)> = file
        .sections
        .iter()
        .filter(|section| section.is_writable())
        .map(|section| {
            (section.raw_offset.into(), u64::from(section.raw_offset) + u64::from(section.raw_size))
        })
        .collect();
    relocated_pages(&file, bytes, &mut changed).map_err(str::to_owned)?;
    changed.sort_unstable();
    let mut ranges = Vec::new();
    for mapping in mappings {
        let mut at = mapping.offset;
        let size = mapping.end - mapping.start;
        let end = mapping.offset.saturating_add(size).min(bytes.len() as u64);
        let mut keep = |from: u64, to: u64| {
            if from < to {
                let start = mapping.start + (from - mapping.offset);
                ranges.push(Run { start, end: start + (to - from), offset: from });
            }
        };
        for &(from, to) in &changed {
            if to <= at || from >= end {
                continue;
            }
            keep(at, from);
            at = at.max(to);
        }
        keep(at, end);
    }
    Ok(Checked { verdict, ranges: tidy(ranges) })
}

/// Adds the pages, in file offsets, that base relocations touch.
fn relocated_pages(pe: &Pe, bytes: &[u8], out: &mut Vec<(u64, u64)>) -> Result<(), &'static str> {
    let Some(table) = pe.directory(directory::RELOCATIONS) else { return Ok(()) };
    let damaged = "its base relocations are damaged";
    let start = pe.offset(table.rva).and_then(|at| usize::try_from(at).ok()).ok_or(damaged)?;
    let mut blocks = bytes.get(start..).and_then(|rest| rest.get(..table.size as usize)).ok_or(damaged)?;
    while let (Some(page), Some(size)) = (u32_at(blocks, 0), u32_at(blocks, 4)) {
        // The table may end with zeros up to its size.
        if size == 0 {
            break;
        }
        let block = blocks.get(..size as usize).filter(|block| block.len() >= 8).ok_or(damaged)?;
        let entries = block.get(8..).unwrap_or_default().as_chunks::<2>().0;
        // Kind 0 only fills up.
        if entries.iter().any(|entry| u16_at(entry, 0).unwrap_or_default() >> 12 != 0) {
            // A word that begins on this page may end on the next one.
            for rva in [Some(page), page.checked_add(0x1000)].into_iter().flatten() {
                if let Some(offset) = pe.offset(rva) {
                    out.push((offset, offset + 0x1000));
                }
            }
        }
        blocks = blocks.get(size as usize..).unwrap_or_default();
    }
    Ok(())
}
