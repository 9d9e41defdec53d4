//! Whether a file is the one that a target had loaded, and which of its bytes are still those of memory.

use dnd_metadata::{Layout, Pe, directory};

use super::{Verdict, bundle};
use crate::bytes::{u32_at, u64_at};
use crate::corefile::Core;
use crate::elf::{ElfImage, Raw};
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
        check_elf(core, base, mappings, bytes)
    } else if bytes.starts_with(b"MZ") {
        check_pe(core, base, mappings, bytes, unchecked)
    } else {
        Err("it is neither an ELF nor a PE image, so it can't be told whether it is the same file".to_owned())
    }
}

/// Why a file can't be taken for the one that was loaded when the dump has nothing to compare.
fn unproven(why: &str) -> String {
    format!("{why}, so it can't be told whether it is the same file")
}

/// The same for files that the caller may want nevertheless.
fn without_proof(unchecked: bool, why: &str) -> Result<Verdict, String> {
    if unchecked { Ok(Verdict::Unchecked(why.to_owned())) } else { Err(unproven(why)) }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn check_elf(core: &Core, base: u64, mappings: &[&FileMapping], bytes: &[u8]) -> Result<Checked, String> {
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
        (Ok(None), _) => return Err(unproven("the loaded image has no build-id")),
        (Err(_), _) => return Err(unproven("the dump lacks the image's headers")),
    };
    let mut ranges = Vec::new();
    let mut others = Vec::new();
    for mapping in mappings {
        match segment_run(&image, mapping, bytes) {
            Some(Some(run)) => ranges.push(run),
            Some(None) => {}
            None => others.push(mapping),
        }
    }
    if !others.is_empty() && bundle::is_same(core, &image, bytes) {
        ranges.extend(others.iter().filter_map(|mapping| bundle::readable(core, mapping, bytes)));
    }
    Ok(Checked { verdict, ranges: tidy(ranges) })
}

/// A piece of a read-only segment that is mapped apart from the rest has other rights than it, or had them once:
/// single-file hosts change a page of their constants so. Pieces up to this size are not taken from the file.
const SMALL_PIECE: u64 = 0x1_0000;

/// Which bytes of a mapping of an ELF segment are still those of the file; `None` when it is of no segment.
fn segment_run(image: &ElfImage, mapping: &FileMapping, bytes: &[u8]) -> Option<Option<Run>> {
    let (span, header) = image.segments().find(|(span, header)| {
        // The same byte of the file by the segment and by the mapping, or the two don't belong together.
        let expected = header.offset.wrapping_add(mapping.start.wrapping_sub(span.start));
        (span.start & !0xfff) <= mapping.start && mapping.start < span.end && mapping.offset == expected
    })?;
    let relro = image.relro().is_some_and(|relro| relro.start < span.end && span.start < relro.end);
    // Whole pages are mapped: what lies before and behind the segment in its pages is the file's, too.
    let end = mapping.end.min(page_up(span.end));
    let end = end.min(mapping.start.saturating_add((bytes.len() as u64).saturating_sub(mapping.offset)));
    let whole = mapping.start == span.start & !0xfff && mapping.end >= span.end;
    let small = !whole && mapping.end - mapping.start <= SMALL_PIECE;
    let usable = !header.permissions().write && !relro && !small && mapping.start < end;
    Some(usable.then_some(Run { start: mapping.start, end, offset: mapping.offset }))
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
    let relocations = Relocations::read(&file, bytes)?;
    // A file that is mapped whole is only read; one that is loaded is mapped in parts, and relocated.
    let len = bytes.len() as u64;
    let whole = |mapping: &&&FileMapping| mapping.offset == 0 && mapping.end - mapping.start == page_up(len);
    let flat = mappings.iter().find(whole).filter(|_| mappings.len() == 1).is_some();
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
            let (same, all) = if flat { (0, 0) } else { relocations.compare(core, base, &file, bytes) };
            if same >= MIN_WORDS && same >= all / 2 {
                Verdict::Used(format!("{same} of {all} relocated words are those of the file"))
            } else if all >= MIN_WORDS {
                // No disproof: of a small image every relocated word can be a cell that the runtime has filled in.
                without_proof(
                    unchecked,
                    &format!("only {same} of {all} relocated words are those of the file"),
                )?
            } else if mappings.iter().any(|m| m.offset.saturating_add(m.end - m.start) > page_up(len)) {
                return Err(format!("it has {len} bytes, the target had mapped more"));
            } else {
                without_proof(unchecked, "the dump lacks the image's headers")?
            }
        }
        Err(e) => return Err(format!("what the target had loaded is no PE image any more: {e}")),
    };
    let changed = if flat { Vec::new() } else { changed_parts(&file, &relocations) };
    let mut ranges = Vec::new();
    for mapping in mappings {
        let mut at = mapping.offset;
        let end = mapping.offset.saturating_add(mapping.end - mapping.start).min(len);
        let mut keep = |from: u64, to: u64| {
            if from < to {
                let start = mapping.start + (from - mapping.offset);
                ranges.push(Run { start, end: start + (to - from), offset: from });
            }
        };
        for &(from, to) in changed.iter().filter(|&&(from, to)| from < end && to > mapping.offset) {
            keep(at, from);
            at = at.max(to);
        }
        keep(at, end);
    }
    Ok(Checked { verdict, ranges: tidy(ranges) })
}

