//! What is known of a finished dump.

use std::io::{self, Write};

use dnd_contract::escape;
use dnd_ipc::DumpType;
use serde::Serialize;

/// The facts of `dnd dump collect`; `docs/json/dump-collect.md`.
#[derive(Debug, Clone, Serialize)]
pub struct DumpFacts {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Version of its runtime, where that is known.
    pub runtime_version: Option<String>,
    /// `full`, `heap`, `mini`, `triage`.
    pub dump_type: &'static str,
    /// The file, to be opened from here.
    pub path: String,
    /// The file as the process sees it: another path when it has another root.
    pub path_in_target: String,
    /// Size in bytes.
    pub size: u64,
    /// Time that the runtime took.
    pub elapsed_ms: u64,
    /// The crash report beside it, to be opened from here.
    pub crash_report: Option<String>,
    /// What to keep in mind.
    pub warnings: Vec<String>,
}

/// The name of a type in text and JSON.
pub(crate) fn type_name(dump_type: DumpType) -> &'static str {
    match dump_type {
        DumpType::Mini => "mini",
        DumpType::Heap => "heap",
        DumpType::Triage => "triage",
        DumpType::Full => "full",
    }
}

/// Writes how it ended, behind [`Prepared::announcement`](crate::Prepared::announcement).
///
/// # Errors
/// When `out` fails.
pub fn write_text(out: &mut dyn Write, facts: &DumpFacts) -> io::Result<()> {
    let seconds = std::time::Duration::from_millis(facts.elapsed_ms).as_secs_f64();
    let path = escape(&facts.path_in_target);
    writeln!(out, "Complete: {path}, {} in {seconds:.1} s", size(facts.size))?;
    if let Some(report) = &facts.crash_report {
        writeln!(out, "Crash report: {}", escape(report))?;
    }
    if facts.path != facts.path_in_target {
        writeln!(out, "The process sees another file system; from here the file is {}", escape(&facts.path))?;
    }
    Ok(())
}

/// A size for eyes: three digits and a decimal unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = UNITS[0];
    for next in UNITS.into_iter().skip(1) {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if value < 10.0 { format!("{value:.2} {unit}") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345_678, "12.3 MB"),
            (1_870_000_000, "1.87 GB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn text() {
        let mut facts = DumpFacts {
            pid: 7,
            name: "x".into(),
            runtime_version: None,
            dump_type: "full",
            path: "/a".into(),
            path_in_target: "/a".into(),
            size: 5_000_000,
            elapsed_ms: 1234,
            crash_report: None,
            warnings: vec![],
        };
        let text = |facts: &DumpFacts| {
            let mut out = Vec::new();
            write_text(&mut out, facts).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(&facts), "Complete: /a, 5.00 MB in 1.2 s\n");
        facts.path = "/proc/7/root/a".into();
        facts.crash_report = Some("/proc/7/root/a.crashreport.json".into());
        assert!(text(&facts).ends_with(
            "Crash report: /proc/7/root/a.crashreport.json\n\
             The process sees another file system; from here the file is /proc/7/root/a\n"
        ));
    }
}
