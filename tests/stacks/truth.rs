//! How stacks and their roots are held against what Microsoft's own library says of the same core.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dnd_clr::Runtime;
use dnd_clr::stack::{End, ExplicitKind, FrameKind, Reference, ReferenceSlot, Stack};
use dnd_clr::threads::Thread;
use dnd_memory::{Arch, Core as CoreFile, FileOptions, WithFiles};
use dnd_testkit::{Core, must, oracle_for};
use serde_json::Value;

/// (instruction pointer, stack pointer, method, name)
type Managed = (u64, u64, u64, String);

/// (place, value, interior, pinned, instruction pointer)
type Slot = (String, u64, bool, bool, u64);

pub(super) fn with_runtime<T>(path: &Path, files: bool, then: impl FnOnce(&Runtime<'_>) -> T) -> T {
    let core = must(CoreFile::open(path), path.display());
    // Cores of gdb hold nothing that an assembly could be held against.
    let options = FileOptions { local: files, unchecked: files, ..FileOptions::default() };
    let target = WithFiles::new(core, options);
    then(&must(Runtime::open(&target), path.display()))
}

pub(super) fn managed(runtime: &Runtime<'_>, stack: &Stack) -> Vec<Managed> {
    let row = |(frame, code): (&dnd_clr::stack::Frame, &dnd_clr::code::Code)| {
        (frame.ip, frame.sp, code.method, runtime.method_name(code.method))
    };
    stack.managed().map(row).collect()
}

pub(super) fn explicit(stack: &Stack) -> Vec<(u64, String)> {
    let row = |frame: &dnd_clr::stack::Frame| match frame.kind {
        FrameKind::Explicit { kind, address, .. } => Some((address, kind.name().to_owned())),
        _ => None,
    };
    stack.frames.iter().filter_map(row).collect()
}

fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or("0").trim_start_matches("0x");
    must(u64::from_str_radix(text, 16), value)
}

fn threads(answer: &Value) -> BTreeMap<u32, &Value> {
    let rows = answer.as_array().unwrap_or_else(|| panic!("no answer: {answer}"));
    let id = |row: &Value| row["os_id"].as_u64().unwrap_or(0) as u32;
    rows.iter().map(|row| (id(row), row)).filter(|(id, _)| *id != 0).collect()
}

fn their_frames(row: &Value) -> (Vec<Managed>, Vec<(u64, String)>) {
    let (mut frames, mut explicit) = (Vec::new(), Vec::new());
    for frame in row["frames"].as_array().into_iter().flatten() {
        let name = |key: &str| frame[key].as_str().unwrap_or_default().to_owned();
        match frame["kind"].as_str() {
            Some("managed") => {
                frames.push((
                    hex(&frame["ip"]),
                    hex(&frame["sp"]),
                    hex(&frame["method_desc"]),
                    name("method"),
                ));
            }
            Some("frame") => explicit.push((hex(&frame["frame"]), name("frame_name"))),
            _ => {}
        }
    }
    (frames, explicit)
}

fn their_slots(row: &Value) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    for slot in row["references"].as_array().into_iter().flatten() {
        let place = match hex(&slot["address"]) {
            0 => slot["register"].as_str().unwrap_or("?").to_lowercase(),
            address => format!("{address:x}"),
        };
        let flag = |key: &str| slot[key].as_bool().unwrap_or(false);
        slots.push((place, hex(&slot["object"]), flag("interior"), flag("pinned"), hex(&slot["source"])));
    }
    slots.sort();
    slots
}

/// What the DAC does not list: references of native code since 5, what keeps running code, arguments of calls that
/// have not begun.
pub(super) fn unlisted(major: u8, reference: &Reference) -> bool {
    let native = major >= 5 && reference.slot == ReferenceSlot::Explicit(ExplicitKind::GCFrame);
    native || reference.slot == ReferenceSlot::Code || reference.conservative
}

