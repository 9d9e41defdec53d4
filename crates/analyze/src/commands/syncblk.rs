//! `syncblk`.

use dnd_clr::{Runtime, SyncBlock};
use dnd_contract::Addr;
use serde::Serialize;

use crate::args::Opt;
use crate::error::Error;
use crate::inspect::{os_threads, runtime_name};
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["syncblk", "SyncBlk"],
    operands: "[<index>]",
    max_operands: 1,
    options: &[Opt::flag(&["all"], "Also those whose lock nobody holds.")],
    summary: "Shows the locks that are held: object, owner, waiting threads.",
    about: "MonitorHeld is 1 for the owner and 2 more for every waiting thread. Locks that nobody waits for mostly have \
            no sync block: dumpheap -thinlock lists these. The index is decimal. deadlocks tells who waits for whom.",
    run,
};

#[derive(Debug, Serialize)]
struct Table {
    blocks: Vec<Block>,
    /// Entries of the table that were ever used.
    total: u32,
    free: u32,
}

#[derive(Debug, Serialize)]
struct Block {
    index: u32,
    sync_block: Addr,
    object: Addr,
    #[serde(rename = "type")]
    type_name: String,
    locked: bool,
    waiters: u32,
    recursion: u32,
    owner: Option<Owner>,
}

#[derive(Debug, Serialize)]
struct Owner {
    thread: Addr,
    managed_id: u32,
    os_id: u32,
    /// Place among the dump's threads; null for a thread that has ended.
    index: Option<usize>,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let runtime = call.runtime();
    let wanted = match call.args.operands().first() {
        None => None,
        Some(text) => match text.parse::<u32>() {
            Ok(index) => Some(index),
            Err(_) => return Err(call.args.usage(format!("wants an index (decimal), not `{text}`"))),
        },
    };
    let all = call.args.flag("all") || wanted.is_some();
    let table = runtime.sync_blocks()?;
    if table.cut {
        call.note(format!("the dump has no sync blocks behind number {}", table.total));
    }
    let ids = os_threads(runtime);
    let blocks: Vec<Block> = table
        .blocks
        .iter()
        .filter(|block| all || block.locked || block.waiters != 0)
        .filter(|block| wanted.is_none_or(|index| index == block.index))
        .map(|found| block(runtime, &ids, found))
        .collect();
    if let Some(index) = wanted.filter(|_| blocks.is_empty()) {
        return Err(Error::NotFound(format!("there is no sync block {index} in use")));
    }
    call.emit("syncblk", 1, &Table { blocks, total: table.total, free: table.free })
}

fn block(runtime: &Runtime<'_>, ids: &[u32], block: &SyncBlock) -> Block {
    let threads = runtime.threads().map(|all| all.threads.as_slice()).unwrap_or_default();
    let owner = threads.iter().find(|thread| block.owner == Some(thread.address));
    Block {
        index: block.index,
        sync_block: Addr(block.address),
        object: Addr(block.object),
        type_name: runtime
            .object(block.object)
            .map_or_else(|_| "<unreadable object>".to_owned(), |object| runtime_name(runtime, object.table)),
        locked: block.locked,
        waiters: block.waiters,
        recursion: block.recursion,
        owner: owner.map(|thread| Owner {
            thread: Addr(thread.address),
            managed_id: thread.id,
            os_id: thread.os_id,
            index: ids.binary_search(&thread.os_id).ok().filter(|_| thread.os_id != 0),
        }),
    }
}

impl Facts for Table {
    fn text(&self, out: &mut Out<'_>) {
        out.line("Index         SyncBlock MonitorHeld Recursion Owning Thread Info          SyncBlock Owner");
        for block in &self.blocks {
            let held = u64::from(block.locked) + 2 * u64::from(block.waiters);
            out.fmt(format_args!(
                "{:>5} {:016X}  {held:>11} {:>9} ",
                block.index, block.sync_block.0, block.recursion
            ));
            match &block.owner {
                Some(owner) => {
                    out.fmt(format_args!("{:016X} {:x}", owner.thread.0, owner.os_id));
                    match owner.index {
                        Some(index) => out.fmt(format_args!("{index:>4} ")),
                        None => out.str(" XXX "),
                    }
                }
                None => out.fmt(format_args!("{:016X}     none  ", 0)),
            }
            out.fmt(format_args!("  {:016x} ", block.object.0));
            out.name(&block.type_name);
            out.end();
        }
        out.line("-----------------------------");
        out.field("Total", 16, &self.total.to_string());
        out.field("Free", 16, &self.free.to_string());
    }
}
