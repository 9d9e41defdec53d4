//! `parallelstacks`: the stacks of all threads, merged where they are the same.
//!
//! Form and order are those of dotnet-dump's `pstacks`: branches first, from the rarest to the most frequent, then
//! the frames that they share.

use dnd_clr::Runtime;
use dnd_clr::threads::Thread;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::method_text::MethodTexts;
use crate::args::Opt;
use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["parallelstacks", "pstacks", "ParallelStacks"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::flag(&["allthreads", "a"], "All thread ids of a group instead of the first four."),
        Opt::flag(&["runtime", "r"], "Accepted: frames of the runtime are not shown."),
    ],
    summary: "Merges the managed stacks of all threads: who does the same, and how many.",
    about: "The number before a frame tells how many threads are in it. Behind ~~~~ stand the operating system's ids \
            (hexadecimal) of the threads whose innermost frame is the next line, or, one step further in than that line, \
            of those that stand in it while others went on from it.",
    run,
};

/// Ids that are shown of a group without `-a`.
const SHOWN_IDS: usize = 4;
/// Equal lines in a row that are shown, at the beginning and at the end each: recursion.
const SHOWN_EQUAL: usize = 8;

#[derive(Debug, Serialize)]
struct Merged {
    /// Threads with managed frames.
    threads: usize,
    /// Groups without a parent.
    roots: usize,
    groups: Vec<Group>,
    /// Managed threads that have no managed frame.
    without_managed_frames: Vec<u32>,
    #[serde(skip)]
    all_ids: bool,
}

/// Frames in a row that the same threads are in.
#[derive(Debug, Serialize)]
struct Group {
    /// Place in the list of the group that these frames were called from.
    parent: Option<usize>,
    /// Threads in these frames.
    count: usize,
    /// Ids of those that stand in the first of the frames.
    threads: Vec<u32>,
    /// Innermost first.
    frames: Vec<String>,
}

/// A frame that some threads reached in the same way.
#[derive(Debug, Default)]
struct Node {
    text: usize,
    count: usize,
    ends: Vec<u32>,
    children: Vec<usize>,
}

/// All stacks, outermost frames first. Node 0 is what all threads have in common: nothing.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
    places: FxHashMap<(usize, usize), usize>,
    texts: Vec<String>,
    numbers: FxHashMap<String, usize>,
}

impl Tree {
    fn new() -> Self {
        Tree {
            nodes: vec![Node::default()],
            places: FxHashMap::default(),
            texts: Vec::new(),
            numbers: FxHashMap::default(),
        }
    }

    fn number(&mut self, text: &str) -> usize {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.texts.len();
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// Adds a thread's frames, outermost first.
    fn add(&mut self, thread: u32, frames: impl Iterator<Item = usize>) {
        let mut at = 0;
        for text in frames {
            let next = self.nodes.len();
            let place = *self.places.entry((at, text)).or_insert(next);
            if place == next {
                self.nodes.push(Node { text, ..Node::default() });
                if let Some(node) = self.nodes.get_mut(at) {
                    node.children.push(place);
                }
            }
            at = place;
            if let Some(node) = self.nodes.get_mut(at) {
                node.count += 1;
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.ends.push(thread);
        }
    }

    /// The groups, each behind its parent, children from the rarest to the most frequent.
    fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        let mut open: Vec<(usize, Option<usize>)> = self.ordered(0).map(|child| (child, None)).collect();
        open.reverse();
        while let Some((first, parent)) = open.pop() {
            let mut last = first;
            let mut frames = Vec::new();
            while let Some(node) = self.nodes.get(last) {
                frames.extend(self.texts.get(node.text).cloned());
                // One child with as many threads: the same group.
                match node.children.as_slice() {
                    [only] if node.ends.is_empty() => last = *only,
                    _ => break,
                }
            }
            frames.reverse();
            let Some(node) = self.nodes.get(last) else { continue };
            let number = groups.len();
            groups.push(Group { parent, count: node.count, threads: node.ends.clone(), frames });
            let from = open.len();
            open.extend(self.ordered(last).map(|child| (child, Some(number))));
            if let Some(new) = open.get_mut(from..) {
                new.reverse();
            }
        }
        groups
    }

    fn ordered(&self, node: usize) -> impl Iterator<Item = usize> {
        let mut children = self.nodes.get(node).map(|node| node.children.clone()).unwrap_or_default();
        children.sort_by_key(|&child| self.nodes.get(child).map_or(0, |child| child.count));
        children.into_iter()
    }
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let mut tree = Tree::new();
    let mut texts = MethodTexts::default();
    let mut without = Vec::new();
    let mut threads = 0;
    let mut broken = 0;
    for thread in runtime.threads()?.threads.iter().filter(|thread| thread.os_id != 0) {
        call.cancelled()?;
        let end = match add(runtime, &mut tree, &mut texts, thread) {
            (false, end) => {
                without.push(thread.os_id);
                end
            }
            (true, end) => {
                threads += 1;
                end
            }
        };
        if let Some(end) = end {
            broken += 1;
            call.note(format!("the stack of thread {:#x} is incomplete: {end}", thread.os_id));
        }
    }
    let groups = tree.groups();
    let facts = Merged {
        threads,
        roots: groups.iter().filter(|group| group.parent.is_none()).count(),
        groups,
        without_managed_frames: without,
        all_ids: call.args.flag("allthreads"),
    };
    let flow = call.emit("parallelstacks", 1, &facts)?;
    match broken {
        0 => Ok(flow),
        1 => Err(Error::Partial("a stack is incomplete".to_owned())),
        n => Err(Error::Partial(format!("{n} stacks are incomplete"))),
    }
}

/// Adds a thread: whether it has managed frames, and why some may be missing.
fn add(
    runtime: &Runtime<'_>,
    tree: &mut Tree,
    texts: &mut MethodTexts,
    thread: &Thread,
) -> (bool, Option<String>) {
    let stack = runtime.stack(thread);
    let mut frames: Vec<usize> =
        stack.managed().map(|(_, code)| tree.number(texts.get(runtime, code.method))).collect();
    frames.reverse();
    let end = (!stack.end.is_complete()).then(|| stack.end.to_string());
    if frames.is_empty() {
        return (false, end);
    }
    tree.add(thread.os_id, frames.into_iter());
    (true, end)
}

impl Facts for Merged {
    fn text(&self, out: &mut Out<'_>) {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.groups.len()];
        let mut roots = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            match group.parent.and_then(|parent| children.get_mut(parent)) {
                Some(siblings) => siblings.push(number),
                None => roots.push(number),
            }
        }
        out.end();
        for root in roots {
            out.str("________________________________________________\n");
            // (group, depth, its branches are written)
            let mut open = vec![(root, 0, false)];
            while let Some((number, depth, done)) = open.pop() {
                let Some(group) = self.groups.get(number) else { continue };
                let branches = children.get(number).map(Vec::as_slice).unwrap_or_default();
                if !done && !branches.is_empty() {
                    open.push((number, depth, true));
                    open.extend(branches.iter().rev().map(|&branch| (branch, depth + 1, false)));
                    continue;
                }
                let is_branch = usize::from(!branches.is_empty());
                group.text(out, depth, depth + is_branch, self.all_ids);
            }
            out.str("\n\n");
        }
        out.fmt(format_args!("==> {} threads with {} roots\n", self.threads, self.roots));
    }
}

