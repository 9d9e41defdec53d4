//! Stacks and roots as other programs printed them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dnd_testkit::must;

/// What ClrMD said on the target: THREAD, FRAME (sp, ip, kind, frame, method), SROOT (address, object, flags, ...).
#[derive(Default)]
pub(super) struct Listed {
    pub(super) managed: Vec<(u64, u64, String)>,
    pub(super) explicit: Vec<(u64, String)>,
    pub(super) slots: BTreeSet<(u64, u64)>,
}

pub(super) fn listed(path: &Path) -> BTreeMap<u32, Listed> {
    let text = must(fs::read_to_string(path), path.display());
    let mut threads: BTreeMap<u32, Listed> = BTreeMap::new();
    let mut current = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        let address = |i: usize| must(u64::from_str_radix(words[i], 16), line);
        let thread = threads.entry(current).or_default();
        match words[0] {
            "THREAD" => {
                current = must(words[2].parse(), line);
                threads.entry(current).or_default();
            }
            "FRAME" if words[3] == "ManagedMethod" => {
                thread.managed.push((address(2), address(1), words[5].to_owned()));
            }
            "FRAME" => thread.explicit.push((address(1), words[4].to_owned())),
            "SROOT" => drop(thread.slots.insert((address(1), address(2)))),
            _ => {}
        }
    }
    threads.remove(&0);
    threads
}

/// Lines of `clrstack -all`: (child SP, IP, call site without source).
pub(super) fn clrstack_lines(text: &str) -> Vec<(u64, u64, String)> {
    let part =
        text.split("\n> clrstack -all\n").nth(1).and_then(|t| t.split("\n> ").next()).expect("clrstack -all");
    let row = |line: &str| {
        let (sp, rest) = line.split_at_checked(16)?;
        let (ip, site) = rest.trim_start().split_at_checked(16)?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        // `Method(...) [/src/File.cs @ 7]`, `[InlinedCallFrame: 00007f…] Method(...)`.
        let site = match site.trim().strip_prefix('[') {
            Some(frame) => format!("[{}]", frame.split_once(']')?.0),
            None => site.split(" [/").next()?.trim().to_owned(),
        };
        Some((number(sp)?, number(ip)?, site))
    };
    part.lines().filter_map(row).collect()
}

/// The stack slots in all `gcroot` answers: (SP, slot, address, object).
pub(super) fn gcroot_slots(text: &str) -> BTreeSet<(u64, String, u64, u64)> {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut slots = BTreeSet::new();
    let mut frame = None;
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        let words: Vec<&str> = pair[0].split_whitespace().collect();
        let indent = pair[0].len() - pair[0].trim_start().len();
        match (indent, words.as_slice()) {
            (4, [sp, _, _, ..]) => frame = number(sp),
            (8, [slot, address, ..]) if slot.starts_with("rbp") || slot.starts_with("rsp") => {
                let object = pair[1].split_whitespace().nth(1).and_then(number);
                if let (Some(sp), Some(address), Some(object)) = (frame, number(address), object) {
                    slots.insert((sp, slot.trim_end_matches(':').to_owned(), address, object));
                }
            }
            _ => {}
        }
    }
    slots
}