fn our_slots(major: u8, references: &[Reference]) -> Vec<Slot> {
    let row = |r: &Reference| {
        let place = if r.address == 0 { r.slot.to_string() } else { format!("{:x}", r.address) };
        (place, r.value, r.interior, r.pinned, r.ip)
    };
    let mut slots: Vec<Slot> = references.iter().filter(|r| !unlisted(major, r)).map(row).collect();
    slots.sort();
    slots
}

/// Which differences a core may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// All threads wait: none.
    Wait,
    /// Some run. Where one stands in native code that has pushed no explicit frame, the DAC sees less of its stack; where
    /// it was stopped by the runtime, it does not list what the method that has just returned gave back. Where it stands
    /// in a system library whose unwind tables are not in the dump, neither sees what called it, and ours says so.
    Run,
}

pub(super) struct Compared {
    pub(super) frames: usize,
    pub(super) slots: usize,
}

pub(super) fn compare(
    what: &str,
    path: &Path,
    stacks: &Value,
    roots: Option<&Value>,
    how: Threads,
) -> Compared {
    with_runtime(path, true, |runtime| {
        let major = runtime.major();
        let stacks = threads(stacks);
        let roots = roots.map(threads);
        let mut compared = Compared { frames: 0, slots: 0 };
        for (&id, row) in &stacks {
            let thread = runtime.thread_by_os_id(id).unwrap_or_else(|| panic!("{what}: no thread {id}"));
            let stack = runtime.stack(thread);
            let (frames, chain) = their_frames(row);
            let ours = managed(runtime, &stack);
            compared.frames += frames.len();
            let sees_less = how == Threads::Run && frames.len() < ours.len() && is_within(&frames, &ours);
            if !sees_less {
                assert_eq!(ours, frames, "{what}: thread {id}, ends at {}", stack.end);
                assert_eq!(explicit(&stack), chain, "{what}: thread {id}");
                let unknown = how == Threads::Run && matches!(stack.end, End::NoUnwindInformation { .. });
                assert!(stack.end.is_complete() || unknown, "{what}: thread {id} ends at {}", stack.end);
            }
            let Some(row) = roots.as_ref().and_then(|roots| roots.get(&id)) else { continue };
            compared.slots +=
                compare_slots(what, runtime, thread, row, major, sees_less || how == Threads::Run);
        }
        compared
    })
}

/// The rows of `part`, in order, among those of `all`.
fn is_within<T: PartialEq>(part: &[T], all: &[T]) -> bool {
    let mut all = all.iter();
    part.iter().all(|row| all.any(|other| other == row))
}

fn compare_slots(
    what: &str,
    runtime: &Runtime<'_>,
    thread: &Thread,
    row: &Value,
    major: u8,
    more: bool,
) -> usize {
    let found = runtime.stack_references(thread);
    let id = thread.os_id;
    assert!(more || found.problem.is_none(), "{what}: thread {id}: {:?}", found.problem);
    let theirs = their_slots(row);
    let count = theirs.len();
    if major == 9 && takes_handler_for_unwound(runtime, thread, &theirs) {
        // Now and then the DAC of 9 takes a handler and all that it has called for unwound, and gives the slots of the
        // handler's method for the method's own frame instead.
        let ours: BTreeSet<(String, u64)> =
            our_slots(major, &found.references).into_iter().map(|slot| (slot.0, slot.1)).collect();
        // At the place where a method's own frame threw, other slots may be live than in the handler.
        let stack = runtime.stack(thread);
        let own: BTreeSet<u64> = stack
            .managed()
            .skip_while(|(_, code)| !code.funclet)
            .skip(1)
            .map(|(frame, _)| frame.ip)
            .collect();
        assert!(
            theirs.iter().all(|slot| own.contains(&slot.4) || ours.contains(&(slot.0.clone(), slot.1))),
            "{what}: thread {id}: {theirs:x?}"
        );
        return count;
    }
    let mut ours = our_slots(major, &found.references);
    let mut left = Vec::new();
    for slot in theirs {
        let same = |other: &Slot| {
            // The DAC of 3.1 gives the object that an inner pointer points into.
            let value = other.1 == slot.1 || major < 5 && slot.2;
            value && (&other.0, other.2, other.3, other.4) == (&slot.0, slot.2, slot.3, slot.4)
        };
        match ours.iter().position(same) {
            Some(index) => drop(ours.swap_remove(index)),
            None => left.push(slot),
        }
    }
    // Arguments of a call that has not begun: the DAC knows the signature, we take all that are objects.
    // What they refer to on the stack (the source of such a slot is an explicit frame) is none.
    let on_stack = |address: u64| (thread.stack_limit..thread.stack_base).contains(&address);
    left.retain(|slot| {
        let argument = slot.2 && on_stack(slot.1) && on_stack(slot.4);
        !argument && !found.references.iter().any(|r| r.conservative && format!("{:x}", r.address) == slot.0)
    });
    if runtime.target().arch() == Arch::Arm64 && major < 10 {
        drop_displaced(runtime, &mut left, &mut ours);
    }
    if more {
        ours.clear();
    }
    if major < 5 {
        // The DAC of 3.1 knows no registers of frames behind a HelperMethodFrame.
        ours.retain(|slot| slot.0.starts_with(|c: char| c.is_ascii_digit()) || !slot.0.starts_with('r'));
    }
    assert!(
        left.is_empty() && ours.is_empty(),
        "{what}: thread {id}: only the DAC {left:x?}, only we {ours:x?}"
    );
    count
}

