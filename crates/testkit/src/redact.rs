//! Making outputs of two runs comparable.

use std::collections::BTreeMap;
use std::ops::Range;

/// What an address may have as many digits of: as in rows, and with all of them.
const ADDRESS_DIGITS: [usize; 2] = [12, 16];

/// An instant as `dnd` writes it; a digit stands for any digit.
const TIME: &str = "0000-00-00T00:00:00.000Z";

/// The name of a dump.
const DUMP: &str = "core_00000000_000000";

/// What may stand before a process id or a port.
const BEFORE_AN_ID: [&str; 6] = ["ready ", "\"port\":", "-p ", "\t", "127.0.0.1:", "Running - "];

/// Those of them behind which one is met first.
const INTRODUCES_AN_ID: [&str; 2] = ["ready ", "\"port\":"];

/// Replaces in a line what differs from run to run: process ids, ports, addresses, times and names of dumps; and all
/// numbers where it was told that they do.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    varying: Vec<String>,
}

impl Redactor {
    /// Lines that contain one of `parts` have numbers that vary; in all others numbers count.
    pub fn new(parts: &[&str]) -> Self {
        Self { varying: parts.iter().map(|&part| part.to_owned()).collect() }
    }

    /// The line with placeholders, which keep the width of what stands in a column; and the ids, addresses and names of
    /// dumps in it, which mean something in other lines. `known` says of a number whether it is such an id.
    pub fn line<'a>(&self, line: &'a str, known: impl Fn(&str) -> bool) -> (String, Vec<&'a str>) {
        let (text, values) = self.placed(line, known);
        (text, values.into_iter().filter_map(|range| line.get(range)).collect())
    }

    /// The same, with the places of the values.
    fn placed(&self, line: &str, known: impl Fn(&str) -> bool) -> (String, Vec<Range<usize>>) {
        let varying = self.varying.iter().any(|part| line.contains(part.as_str()));
        let (mut text, mut values) = (String::new(), Vec::new());
        // Up to where `text` is a placeholder that stands in a column.
        let mut column = 0;
        let mut at = 0;
        while let Some(first) = line[at..].chars().next() {
            let (before, rest) = line.split_at(at);
            let word = &rest[..rest.find(|c| !in_word(c)).unwrap_or(rest.len())];
            if word.is_empty() {
                text.push(first);
                at += first.len_utf8();
            } else if rest.get(..TIME.len()).is_some_and(|start| like(start, TIME)) {
                text.push_str(TIME);
                at += TIME.len();
            } else if like(word, DUMP) || is_address(word) {
                text.push_str(&word.replace(|c: char| c.is_ascii_hexdigit(), "#"));
                values.push(at..at + word.len());
                at += word.len();
                column = text.len();
            } else if is_id(before, word, &known) {
                // As wide as it is, and aligned to what is there by accident.
                text.truncate(text.trim_end_matches(' ').len());
                text.push_str(" #");
                values.push(at..at + word.len());
                at += word.len();
            } else if varying && word.starts_with(|c: char| c.is_ascii_digit()) {
                let number = rest.find(|c: char| !c.is_ascii_digit() && c != ',' && c != '.');
                let number = rest[..number.unwrap_or(rest.len())].trim_end_matches([',', '.']);
                let start = text.trim_end_matches(' ').len();
                let blanks = text.len() - start;
                if blanks > 1 || start == 0 || start == column {
                    text.truncate(start);
                    text.push_str(&"#".repeat(blanks + number.len()));
                    column = text.len();
                } else {
                    text.push('#');
                }
                at += number.len();
            } else {
                text.push_str(word);
                at += word.len();
            }
        }
        (text.trim_end().to_owned(), values)
    }

    /// The line with other values in place of those that `values` knows.
    pub fn replaced(&self, line: &str, values: &BTreeMap<String, String>) -> String {
        let (_, found) = self.placed(line, |word| values.contains_key(word));
        let mut out = line.to_owned();
        for range in found.into_iter().rev() {
            if let Some(other) = values.get(&line[range.clone()]) {
                out.replace_range(range, other);
            }
        }
        out
    }
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `text` is `pattern` with other digits.
fn like(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(t, p)| if p == b'0' { t.is_ascii_digit() } else { t == p })
}

