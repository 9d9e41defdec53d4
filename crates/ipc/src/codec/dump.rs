//! `GenerateCoreDump` 1 to 3.

use super::request::EncodeError;
use super::wire::{put_string, put_u32};

/// What a dump holds. The numbers are the runtime's (`src/coreclr/inc/clrconfignative`, `DumpType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DumpType {
    /// Threads, stacks, modules; no heap.
    Mini = 1,
    /// What `Mini` holds and the garbage-collected heap.
    Heap = 2,
    /// What `Mini` holds, without personal information such as paths.
    Triage = 3,
    /// All memory of the process.
    Full = 4,
}

/// What the runtime does besides writing the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DumpFlags {
    /// Log to the target's own console.
    pub log: bool,
    /// Log verbosely to the target's own console.
    pub verbose: bool,
    /// Write `<path>.crashreport.json` too.
    pub crash_report: bool,
}

impl DumpFlags {
    fn bits(self) -> u32 {
        u32::from(self.log) | u32::from(self.verbose) << 1 | u32::from(self.crash_report) << 2
    }
}

/// A dump to be written by the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpRequest {
    /// Absolute path, **as the target sees it**: it is the target's runtime that writes the file.
    pub path: String,
    /// What the dump holds.
    pub dump_type: DumpType,
    /// What else to do.
    pub flags: DumpFlags,
}

impl DumpRequest {
    /// The payload; `version` 1 knows only one flag, as a number.
    pub(super) fn encode(&self, version: u8) -> Result<Vec<u8>, EncodeError> {
        if !self.path.starts_with('/') {
            return Err(EncodeError::RelativePath(self.path.clone()));
        }
        let mut out = Vec::new();
        put_string(&mut out, "dump path", &self.path)?;
        put_u32(&mut out, self.dump_type as u32);
        match version {
            1 if self.flags.crash_report => return Err(EncodeError::CrashReport),
            1 => put_u32(&mut out, u32::from(self.flags.log || self.flags.verbose)),
            _ => put_u32(&mut out, self.flags.bits()),
        }
        Ok(out)
    }
}
