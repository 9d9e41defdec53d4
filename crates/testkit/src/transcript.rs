//! Documents that show commands with their real output, and are held against what the commands print now.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use xtask::workspace;

use crate::must;
use crate::redact::Redactor;

/// Any number of lines.
const ELLIPSIS: &str = "...";

/// A document that is walked through, command by command.
///
/// A block fenced as `console` holds commands, each behind `$ ` (for a shell) or `> ` (at a prompt), and below each what
/// it printed; a block fenced as `screen` what a program that still runs shows, whose command is `screen`. A line `...`
/// stands for any number of lines.
///
/// What changes from run to run is left out of the comparison by a [`Redactor`]. It is not forgotten: where the document
/// has one process id, address or file name and this run printed another, the one stands for the other from there on,
/// in the commands to be run as in what they print. So the document has to agree with itself as well.
#[derive(Debug)]
pub struct Transcript {
    path: PathBuf,
    redactor: Redactor,
    pieces: std::vec::IntoIter<Piece>,
    /// The document with the values of this run.
    renewed: Vec<String>,
    values: Values,
    differences: Vec<String>,
    update: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// A line for people.
    Prose(String),
    /// A command, and what it printed.
    Command(Documented),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Documented {
    /// What stands before the command: nothing for a screen.
    mark: &'static str,
    command: String,
    output: Vec<String>,
}

/// A command of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The command with the values of this run: `dnd ps`, or `screen`.
    pub command: String,
    /// Whether it is typed at a prompt of `dnd`.
    pub at_prompt: bool,
    documented: Documented,
}

/// Values of the document, each with that of this run in its place.
#[derive(Debug, Clone, Default)]
struct Values(BTreeMap<String, String>);

impl Transcript {
    /// The document at `path` of the workspace. With `UPDATE` in the environment [`Transcript::close`] rewrites it.
    #[track_caller]
    pub fn open(path: &str, redactor: Redactor) -> Self {
        let path = workspace().join(path);
        let pieces = pieces(&must(fs::read_to_string(&path), path.display()));
        Self {
            path,
            redactor,
            pieces: pieces.into_iter(),
            renewed: Vec::new(),
            values: Values::default(),
            differences: Vec::new(),
            update: std::env::var_os("UPDATE").is_some(),
        }
    }

    /// The next command.
    pub fn next_step(&mut self) -> Option<Step> {
        loop {
            match self.pieces.next()? {
                Piece::Prose(line) => self.renewed.push(line),
                Piece::Command(documented) => {
                    let command = self.redactor.replaced(&documented.command, &self.values.0);
                    return Some(Step { command, at_prompt: documented.mark == "> ", documented });
                }
            }
        }
    }

    /// Whether this is what the document shows for the command. Always, when it is to be rewritten.
    pub fn shows(&self, step: &Step, printed: &str) -> bool {
        self.update || self.values.aligned(&self.redactor, &step.documented.output, &lines(printed)).is_some()
    }

    /// Another process is looked at: what stood for values of the last one does so no more.
    pub fn forget(&mut self) {
        self.values = Values::default();
    }

    /// Holds what the command printed against the document.
    pub fn printed(&mut self, step: &Step, printed: &str) {
        let Documented { mark, command, output } = &step.documented;
        let printed = lines(printed);
        if !mark.is_empty() {
            self.renewed.push(format!("{mark}{}", step.command));
        }
        if let Some((aligned, values)) = self.values.aligned(&self.redactor, output, &printed) {
            self.values = values;
            let line = |n: Option<usize>| n.and_then(|n| printed.get(n)).map_or(ELLIPSIS, String::as_str);
            self.renewed.extend(aligned.into_iter().map(|n| line(n).to_owned()));
            return;
        }
        self.values.guess(&self.redactor, output, &printed);
        let printed = shortened(printed);
        let (was, is) = (output.join("\n"), printed.join("\n"));
        self.differences.push(format!("`{command}` is documented as\n{was}\n\nand printed\n{is}"));
        self.renewed.extend(printed);
    }