fn is_address(word: &str) -> bool {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    ADDRESS_DIGITS.contains(&digits.len())
        && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && digits.bytes().any(|b| b.is_ascii_digit())
}

/// Whether the number behind `before` is a process id or a port. One that is equal to it by chance, a count, stands
/// elsewhere.
fn is_id(before: &str, word: &str, known: impl Fn(&str) -> bool) -> bool {
    if !word.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let behind = |all: &[&str]| all.iter().any(|end| before.ends_with(end));
    behind(&INTRODUCES_AN_ID) || ((before.trim().is_empty() || behind(&BEFORE_AN_ID)) && known(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(line: &str) -> (String, Vec<&str>) {
        Redactor::new(&["System.String", "Complete: ", "(MB)"]).line(line, |word| word == "4711")
    }

    fn text(line: &str) -> String {
        redacted(line).0
    }

    #[test]
    fn addresses_keep_their_width() {
        let row = "7f7f4eb75e80 40,000  1,280,000 LeakWeb.Purchase";
        assert_eq!(
            redacted(row),
            (format!("{} 40,000  1,280,000 LeakWeb.Purchase", "#".repeat(12)), vec!["7f7f4eb75e80"])
        );
        assert_eq!(text("  0x00007f7fc6c015f8 (pinned"), format!("  #x{} (pinned", "#".repeat(16)));
        assert_eq!(
            text("feedbacked abcdefabcdef 7f7f4eb75e8 x7f7f4eb75e80"),
            "feedbacked abcdefabcdef 7f7f4eb75e8 x7f7f4eb75e80"
        );
    }

    #[test]
    fn numbers_vary_where_they_are_said_to() {
        let row = |numbers: &str| text(&format!("7f7f4cae0f90{numbers} System.String"));
        assert_eq!(row(" 83,822  3,609,482"), format!("{} System.String", "#".repeat(30)));
        assert_eq!(row("  3,822 13,609,482"), row(" 83,822  3,609,482"));
        assert_ne!(row("   3,822 13,609,482"), row(" 83,822  3,609,482"));
        assert_eq!(text("Complete: x, 246.1 MB in 1.1 s."), "Complete: x, # MB in # s.");
        assert_eq!(text("    gc-heap-size (MB)      49"), text("    gc-heap-size (MB)       9"));
        assert_eq!(text("    gen-0-size (MB)        49"), "    gen-#-size (MB)##########");
        assert_eq!(text("Found 1 roots."), "Found 1 roots.");
    }

    #[test]
    fn ids_times_and_dumps() {
        assert_eq!(
            redacted("ready 1 {\"port\":80,\"n\":1}"),
            ("ready # {\"port\": #,\"n\":1}".into(), vec!["1", "80"])
        );
        assert_eq!(redacted("   4711  dotnet").0, redacted("4711  dotnet").0);
        assert_eq!(redacted("kill -p 4711 4711").1, ["4711"]);
        assert_eq!(redacted("2026-11-22T19:04:18.400Z\t4711\tx").0, "0000-00-00T00:00:00.000Z\t #\tx");
        assert_eq!(redacted("to /d/core_20261122_190418").1, ["core_20261122_190418"]);
    }

    #[test]
    fn values_are_replaced() {
        let values = [("4711", "8"), ("7f7f4eb75e80", "7e0000000001")];
        let values = values.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        let replaced = Redactor::default().replaced("x -p 4711 4711 -mt 7f7f4eb75e80 0000000000aa", &values);
        assert_eq!(replaced, "x -p 8 4711 -mt 7e0000000001 0000000000aa");
    }
}
