//! Files of `/proc/PID`. Layout: proc(5).

use std::fs;
use std::path::Path;

/// Length of a clock tick in the files of `/proc`: USER_HZ is 100 on every architecture that .NET runs on.
const TICK_MICROS: u64 = 10_000;

/// From `stat` and `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// When it started, in ticks since the system did: with its id it names the process.
    pub(super) started: u64,
    pub(super) cpu_micros: u64,
    pub(super) major_faults: u64,
    pub(super) threads: u64,
    pub(super) rss: Option<u64>,
    pub(super) rss_anonymous: Option<u64>,
    pub(super) swap: Option<u64>,
}

impl Reading {
    pub(super) fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name in parentheses may hold anything, parentheses too.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Fields are numbered from 1 and the first of these is the third.
        let field = |number: usize| -> Option<u64> { fields.get(number - 3)?.parse().ok() };
        let bytes = |name: &str| kilobytes(status, name);
        Some(Self {
            started: field(22)?,
            cpu_micros: field(14)?.saturating_add(field(15)?).saturating_mul(TICK_MICROS),
            major_faults: field(12)?,
            threads: field(20)?,
            rss: bytes("VmRSS:"),
            rss_anonymous: bytes("RssAnon:"),
            swap: bytes("VmSwap:"),
        })
    }
}

/// Bytes of a line such as `VmRSS:    100 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// From `smaps_rollup`.
pub(super) fn pss(smaps_rollup: &str) -> Option<u64> {
    kilobytes(smaps_rollup, "Pss:")
}

/// Number of open file descriptors of a process (its folder in `/proc`).
pub(super) fn fds(process: &Path) -> Option<u64> {
    let dir = process.join("fd");
    // Linux 6.2 and later tell the number as the folder's size: no need to list thousands of them.
    match fs::metadata(&dir) {
        Ok(metadata) if metadata.len() > 0 && process.starts_with("/proc") => Some(metadata.len()),
        Ok(_) => Some(fs::read_dir(&dir).ok()?.count() as u64),
        Err(_) => None,
    }
}