/// Relocated words that must be equal to take an image without its headers for the one of a file. The runtime
/// itself changes some of them (the cells of imports), so not all will be.
const MIN_WORDS: usize = 16;

/// In file offsets, so that it holds for both layouts: what is written to or relocated after loading.
fn changed_parts(pe: &Pe, relocations: &Relocations) -> Vec<(u64, u64)> {
    let writable = pe.sections.iter().filter(|section| section.is_writable());
    let mut parts: Vec<(u64, u64)> = writable
        .map(|section| {
            (section.raw_offset.into(), u64::from(section.raw_offset) + u64::from(section.raw_size))
        })
        .collect();
    for &(page, _) in &relocations.blocks {
        // A word that begins on this page may end on the next one. What lies beside these bytes in the file belongs to
        // another page of the image, unless it is of the same section.
        for section in &pe.sections {
            let start = u64::from(section.rva);
            let from = start.max(page.into());
            let to = (start + u64::from(section.raw_size)).min(u64::from(page) + 0x2000);
            if from < to {
                let raw = u64::from(section.raw_offset);
                parts.push((raw + (from - start), raw + (to - start)));
            }
        }
    }
    parts.sort_unstable();
    parts
}

/// The base relocations of a PE file: pages, and the words in them.
struct Relocations<'a> {
    blocks: Vec<(u32, &'a [[u8; 2]])>,
}

impl<'a> Relocations<'a> {
    fn read(pe: &Pe, bytes: &'a [u8]) -> Result<Self, String> {
        let mut out = Self { blocks: Vec::new() };
        let Some(table) = pe.directory(directory::RELOCATIONS) else { return Ok(out) };
        let damaged = || "its base relocations are damaged".to_owned();
        let start = pe.offset(table.rva).and_then(|at| usize::try_from(at).ok()).ok_or_else(damaged)?;
        let blocks = bytes.get(start..).and_then(|rest| rest.get(..table.size as usize));
        let mut blocks = blocks.ok_or_else(damaged)?;
        while let (Some(page), Some(size)) = (u32_at(blocks, 0), u32_at(blocks, 4)) {
            // The table may end with zeros up to its size.
            if size == 0 {
                break;
            }
            let block = blocks.get(..size as usize).and_then(|block| block.get(8..)).ok_or_else(damaged)?;
            out.blocks.push((page, block.as_chunks().0));
            blocks = blocks.get(size as usize..).unwrap_or_default();
        }
        Ok(out)
    }

    /// How many of the relocated 64-bit words that the dump has are the file's, moved to `base`; and how many it has.
    fn compare(&self, core: &Core, base: u64, pe: &Pe, bytes: &[u8]) -> (usize, usize) {
        const DIR64: u16 = 10;
        let moved = base.wrapping_sub(pe.image_base);
        let (mut same, mut all) = (0, 0);
        for (page, entries) in &self.blocks {
            for entry in
                entries.iter().map(|entry| u16::from_le_bytes(*entry)).filter(|entry| entry >> 12 == DIR64)
            {
                let Some(rva) = page.checked_add((entry & 0xfff).into()) else { continue };
                let Ok(loaded) = core.u64(base.wrapping_add(rva.into())) else { continue };
                let offset = pe.offset(rva).and_then(|offset| usize::try_from(offset).ok());
                let Some(word) = offset.and_then(|offset| u64_at(bytes, offset)) else { continue };
                all += 1;
                same += usize::from(word.wrapping_add(moved) == loaded);
            }
        }
        (same, all)
    }
}