/// The DAC of arm64 up to 9 has a wrong frame register for a method that called a helper with a `HelperMethodFrame`: the
/// stack pointer of the thread itself, so that it takes slots from code that has nothing to do with the method. They are
/// ours, all displaced by one number; what stands in ours are objects.
fn drop_displaced(runtime: &Runtime<'_>, left: &mut Vec<Slot>, ours: &mut Vec<Slot>) {
    let place = |slot: &Slot| u64::from_str_radix(&slot.0, 16).unwrap_or(0);
    let is_object = |slot: &Slot| {
        slot.1 == 0 || slot.2 || runtime.heap().is_ok_and(|heap| heap.segment_of(slot.1).is_some())
    };
    let methods: BTreeSet<u64> = left.iter().map(|slot| slot.4).collect();
    for ip in methods {
        let theirs: Vec<Slot> = left.iter().filter(|slot| slot.4 == ip).cloned().collect();
        let true_ones: Vec<Slot> = ours.iter().filter(|slot| slot.4 == ip).cloned().collect();
        let displaced = |by: u64| {
            theirs.iter().all(|slot| {
                true_ones.iter().any(|other| {
                    (place(other), other.2, other.3) == (place(slot).wrapping_add(by), slot.2, slot.3)
                })
            })
        };
        let mut distances = true_ones.iter().map(|slot| place(slot).wrapping_sub(place(&theirs[0])));
        if distances.any(displaced) && true_ones.iter().all(is_object) {
            left.retain(|slot| slot.4 != ip);
            ours.retain(|slot| slot.4 != ip);
        }
    }
}

/// Whether the slots are none of those of the frames up to the innermost handler.
fn takes_handler_for_unwound(runtime: &Runtime<'_>, thread: &Thread, theirs: &[Slot]) -> bool {
    let stack = runtime.stack(thread);
    let handler = stack.managed().position(|(_, code)| code.funclet);
    let inner: Vec<u64> =
        stack.managed().take(handler.map_or(0, |i| i + 1)).map(|(frame, _)| frame.ip).collect();
    handler.is_some() && theirs.iter().all(|slot| !inner.contains(&slot.4))
}

pub(super) fn against_oracle(what: &str, core: &Core, roots: bool, how: Threads) -> Option<Compared> {
    against(what, core, None, roots, how)
}

/// The same with another library than the one beside the runtime.
pub(super) fn against(
    what: &str,
    core: &Core,
    dac: Option<&Path>,
    roots: bool,
    how: Threads,
) -> Option<Compared> {
    let stacks = oracle_for(&core.path(), dac, &["stacks"])?;
    let roots = if roots { Some(oracle_for(&core.path(), dac, &["roots"])?) } else { None };
    let roots = roots.as_ref().map(|roots| &roots["roots"]);
    Some(compare(what, &core.path(), &stacks["stacks"], roots, how))
}
