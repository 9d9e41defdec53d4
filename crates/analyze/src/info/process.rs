//! The process that a dump is of.

use dnd_clr::Runtime;
use dnd_contract::Addr;
use dnd_memory::{Core, Maker, Memory, Target};
use serde::Serialize;

/// The process of a dump.
#[derive(Debug, Serialize)]
pub struct Process {
    /// Its id, in its own pid namespace.
    pub pid: u32,
    /// Its parent's.
    pub ppid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Name of the executable, cut to 15 bytes by the kernel.
    pub name: String,
    /// Its command line, one string for each argument, or all in one when only the dump's note has it.
    pub arguments: Vec<String>,
    /// Where the command line is from.
    pub arguments_from: ArgumentsFrom,
}

/// Where a command line is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArgumentsFrom {
    /// The process's stack, where the kernel put it: complete.
    Stack,
    /// The dump's note: cut to 79 bytes, blanks between the arguments.
    Note,
}

pub(super) fn process(core: &Core) -> Option<Process> {
    let note = core.process()?;
    let (arguments, arguments_from) = match arguments(core) {
        Some(arguments) => (arguments, ArgumentsFrom::Stack),
        None => (vec![note.command.clone()], ArgumentsFrom::Note),
    };
    Some(Process {
        pid: note.pid,
        ppid: note.ppid,
        uid: note.uid,
        gid: note.gid,
        name: note.name.clone(),
        arguments,
        arguments_from,
    })
}

/// `AT_RANDOM`: the address of 16 bytes that the kernel puts between the vectors and the strings.
const AT_RANDOM: u64 = 25;
/// How far below those the auxiliary vector can begin: it is 400 bytes long, with padding between.
const SEARCH: u64 = 4096;
/// More than the kernel passes on (a quarter of the stack's 8 MB, in pointers).
const MAX_STRINGS: u64 = 1 << 18;
/// Longest single argument (`MAX_ARG_STRLEN`).
const MAX_STRING: usize = 128 << 10;
/// All arguments together, for a process that has more than anybody would read.
const MAX_TOTAL: usize = 1 << 20;

/// The arguments, from the top of the first thread's stack (Linux `fs/binfmt_elf.c`, `create_elf_tables`): count,
/// pointers, NULL, environment pointers, NULL, auxiliary vector.
fn arguments(core: &Core) -> Option<Vec<String>> {
    let auxv = core.auxv();
    let random = auxv.iter().find(|entry| entry.key == AT_RANDOM)?.value & !7;
    let (first, second) = (auxv.first()?, auxv.get(1)?);
    let word = |at: u64| core.u64(at).ok();
    let begins = |at: &u64| {
        [first.key, first.value, second.key, second.value]
            .iter()
            .enumerate()
            .all(|(i, &expected)| word(at + 8 * i as u64) == Some(expected))
    };
    let vector = (1..SEARCH / 8).filter_map(|i| random.checked_sub(8 * i)).find(begins)?;
    // Both lists of pointers end with a NULL.
    let mut at = vector.checked_sub(8).filter(|&at| word(at) == Some(0))?;
    for _ in 0..MAX_STRINGS {
        at = at.checked_sub(8)?;
        if word(at)? == 0 {
            break;
        }
    }
    let mut pointers = Vec::new();
    loop {
        at = at.checked_sub(8)?;
        let pointer = word(at)?;
        if pointer == pointers.len() as u64 {
            break;
        }
        if pointers.len() as u64 >= MAX_STRINGS {
            return None;
        }
        pointers.push(pointer);
    }
    let mut total = 0;
    let mut out = Vec::new();
    for pointer in pointers.into_iter().rev() {
        core.u8(pointer).ok()?;
        let bytes = core.c_string(pointer, MAX_STRING);
        total += bytes.len() + 1;
        if total > MAX_TOTAL {
            break;
        }
        out.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    (!out.is_empty()).then_some(out)
}

/// The signal that a dump was taken for.
#[derive(Debug, Clone, Serialize)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Its name.
    pub name: Option<&'static str>,
    /// `si_code`, 0 when the dump doesn't tell.
    pub code: i32,
    /// For a fault: the address that was touched.
    pub fault_address: Option<Addr>,
    /// Id of the thread that got it.
    pub thread: Option<u32>,
    /// That thread's managed id.
    pub managed_thread: Option<u32>,
    /// Where it was when the dump was taken.
    pub instruction: Option<Addr>,
}

/// Signals that mean nothing: gdb stops a process with these to write its core.
const STOPS: [i32; 3] = [0, 5, 19];

/// The signal that a dump was taken for; `None` when it was for none, or it does not tell.
#[must_use]
pub fn signal(core: &Core, runtime: Option<&Runtime<'_>>) -> Option<Signal> {
    let signal = core.signal()?;
    let threads = core.threads();
    let number = u16::try_from(signal.number).ok()?;
    let with_it = threads.iter().filter(|thread| thread.signal == number).count();
    match core.maker() {
        // createdump of 3.1 writes SIGABRT for all threads, whatever happened.
        Some(Maker::Createdump) if with_it > 1 && with_it == threads.len() => return None,
        Some(Maker::Gcore) if STOPS.contains(&signal.number) => return None,
        _ => {}
    }
    // Linux puts the thread first that the core is written for.
    let thread = threads.iter().find(|thread| thread.signal == number).or(threads.first());
    let managed = |tid: u32| runtime?.thread_by_os_id(tid).map(|thread| thread.id);
    Some(Signal {
        number: signal.number,
        name: name(signal.number),
        code: signal.code,
        fault_address: signal.fault_address.map(Addr),
        thread: thread.map(|thread| thread.tid),
        managed_thread: thread.and_then(|thread| managed(thread.tid)),
        instruction: thread.map(|thread| Addr(thread.registers.ip())),
    })
}

/// signal(7), x86-64 and arm64.
fn name(number: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    NAMES.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_of_signals() {
        assert_eq!(
            (name(1), name(6), name(11), name(31)),
            (Some("SIGHUP"), Some("SIGABRT"), Some("SIGSEGV"), Some("SIGSYS"))
        );
        assert_eq!((name(0), name(32), name(-1)), (None, None, None));
    }
}