    /// Fails unless all was as documented; or rewrites the document.
    #[track_caller]
    pub fn close(mut self) {
        assert_eq!(self.next_step(), None, "not all of the document was run");
        if self.update {
            // Which checkout is meant, cargo tells.
            assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "UPDATE works with `cargo test` only");
            must(fs::write(&self.path, self.renewed.join("\n") + "\n"), self.path.display());
            return;
        }
        assert!(
            self.differences.is_empty(),
            "{} is no longer true (docs/testing.md tells how to renew it):\n\n{}",
            self.path.display(),
            self.differences.join("\n\n")
        );
    }
}

impl Values {
    /// For each documented line the printed one that it is, and the values that then stand for each other. `None` when
    /// this is not what is documented.
    fn aligned(
        &self,
        redactor: &Redactor,
        documented: &[String],
        printed: &[String],
    ) -> Option<(Vec<Option<usize>>, Self)> {
        let old: Vec<_> = documented.iter().map(|line| self.documented(redactor, line).0).collect();
        let new: Vec<_> = printed.iter().map(|line| self.current(redactor, line).0).collect();
        let aligned = align(&old, &new)?;
        let mut values = self.clone();
        for (line, &n) in documented.iter().zip(&aligned) {
            if let Some(new) = n.and_then(|n| printed.get(n)) {
                values.learn(redactor, line, new).then_some(())?;
            }
        }
        Some((aligned, values))
    }

    /// A documented line without its values, and these.
    fn documented<'a>(&self, redactor: &Redactor, line: &'a str) -> (String, Vec<&'a str>) {
        redactor.line(line, |word| self.0.contains_key(word))
    }

    /// A printed one.
    fn current<'a>(&self, redactor: &Redactor, line: &'a str) -> (String, Vec<&'a str>) {
        redactor.line(line, |word| self.0.values().any(|value| value == word))
    }

    /// Takes the values of a printed line for those of the documented one; false when some stand for others already.
    fn learn(&mut self, redactor: &Redactor, documented: &str, printed: &str) -> bool {
        let (old, new) = (self.documented(redactor, documented).1, self.current(redactor, printed).1);
        old.len() == new.len()
            && old.into_iter().zip(new).all(|(old, new)| match self.0.get(old) {
                Some(known) => known == new,
                None if self.0.values().any(|value| value == new) => false,
                None => {
                    self.0.insert(old.to_owned(), new.to_owned());
                    true
                }
            })
    }

    /// Finds values in an output that is not as documented any more, so that what comes next can be run all the same: in
    /// the first line that ends in the same word.
    fn guess(&mut self, redactor: &Redactor, documented: &[String], printed: &[String]) {
        let last = |line: &str| line.split_whitespace().last().map(str::to_owned);
        for line in documented.iter().filter(|line| *line != ELLIPSIS) {
            if let Some(new) = printed.iter().find(|new| last(new) == last(line)) {
                self.learn(redactor, line, new);
            }
        }
    }
}

/// For each line of `pattern` the line that it is; an ellipsis is none.
fn align(pattern: &[String], lines: &[String]) -> Option<Vec<Option<usize>>> {
    let (mut found, mut line) = (Vec::new(), 0);
    // After the last ellipsis, and the first line that it may have left over.
    let mut again: Option<(usize, usize)> = None;
    while found.len() < pattern.len() || line < lines.len() {
        match (pattern.get(found.len()), lines.get(line)) {
            (Some(p), _) if p == ELLIPSIS => {
                found.push(None);
                again = Some((found.len(), line));
            }
            (Some(p), Some(l)) if p == l => {
                found.push(Some(line));
                line += 1;
            }
            _ => {
                let (length, next) = again.as_mut().filter(|(_, next)| *next < lines.len())?;
                *next += 1;
                line = *next;
                found.truncate(*length);
            }
        }
    }
    Some(found)
}

