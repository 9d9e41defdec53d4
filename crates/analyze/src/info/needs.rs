//! What of a dump each command needs.

/// Parts of a dump, a bit each.
pub(super) type Needs = u16;

/// Only what every dump of .NET has.
const NOTHING: Needs = 0;
/// It looks at objects.
pub(super) const OBJECTS: Needs = 1 << 0;
/// It walks the heap.
pub(super) const WALK: Needs = 1 << 1;
/// It can answer without objects, but then not what they are.
pub(super) const OBJECT_NAMES: Needs = 1 << 2;
/// The heap's structure: segments, generations, what hangs on them.
pub(super) const SEGMENTS: Needs = 1 << 3;
/// The handle tables.
pub(super) const HANDLES: Needs = 1 << 4;
/// The finalizer queues.
pub(super) const FINALIZERS: Needs = 1 << 5;
/// The sync block table.
pub(super) const SYNC_BLOCKS: Needs = 1 << 6;
/// The list of managed threads.
pub(super) const THREADS: Needs = 1 << 7;
/// The threads' stacks, to their first frames.
pub(super) const STACKS: Needs = 1 << 8;
/// Names of types, fields and methods, from metadata.
pub(super) const NAMES: Needs = 1 << 9;
/// The list of modules.
pub(super) const MODULES: Needs = 1 << 10;

/// Every command, by the name that JSON has for it.
const TABLE: &[(&str, Needs)] = &[
    ("dumpheap", OBJECTS | WALK | NAMES),
    ("dumpobj", OBJECTS | NAMES),
    ("dumparray", OBJECTS | NAMES),
    ("dumpvc", OBJECTS),
    ("gcroot", OBJECTS | WALK | HANDLES | FINALIZERS | THREADS | STACKS | NAMES | MODULES),
    ("pathto", OBJECTS | WALK | NAMES),
    ("objsize", OBJECTS | WALK),
    ("listnearobj", OBJECTS | WALK),
    ("dumpdelegate", OBJECTS | NAMES),
    ("dumpexceptions", OBJECTS | WALK | NAMES),
    ("printexception", OBJECTS | THREADS | NAMES),
    ("dumpasync", OBJECTS | WALK | NAMES),
    ("taskstate", OBJECTS),
    ("threadpool", OBJECTS | WALK | NAMES),
    ("threadpoolqueue", OBJECTS | WALK | NAMES),
    ("timerinfo", OBJECTS | WALK | NAMES),
    ("dumphttp", OBJECTS | WALK | NAMES),
    ("dumpconcurrentdictionary", OBJECTS | NAMES),
    ("dumpconcurrentqueue", OBJECTS | NAMES),
    ("dumpgen", OBJECTS | WALK | NAMES),
    ("gcheapstat", OBJECTS | WALK),
    ("sizestats", OBJECTS | WALK),
    ("verifyheap", OBJECTS | WALK),
    ("verifyobj", OBJECTS),
    ("dumpstackobjects", OBJECTS | THREADS | STACKS | NAMES),
    ("gcwhere", WALK | SEGMENTS),
    ("finalizequeue", OBJECT_NAMES | SEGMENTS | FINALIZERS | NAMES),
    ("gchandles", OBJECT_NAMES | SEGMENTS | HANDLES | NAMES),
    ("syncblk", OBJECT_NAMES | SYNC_BLOCKS | THREADS | NAMES),
    ("deadlocks", OBJECT_NAMES | SYNC_BLOCKS | THREADS | STACKS | NAMES),
    ("clrthreads", OBJECT_NAMES | THREADS),
    ("clrstack", OBJECT_NAMES | THREADS | STACKS | NAMES),
    ("crashinfo", OBJECT_NAMES | THREADS | STACKS | NAMES),
    ("dumpalc", OBJECT_NAMES | SEGMENTS | HANDLES | MODULES),
    ("parallelstacks", THREADS | STACKS | NAMES),
    ("eeheap", SEGMENTS),
    ("analyzeoom", SEGMENTS),
    ("dumpmt", NAMES),
    ("dumpmd", NAMES),
    ("dumpmodule", NAMES),
    ("ip2md", NAMES),
    ("token2ee", NAMES),
    ("name2ee", NAMES | MODULES),
    ("clrmodules", MODULES),
    ("dumpdomain", MODULES),
    ("dumpassembly", NOTHING),
    ("eeversion", NOTHING),
    ("exit", NOTHING),
    ("help", NOTHING),
    ("modules", NOTHING),
    ("registers", NOTHING),
    ("threadstate", NOTHING),
    ("threads", NOTHING),
];

/// The commands that need one of these parts.
pub(super) fn commands(parts: Needs) -> Vec<&'static str> {
    TABLE.iter().filter(|(_, needs)| needs & parts != 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    #[test]
    fn every_command_has_one_row() {
        let mut listed: Vec<_> = TABLE.iter().map(|(name, _)| *name).collect();
        let mut known: Vec<_> = table::COMMANDS.iter().map(|command| command.name()).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }
}
