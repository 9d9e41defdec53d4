//! The facts as text.

use std::io::{self, Write};

use dnd_clr::descriptor::DescriptorSource;
use dnd_contract::escape;
use dnd_memory::Verdict;

use super::{ArgumentsFrom, DumpInfo, FilePages, RuntimeFacts, Severity, Signal, TakenFrom};

/// Writes the facts for people: a name and its value on each line.
///
/// # Errors
/// Those of `out`.
pub fn write_text(out: &mut dyn Write, info: &DumpInfo) -> io::Result<()> {
    let mut line = |name: &str, value: &str| match name {
        "" => writeln!(out, "{:12}{}", "", escape(value)),
        name => writeln!(out, "{:12}{}", format!("{name}:"), escape(value)),
    };
    line("File", &format!("{} ({})", info.file.path, size(info.file.bytes)))?;
    if let Some(packed) = &info.file.packed {
        line("Packed", &format!("{}, unpacked into a temporary file", packed.packing.name()))?;
        if let Some(damage) = &packed.damage {
            line("", &format!("damaged: {damage}"))?;
        }
    }
    line("Dump", &info.dump.text())?;
    if info.dump.file_pages == FilePages::None {
        line("", "code and metadata come from the module files of this machine")?;
    }
    let complete = match info.truncation {
        Some(cut) => format!("no: cut off, {} of {} are there", size(cut.actual), size(cut.expected)),
        None if info.complete => "yes, as far as its headers tell".to_owned(),
        None => "no: the packed data is damaged".to_owned(),
    };
    line("Complete", &complete)?;
    if info.file.overlaps > 0 {
        line("", &format!("{} segments claim addresses that others have, too", info.file.overlaps))?;
    }
    if let Some(taken) = &info.taken {
        let from = match taken.from {
            TakenFrom::FileName => "by the name that systemd-coredump gave the file",
            TakenFrom::FileModified => "when the file was last written",
        };
        line("Taken", &format!("{} ({from})", taken.at))?;
    }
    if let Some(process) = &info.process {
        line(
            "Process",
            &format!("{} {} (user {}, parent {})", process.pid, process.name, process.uid, process.ppid),
        )?;
        let command = match process.arguments_from {
            ArgumentsFrom::Note if process.arguments.iter().all(String::is_empty) => {
                "not in the dump".to_owned()
            }
            ArgumentsFrom::Note => format!("{} (perhaps cut)", quoted(&process.arguments)),
            ArgumentsFrom::Stack => quoted(&process.arguments),
        };
        line("Command", &command)?;
    }
    match &info.signal {
        Some(signal) => line("Signal", &signal_text(signal))?,
        None => line("Signal", "none: taken on demand, or not recorded")?,
    }
    let managed = info.threads.managed.map(|n| format!(", {n} managed")).unwrap_or_default();
    let ended = match info.threads.managed_ended {
        None | Some(0) => String::new(),
        Some(n) => format!(", {n} of these ended"),
    };
    line("Threads", &format!("{}{managed}{ended}", info.threads.native))?;
    if let Some(runtime) = &info.runtime {
        runtime_lines(runtime, &mut line)?;
    }
    if let Some(problem) = &info.problem {
        line("Runtime", &format!("can't be read: {}", problem.text))?;
    }
    if let Some(heap) = &info.heap {
        let mode = if heap.server {
            format!("server GC, {} heaps", heap.heaps)
        } else {
            "workstation GC".to_owned()
        };
        let pieces = if heap.regions { "regions" } else { "segments" };
        line(
            "Heap",
            &format!(
                "{} in {} {pieces}, {} committed; {mode}",
                size(heap.bytes),
                heap.segments,
                size(heap.committed)
            ),
        )?;
        if heap.present < heap.bytes {
            line("", &format!("{} of it are in the dump", size(heap.present)))?;
        }
        if heap.gc_in_progress {
            line("", "in the middle of a garbage collection")?;
        }
    }
    if let Some(modules) = &info.modules {
        let missing = modules.without_metadata.len();
        let text = match missing {
            0 => format!("{}, all with metadata", modules.count),
            _ => format!("{}, {missing} without metadata", modules.count),
        };
        line("Modules", &text)?;
        let rows =
            modules.without_metadata.iter().map(|module| format!("{}: {}", module.module, module.reason));
        listing(rows, &mut line)?;
        if missing > 0 {
            line("", "--modules FOLDER names a folder that has these files")?;
        }
    }
    files(info, &mut line)?;
    limits(info, &mut line)
}

type Line<'a> = dyn FnMut(&str, &str) -> io::Result<()> + 'a;

fn runtime_lines(runtime: &RuntimeFacts, line: &mut Line<'_>) -> io::Result<()> {
    let (name, known) = match runtime.major {
        3 => (".NET Core", "3.1".to_owned()),
        major => (".NET", major.to_string()),
    };
    let version = match (&runtime.version, &runtime.build) {
        (Some(version), Some(build)) if version != build => format!("{version} (build {build})"),
        (Some(version), _) => version.clone(),
        (None, Some(build)) => format!("{known} (build {build})"),
        (None, None) => format!("{known} (the exact version is not in the dump)"),
    };
    let single = if runtime.single_file { ", single-file program" } else { "" };
    line("Runtime", &format!("{name} {version}, {}{single}", runtime.rid))?;
    line("", &runtime.image)?;
    if let Some(commit) = &runtime.commit {
        line("", &format!("commit {commit}"))?;
    }
    if let Some(id) = &runtime.build_id {
        line("", &format!("build-id {id}"))?;
    }
    line("", &format!("table of globals: {} entries, {} bytes", runtime.table.entries, runtime.table.bytes))?;
    let layout = &runtime.layout;
    if let Some(why) = &layout.unverified {
        line("", &format!("not verified: {why}"))?;
    }
    if let Some(why) = &layout.refused {
        line("", &format!("its own descriptor was not used: {why}"))?;
    }
    if let Some(source) = layout.descriptor {
        let place = match source {
            DescriptorSource::Memory => "in the dump",
            DescriptorSource::File => "in its file",
        };
        let differ = match layout.differences.len() {
            0 => "all as in the table of this program".to_owned(),
            n => format!("{n} of them differ from the table of this program"),
        };
        line("", &format!("its own descriptor ({place}) names {} places, {differ}", layout.described))?;
        for d in &layout.differences {
            line("", &format!("  {}: {} instead of {}", d.place, d.described, d.embedded))?;
        }
    }
    Ok(())
}