/// Of a long output its beginning and its end.
fn shortened(mut lines: Vec<String>) -> Vec<String> {
    const EACH: usize = 20;
    if lines.len() > 3 * EACH {
        lines.splice(EACH..lines.len() - EACH, [ELLIPSIS.to_owned()]);
    }
    lines
}

/// Lines without blanks at their ends, without empty ones at the end of all.
fn lines(text: &str) -> Vec<String> {
    text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut all = Vec::new();
    let mut fence = "";
    for line in text.lines() {
        if line.starts_with("```") {
            all.push(Piece::Prose(line.to_owned()));
            fence = if fence.is_empty() { line } else { "" };
            if fence == "```screen" {
                all.push(Piece::Command(Documented {
                    mark: "",
                    command: "screen".to_owned(),
                    output: Vec::new(),
                }));
            }
            continue;
        }
        let mark = ["$ ", "> "].into_iter().find_map(|mark| Some((mark, line.strip_prefix(mark)?)));
        match (fence, mark, all.last_mut()) {
            ("```console", Some((mark, command)), _) => {
                let command = command.to_owned();
                all.push(Piece::Command(Documented { mark, command, output: Vec::new() }));
            }
            ("```console" | "```screen", _, Some(Piece::Command(last))) => {
                last.output.push(line.trim_end().to_owned());
            }
            _ => all.push(Piece::Prose(line.to_owned())),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(text: &str) -> Vec<String> {
        text.split(' ').filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn ellipses() {
        let aligned = |pattern: &str, lines: &str| align(&strings(pattern), &strings(lines));
        assert_eq!(aligned("a b", "a b"), Some(vec![Some(0), Some(1)]));
        assert_eq!(aligned("a b", "a b c"), None);
        assert_eq!(aligned("a b", "a"), None);
        assert_eq!(aligned("a ... b", "a b"), Some(vec![Some(0), None, Some(1)]));
        assert_eq!(aligned("... a b ...", "a c a b a"), Some(vec![None, Some(2), Some(3), None]));
        assert_eq!(aligned("... a b", "a b a b"), Some(vec![None, Some(2), Some(3)]));
        assert_eq!(aligned("... a ... a", "b a"), None);
        assert_eq!(aligned("...", ""), Some(vec![None]));
        assert_eq!(aligned("", "a"), None);
    }

    #[test]
    fn documents() {
        let text = "a\n```console\n$ b c\nd\n\n> e\n```\n```screen\nf\n```\n```\n$ g\n```\n";
        let command = |mark, command: &str, output: &[&str]| {
            let output = output.iter().map(|&line| line.to_owned()).collect();
            Piece::Command(Documented { mark, command: command.to_owned(), output })
        };
        let prose = |line: &str| Piece::Prose(line.to_owned());
        let expected = [
            prose("a"),
            prose("```console"),
            command("$ ", "b c", &["d", ""]),
            command("> ", "e", &[]),
            prose("```"),
            prose("```screen"),
            command("", "screen", &["f"]),
            prose("```"),
            prose("```"),
            prose("$ g"),
            prose("```"),
        ];
        assert_eq!(pieces(text), expected);
    }

    #[test]
    fn values_stand_for_each_other() {
        let redactor = Redactor::default();
        let (a, b) = ("aaaaaaaaaaa1", "bbbbbbbbbbb2");
        let (x, y) = ("7f0000000000", "7f0000000008");
        let line = |one: &str, other: &str| vec![format!("{one} {other}")];
        let known = |documented: Vec<String>, printed: Vec<String>| {
            let values = Values::default().aligned(&redactor, &documented, &printed)?.1.0;
            Some(values.into_iter().collect::<Vec<_>>())
        };
        let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        assert_eq!(known(line(a, b), line(x, y)), Some(vec![pair(a, x), pair(b, y)]));
        assert_eq!(known(line(a, a), line(x, x)), Some(vec![pair(a, x)]));
        assert_eq!(known(line(a, a), line(x, y)), None);
        assert_eq!(known(line(a, b), line(x, x)), None);
    }
}
