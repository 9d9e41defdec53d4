//! Call stacks that events refer to by number, kept until the next sequence point.

use crate::cursor::Cursor;
use crate::error::Damage;

/// Real caches hold a few hundred stacks.
const MOST_BYTES: usize = 32 << 20;
const MOST_STACKS: usize = 1 << 20;

/// A run of stacks with consecutive numbers.
#[derive(Debug)]
struct Run {
    first: u32,
    /// Where each stack ends in the bytes; the first begins where the run before ends.
    start: usize,
    ends: Vec<usize>,
}

/// The stacks that events may refer to now.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    count: usize,
}

impl Stacks {
    /// Reads a stack block: first number, count, then size and addresses of each.
    pub(crate) fn add(&mut self, block: &[u8]) -> Result<(), Damage> {
        let mut cursor = Cursor::new(block);
        let (first, count) = (cursor.u32()?, cursor.u32()?);
        let mut run = Run { first, start: self.bytes.len(), ends: Vec::new() };
        let mut result = Ok(());
        for _ in 0..count {
            result = (|| {
                let size = cursor.u32()? as usize;
                let addresses = cursor.take(size)?;
                if self.bytes.len() + size > MOST_BYTES {
                    return Err(Damage::StacksTooLarge(MOST_BYTES));
                }
                self.count += 1;
                if self.count > MOST_STACKS {
                    return Err(Damage::TooMany(MOST_STACKS));
                }
                self.bytes.extend_from_slice(addresses);
                run.ends.push(self.bytes.len());
                Ok(())
            })();
            if result.is_err() {
                break;
            }
        }
        // Stacks before the damage are good.
        if !run.ends.is_empty() {
            self.runs.push(run);
        }
        result
    }

    /// The addresses of a stack, as sent; `None` if there is no such stack.
    pub(crate) fn get(&self, id: u32) -> Option<&[u8]> {
        self.runs.iter().rev().find_map(|run| {
            let index = id.checked_sub(run.first)? as usize;
            let end = *run.ends.get(index)?;
            let start =
                index.checked_sub(1).and_then(|before| run.ends.get(before)).copied().unwrap_or(run.start);
            self.bytes.get(start..end)
        })
    }

    /// Forgets all stacks: a sequence point was reached.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
        self.count = 0;
    }
}