fn signal_text(signal: &Signal) -> String {
    let mut text = match signal.name {
        Some(name) => format!("{} ({name})", signal.number),
        None => signal.number.to_string(),
    };
    if let Some(address) = signal.fault_address {
        text.push_str(&format!(" at address {address}"));
    }
    if let Some(thread) = signal.thread {
        text.push_str(&format!(", thread {thread}"));
    }
    if let Some(id) = signal.managed_thread {
        text.push_str(&format!(" (managed {id})"));
    }
    if let Some(ip) = signal.instruction {
        text.push_str(&format!(" at {ip}"));
    }
    text
}

/// A command line; arguments that hold blanks or nothing are put in quotes.
fn quoted(arguments: &[String]) -> String {
    let one = |argument: &String| match argument {
        text if arguments.len() > 1 && (text.is_empty() || text.contains(char::is_whitespace)) => {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
        text => text.clone(),
    };
    arguments.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn files(info: &DumpInfo, line: &mut Line<'_>) -> io::Result<()> {
    if info.files.is_empty() {
        return Ok(());
    }
    let count = |wanted: fn(&Verdict) -> bool| info.files.iter().filter(|file| wanted(&file.verdict)).count();
    line(
        "Files",
        &format!(
            "{} checked and used, {} used unchecked, {} refused, {} not found",
            count(|v| matches!(v, Verdict::Used(_))),
            count(|v| matches!(v, Verdict::Unchecked(_))),
            count(|v| matches!(v, Verdict::Refused(_))),
            count(|v| matches!(v, Verdict::NotFound)),
        ),
    )?;
    let rows = info.files.iter().filter_map(|file| {
        let target = file.target_path.display().to_string();
        match &file.verdict {
            Verdict::Used(_) => None,
            Verdict::Unchecked(why) => Some(format!("unchecked: {target}: {why}")),
            // The reason names the file that was looked at, which may be another one.
            Verdict::Refused(why) if why.starts_with(&target) => Some(format!("refused: {why}")),
            Verdict::Refused(why) => Some(format!("refused: {target}: {why}")),
            Verdict::NotFound => Some(format!("not found: {target}")),
        }
    });
    listing(rows, line)
}

/// Rows of a list that are shown.
const SHOWN: usize = 8;

/// The first rows of a list, and how many there are besides.
fn listing(rows: impl Iterator<Item = String>, line: &mut Line<'_>) -> io::Result<()> {
    let mut more = 0usize;
    for (i, row) in rows.enumerate() {
        if i < SHOWN {
            line("", &row)?;
        } else {
            more += 1;
        }
    }
    if more > 0 {
        line("", &format!("and {more} more (--json has all)"))?;
    }
    Ok(())
}

/// A number of bytes, rounded for people.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

fn limits(info: &DumpInfo, line: &mut Line<'_>) -> io::Result<()> {
    if info.limits.is_empty() {
        return line("Limits", "none found: every command has what it needs");
    }
    // Columns of a list of commands.
    const WIDTH: usize = 100;
    let mut name = "Limits";
    for limit in &info.limits {
        let how = match limit.severity {
            Severity::Unavailable => "no answer",
            Severity::Partial => "incomplete",
            Severity::Unsure => "may be wrong",
        };
        let commands = match limit.commands.as_slice() {
            [] => &["all commands"],
            commands => commands,
        };
        for (i, row) in wrapped(commands, WIDTH).iter().enumerate() {
            match i {
                0 => line(name, &format!("{how}: {row}"))?,
                _ => line("", row)?,
            }
        }
        line("", &format!("  {}", limit.reason))?;
        name = "";
    }
    Ok(())
}

/// A list in lines of at most `width` columns, where its items allow it.
fn wrapped(items: &[&str], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let comma = if i + 1 < items.len() { "," } else { "" };
        match lines.last_mut().filter(|line| line.len() + item.len() + 2 <= width) {
            Some(line) => line.push_str(&format!(" {item}{comma}")),
            None => lines.push(format!("{item}{comma}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_wrapped_between_items() {
        assert_eq!(wrapped(&["one", "two", "three"], 9), ["one, two,", "three"]);
        assert_eq!(wrapped(&["longer than that"], 9), ["longer than that"]);
    }

    #[test]
    fn sizes_are_rounded_and_arguments_quoted() {
        assert_eq!(
            [0, 999, 1000, 86_388_736, 3 << 40].map(size),
            ["0 bytes", "999 bytes", "1.0 kB", "86.4 MB", "3.3 TB"]
        );
        let line = |words: &[&str]| quoted(&words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["dotnet", "a b", "", "it's", "x"]), "dotnet 'a b' '' it's x");
        assert_eq!(line(&["dotnet a b"]), "dotnet a b");
    }
}
