//! The list as text.

use std::io::{self, Write};

use dnd_contract::escape;

use crate::facts::{ProcessFacts, Processes};

/// Columns are cut to a share of the terminal no narrower than this.
const NARROWEST: usize = 16;

/// Writes a row for each process, without a header: pid, name, executable, arguments, as `dotnet-counters ps` does. What
/// is special about a process stands in brackets behind its arguments: why it can't be reached, its pid in a container.
///
/// `width` is that of the terminal, where long columns are cut with `…`; without it nothing is cut.
///
/// # Errors
/// When `out` fails.
pub fn write_table(out: &mut dyn Write, facts: &Processes, width: Option<usize>) -> io::Result<()> {
    if facts.processes.is_empty() {
        return writeln!(out, "No .NET processes were found.");
    }
    let limit = width.map(|w| (w / 2).saturating_sub(16 + w.div_ceil(20)).max(NARROWEST));
    let rows: Vec<[String; 5]> = facts.processes.iter().map(|p| row(p, limit)).collect();
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let [pid, name, path, args] = widths;
    for [p, n, e, a, note] in &rows {
        let line = format!(" {p:>pid$}  {n:<name$}  {e:<path$}  {a:<args$}  {note}");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn row(p: &ProcessFacts, limit: Option<usize>) -> [String; 5] {
    let path = match &p.executable {
        Some(path) => path.clone(),
        None => "[may not be known]".to_owned(),
    };
    let arguments = match &p.arguments {
        Some(all) => shown(all, &path),
        None => "[may not be known]".to_owned(),
    };
    let mut notes = Vec::new();
    if let Some(reason) = p.unreachable {
        notes.push(reason.to_owned());
    }
    if p.ns_pid != p.pid {
        notes.push(format!("pid {} in its container", p.ns_pid));
    }
    let notes = if notes.is_empty() { String::new() } else { format!("[{}]", notes.join("; ")) };
    // A path tells most at its end, arguments at their beginning.
    [
        p.pid.to_string(),
        keep_end(&escape(&p.name), limit),
        keep_end(&escape(&path), limit),
        keep_start(&escape(&arguments), limit),
        notes,
    ]
}

/// The arguments; the program's name only when it isn't the path that stands before them.
fn shown(arguments: &[String], path: &str) -> String {
    match arguments {
        [first, rest @ ..] if first == path => rest.join(" "),
        all => all.join(" "),
    }
}

fn keep_end(text: &str, limit: Option<usize>) -> String {
    let count = text.chars().count();
    match limit {
        Some(limit) if count > limit => {
            std::iter::once('…').chain(text.chars().skip(count - (limit - 1))).collect()
        }
        _ => text.to_owned(),
    }
}

fn keep_start(text: &str, limit: Option<usize>) -> String {
    match limit {
        Some(limit) if text.chars().count() > limit => {
            text.chars().take(limit - 1).chain(std::iter::once('…')).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, name: &str, exe: &str, args: &[&str]) -> ProcessFacts {
        ProcessFacts {
            pid,
            ns_pid: pid,
            name: name.into(),
            executable: Some(exe.into()),
            arguments: Some(args.iter().map(|&a| a.to_owned()).collect()),
            uid: 0,
            hosting: None,
            runtime_version: None,
            runtime_version_from: None,
            rid: None,
            arch: None,
            os: None,
            entry_assembly: None,
            entry_assembly_from: None,
            command_line: None,
            socket: None,
            other_root: None,
            unreachable: None,
            reason: None,
        }
    }

    fn table(processes: Vec<ProcessFacts>, width: Option<usize>) -> String {
        let mut out = Vec::new();
        write_table(&mut out, &Processes { processes }, width).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns() {
        let mut other = process(12345, "Service", "/app/Service", &["/app/Service", "--x"]);
        other.ns_pid = 1;
        other.unreachable = Some("no answer");
        let text =
            table(vec![process(7, "dotnet", "/usr/bin/dotnet", &["dotnet", "a b.dll", "1"]), other], None);
        assert_eq!(
            text,
            "     7  dotnet   /usr/bin/dotnet  dotnet a b.dll 1\n \
             12345  Service  /app/Service     --x               [no answer; pid 1 in its container]\n"
        );
    }

    #[test]
    fn cut_to_a_terminal() {
        let long = process(1, "n", "/very/long/folder/of/the/app/Service", &["x", &"argument ".repeat(20)]);
        let text = table(vec![long], Some(80));
        assert_eq!(text, " 1  n  …/of/the/app/Service  x argument argument…\n");
    }

    #[test]
    fn hostile_text_is_tamed() {
        let text = table(vec![process(1, "a\x1b[2J", "/x\ny", &["\u{9b}31m"])], None);
        assert_eq!(text, " 1  a\\x1b[2J  /x\\ny  \\x9b31m\n");
        let mut hidden = process(2, "x", "", &[]);
        (hidden.executable, hidden.arguments) = (None, None);
        assert_eq!(table(vec![hidden], None), " 2  x  [may not be known]  [may not be known]\n");
    }

    #[test]
    fn none() {
        assert_eq!(table(vec![], Some(80)), "No .NET processes were found.\n");
    }
}