impl Group {
    fn text(&self, out: &mut Out<'_>, depth: usize, ids_depth: usize, all_ids: bool) {
        if !self.threads.is_empty() {
            out.blanks(5 * ids_depth);
            out.str(" ~~~~ ");
            let shown = if all_ids { self.threads.len() } else { SHOWN_IDS };
            for (number, id) in self.threads.iter().take(shown).enumerate() {
                out.str(if number > 0 { "," } else { "" });
                out.hex((*id).into(), 1, 0);
            }
            out.str(if self.threads.len() > shown { "...\n" } else { "\n" });
        }
        for equal in self.frames.chunk_by(|a, b| a == b) {
            let hidden = equal.len().saturating_sub(2 * SHOWN_EQUAL);
            for (number, frame) in equal.iter().enumerate() {
                if hidden > 1 && number == SHOWN_EQUAL {
                    out.blanks(5 * depth + 6);
                    out.fmt(format_args!("... {hidden} more of the same\n"));
                }
                if hidden > 1 && (SHOWN_EQUAL..SHOWN_EQUAL + hidden).contains(&number) {
                    continue;
                }
                out.blanks(5 * depth);
                out.dec(self.count as u64, 5);
                out.blanks(1);
                out.name(frame);
                out.end();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(stacks: &[(u32, &[&str])], all_ids: bool) -> String {
        let mut tree = Tree::new();
        for (thread, frames) in stacks {
            let frames: Vec<usize> = frames.iter().map(|frame| tree.number(frame)).collect();
            tree.add(*thread, frames.into_iter());
        }
        let groups = tree.groups();
        let merged = Merged {
            threads: stacks.len(),
            roots: groups.iter().filter(|group| group.parent.is_none()).count(),
            groups,
            without_managed_frames: Vec::new(),
            all_ids,
        };
        let mut text = Vec::new();
        let mut out = Out::new(&mut text);
        merged.text(&mut out);
        out.finish().expect("written");
        drop(out);
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn branches_stand_before_what_they_share() {
        let merged = text(
            &[
                (0x1a, &["Start", "Run", "Wait"]),
                (0x1b, &["Start", "Run", "Wait"]),
                (0x1c, &["Start", "Run", "Spin", "Inner"]),
                (0x1d, &["Main"]),
                (0x1e, &["Start", "Run"]),
            ],
            false,
        );
        let line = "________________________________________________\n";
        let expected = format!(
            "\n{line} ~~~~ 1d\n    1 Main\n\n\n{line}      ~~~~ 1c\n         1 Inner\n         1 Spin\n      ~~~~ 1a,1b\n         2 Wait\n      \
             ~~~~ 1e\n    4 Run\n    4 Start\n\n\n==> 5 threads with 2 roots\n"
        );
        assert_eq!(merged, expected);
    }

    #[test]
    fn four_ids_are_shown_and_long_recursion_is_cut() {
        let deep: Vec<&str> = std::iter::once("Main").chain(std::iter::repeat_n("Again", 100)).collect();
        let same: Vec<(u32, &[&str])> = (1..=6).map(|id| (id, deep.as_slice())).collect();
        let short = text(&same, false);
        assert!(short.contains(" ~~~~ 1,2,3,4...\n"), "{short}");
        assert_eq!(short.matches("6 Again\n").count(), 16);
        assert!(short.contains("      ... 84 more of the same\n"), "{short}");
        assert!(text(&same, true).contains(" ~~~~ 1,2,3,4,5,6\n"));
    }
}
