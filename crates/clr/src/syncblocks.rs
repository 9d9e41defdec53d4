//! Sync blocks: what the runtime keeps for an object whose lock does not fit into its header.
//!
//! Source: `src/coreclr/vm/syncblk.h` (`SyncTableEntry`, `SyncBlock`, `AwareLock`) of dotnet/runtime v8.0.0 to v10.0.14 and
//! dotnet/coreclr v3.1.23.

use crate::error::{Error, Reading};
use crate::runtime::Runtime;

/// `SyncTableEntry`: sync block, object.
const ENTRY: u64 = 16;
/// Indices have 26 bits.
const MAX_INDEX: u32 = 1 << 26;
/// `AwareLock::LockState`: the lock is held.
const LOCKED: u32 = 1;
/// The same: number of waiting threads.
const WAITERS_SHIFT: u32 = 6;

/// A sync block in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncBlock {
    /// Its number in the table, which the object's header holds.
    pub index: u32,
    /// `SyncBlock*`; 0 when the entry was made and not yet filled.
    pub address: u64,
    /// The object.
    pub object: u64,
    /// The lock is held.
    pub locked: bool,
    /// Threads that wait for the lock.
    pub waiters: u32,
    /// How often the owner has entered the lock; 0 when nobody has.
    pub recursion: u32,
    /// `Thread*` of the owner; `None` when nobody owns it, or no thread is known by the id that stands there.
    pub owner: Option<u64>,
}

/// The table of sync blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncBlocks {
    /// Those in use, by index.
    pub blocks: Vec<SyncBlock>,
    /// Entries of the table that were ever used.
    pub total: u32,
    /// Entries that are free again.
    pub free: u32,
    /// The dump ends before the table does.
    pub cut: bool,
}

impl Runtime<'_> {
    /// The sync blocks.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`] for the table, those of the heap and the threads.
    pub fn sync_blocks(&self) -> Result<SyncBlocks, Error> {
        let memory = self.target();
        let table = memory.u64(self.globals().sync_table).reading("the pointer to the sync block table")?;
        if table == 0 {
            return Err(Error::Damaged { what: "the sync block table", addr: self.globals().sync_table });
        }
        // Entry 0 is none.
        memory.u64(table).reading("the sync block table")?;
        let heap = self.heap()?;
        let mut out = SyncBlocks::default();
        for index in 1..MAX_INDEX {
            let at = table.wrapping_add(ENTRY * u64::from(index));
            let (Ok(address), Ok(object)) = (memory.u64(at), memory.u64(at.wrapping_add(8))) else {
                out.cut = true;
                break;
            };
            let free = address == 0 && object & 1 == 1;
            // The table is zero behind the last entry that was ever used; a table that is full ends in something else.
            let in_use = object & 7 == 0 && heap.segment_of(object).is_some();
            if !free && !in_use {
                break;
            }
            out.total = index;
            if free {
                out.free += 1;
            } else {
                out.blocks.push(self.sync_block(index, address, object)?);
            }
        }
        Ok(out)
    }

    fn sync_block(&self, index: u32, address: u64, object: u64) -> Result<SyncBlock, Error> {
        if address == 0 {
            return Ok(SyncBlock {
                index,
                address,
                object,
                locked: false,
                waiters: 0,
                recursion: 0,
                owner: None,
            });
        }
        let memory = self.target();
        let what = "a sync block";
        let state = memory.u32(address).reading(what)?;
        let recursion = memory.u32(address.wrapping_add(4)).reading(what)?;
        let holder = memory.u64(address.wrapping_add(8)).reading(what)?;
        let threads = &self.threads()?.threads;
        let owner = if self.layout().sync.holder_is_id {
            let id = holder & u64::from(u32::MAX);
            threads.iter().find(|thread| id != 0 && u64::from(thread.id) == id)
        } else {
            threads.iter().find(|thread| thread.address == holder)
        };
        let locked = state & LOCKED != 0;
        Ok(SyncBlock {
            index,
            address,
            object,
            locked,
            waiters: state >> WAITERS_SHIFT,
            recursion,
            owner: owner.map(|thread| thread.address),
        })
    }
}
