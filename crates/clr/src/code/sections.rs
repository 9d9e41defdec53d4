//! Sections of a ReadyToRun image.
//!
//! Source: `inc/readytorun.h`, `docs/design/coreclr/botr/readytorun-format.md`.

use dnd_memory::Memory;

use crate::error::{Error, Reading};

/// `ReadyToRunSectionType::ExceptionInfo`.
pub(super) const EXCEPTION_INFO: u32 = 104;
/// `ReadyToRunSectionType::DebugInfo`.
pub(super) const DEBUG_INFO: u32 = 105;
/// From this version of the format on (.NET 10) maps of debug info are packed by bits.
pub(super) const PACKED_BOUNDS_VERSION: u16 = 16;

/// `READYTORUN_SIGNATURE`.
const SIGNATURE: u32 = 0x0052_5452;
const MAX_SECTIONS: u32 = 1 << 10;

/// What an image's header says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Version of the format.
    pub(super) major_version: u16,
}

/// A section: offset in the image, and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) rva: u32,
    pub(super) size: u32,
}

/// The section of a kind of the image at `image`; `None` when it has none or is no ReadyToRun image.
///
/// # Errors
/// [`Error::Missing`] when the headers are not there.
pub(super) fn find(memory: &dyn Memory, image: u64, kind: u32) -> Result<Option<(Header, Section)>, Error> {
    let what = "the headers of a ReadyToRun image";
    let half = |at: u64| memory.u32(image.wrapping_add(at)).reading(what);
    let pe = u64::from(half(0x3c)?);
    // The 15th data directory of a PE32+ optional header: the CLI header, with the ReadyToRun header at 64.
    let cli = u64::from(half(pe + 24 + 112 + 8 * 14)?);
    let at = u64::from(half(cli + 64)?);
    if half(at)? != SIGNATURE {
        return Ok(None);
    }
    let header = Header { major_version: half(at + 4)? as u16 };
    let count = half(at + 12)?.min(MAX_SECTIONS);
    for i in 0..u64::from(count) {
        let section = at + 16 + 12 * i;
        if half(section)? == kind {
            return Ok(Some((header, Section { rva: half(section + 4)?, size: half(section + 8)? })));
        }
    }
    Ok(None)
}
