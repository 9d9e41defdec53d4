//! What dotnet-dump answered to commands on the same process, and whether `dump analyze` says the same.
//!
//! Compared are whole answers, line by line, blanks and leading zeros of addresses aside.

use std::fs;

use dnd_testkit::{Dnd, SharedCore, shared_core};

use crate::DND;

/// Answered between two commands, so that their answers can be told apart.
const MARK_COMMAND: &str = "help eeversion";

const MARK: &str = "Version of the runtime, and how its GC is set up.";

pub(super) struct Pair {
    pub(super) command: String,
    pub(super) theirs: Vec<String>,
    pub(super) ours: Vec<String>,
}

/// The commands of the transcript that begin with one of `starts`, with both answers.
pub(super) fn pairs(core: &SharedCore, starts: &[&str]) -> Vec<Pair> {
    let transcript = core.dotnet_dump.as_ref().expect("the transcript lies beside the core");
    let transcript = fs::read_to_string(transcript).expect("the transcript is text");
    let mut asked: Vec<(String, Vec<String>)> = Vec::new();
    for line in transcript.lines() {
        match (line.strip_prefix(">>> "), asked.last_mut()) {
            (Some(command), _) => asked.push((command.to_owned(), Vec::new())),
            (None, Some((command, answer))) if line.strip_prefix("> ") != Some(command) => {
                answer.push(line.to_owned());
            }
            _ => {}
        }
    }
    asked.retain(|(command, _)| starts.iter().any(|start| command.starts_with(start)));
    assert!(!asked.is_empty(), "no command of {starts:?} in the transcript");
    let mut input = String::new();
    for (command, _) in &asked {
        input.push_str(&format!("{command}\n{MARK_COMMAND}\n"));
    }
    let output = Dnd::new(DND).args(["dump", "analyze"]).arg(&core.path).stdin(input).run();
    let mut answers: Vec<Vec<String>> = vec![Vec::new()];
    let mut in_mark = false;
    for line in output.stdout.lines() {
        match (in_mark, line) {
            (false, MARK) => in_mark = true,
            (true, line) if line.starts_with("Usage:") => {
                in_mark = false;
                answers.push(Vec::new());
            }
            (true, _) => {}
            (false, line) => answers.last_mut().expect("one at least").push(line.to_owned()),
        }
    }
    assert_eq!(answers.len(), asked.len() + 1, "an answer for each command, and an empty rest");
    let pair = |((command, theirs), ours)| Pair { command, theirs, ours };
    asked.into_iter().zip(answers).map(pair).collect()
}

pub(super) fn modern() -> Option<SharedCore> {
    shared_core("linux-x64-10.0.14/modern.withheap")
}

/// One blank between words, no leading zeros before addresses, no empty lines, no blanks around `->`.
pub(super) fn plain(lines: &[String]) -> Vec<String> {
    let word = |word: &str| {
        let hex = word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let short = word.trim_start_matches('0');
        if hex { if short.is_empty() { "0".to_owned() } else { short.to_owned() } } else { word.to_owned() }
    };
    let line = |line: &String| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    lines.iter().map(line).filter(|line| !line.is_empty()).collect()
}

/// Where the transcript left out the middle of an answer.
fn cut(theirs: &[String]) -> Option<usize> {
    theirs.iter().position(|line| line.starts_with("[... ") && line.ends_with("the last 20:]"))
}

/// Whether answers are the same, of which the transcript may have left out the middle.
pub(super) fn is_same(theirs: &[String], ours: &[String]) -> bool {
    match cut(theirs) {
        None => ours == theirs,
        Some(cut) => {
            let (head, tail) = (&theirs[..cut], &theirs[cut + 1..]);
            ours.len() > head.len() + tail.len() && ours.starts_with(head) && ours.ends_with(tail)
        }
    }
}

/// The same with a message.
pub(super) fn same(command: &str, theirs: &[String], ours: &[String]) {
    match cut(theirs) {
        None => assert_eq!(ours, theirs, "{command}"),
        Some(_) => assert!(is_same(theirs, ours), "{command}: {ours:#?}"),
    }
}

pub(super) fn all_same(
    starts: &[&str],
    at_least: usize,
    change: impl Fn(&Pair, Vec<String>, Vec<String>) -> (Vec<String>, Vec<String>),
) {
    let Some(core) = modern() else { return };
    let pairs = pairs(&core, starts);
    assert!(pairs.len() >= at_least, "{} commands of {starts:?}", pairs.len());
    for pair in &pairs {
        let (theirs, ours) = change(pair, plain(&pair.theirs), plain(&pair.ours));
        same(&pair.command, &theirs, &ours);
    }
}
