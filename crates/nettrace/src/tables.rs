//! Tables that only version 6 has: threads and label lists that events refer to by index.

use std::collections::HashMap;

use crate::cursor::Cursor;
use crate::error::Damage;

const MOST_ROWS: usize = 1 << 18;

/// The activity ids of a label list; other labels have no user yet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Labels {
    pub(crate) activity: [u8; 16],
    pub(crate) related_activity: [u8; 16],
}

/// Threads and labels that events may refer to now.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    threads: HashMap<u64, u64>,
    labels: HashMap<u32, Labels>,
}

impl Tables {
    /// The id of a thread, from its index; the index itself if the stream doesn't tell.
    pub(crate) fn thread(&self, index: u64) -> u64 {
        self.threads.get(&index).copied().unwrap_or(index)
    }

    /// The labels of a list; list 0 is the empty one.
    pub(crate) fn labels(&self, list: u32) -> Labels {
        self.labels.get(&list).copied().unwrap_or_default()
    }

    /// Reads a thread block: rows of index and tagged facts.
    pub(crate) fn add_threads(&mut self, block: &[u8]) -> Result<(), Damage> {
        let mut cursor = Cursor::new(block);
        while cursor.left() > 0 {
            let size = usize::from(cursor.u16()?);
            let mut row = Cursor::new(cursor.take(size)?);
            let index = row.varuint64()?;
            while row.left() > 0 {
                match row.u8()? {
                    1 => drop(row.utf8_counted()?), // name
                    2 => drop(row.varuint64()?),    // process id
                    3 => {
                        if self.threads.len() >= MOST_ROWS {
                            return Err(Damage::TooMany(MOST_ROWS));
                        }
                        self.threads.insert(index, row.varuint64()?);
                    }
                    4 => {
                        row.utf8_counted()?;
                        row.utf8_counted()?;
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Reads a removed-thread block: index and last sequence number of each. Calls `removed` with both.
    pub(crate) fn remove_threads(
        &mut self,
        block: &[u8],
        mut removed: impl FnMut(u64, u32),
    ) -> Result<(), Damage> {
        let mut cursor = Cursor::new(block);
        while cursor.left() > 0 {
            let (index, sequence) = (cursor.varuint64()?, cursor.varuint32()?);
            removed(index, sequence);
            self.threads.remove(&index);
        }
        Ok(())
    }

    /// Reads a label block: first number, count, then the labels of each list, the last one marked by its high bit.
    pub(crate) fn add_labels(&mut self, block: &[u8]) -> Result<(), Damage> {
        let mut cursor = Cursor::new(block);
        let (first, count) = (cursor.u32()?, cursor.u32()?);
        for number in 0..count {
            let mut labels = Labels::default();
            loop {
                let kind = cursor.u8()?;
                match kind & 0x7f {
                    1 => labels.activity = cursor.guid()?,
                    2 => labels.related_activity = cursor.guid()?,
                    3 => drop(cursor.guid()?),    // trace id
                    4 | 8 => drop(cursor.u64()?), // span id; keywords
                    5 => {
                        cursor.utf8_counted()?;
                        cursor.utf8_counted()?;
                    }
                    6 => {
                        cursor.utf8_counted()?;
                        cursor.varuint64()?;
                    }
                    7 | 9 | 10 => drop(cursor.u8()?), // opcode, level, version
                    _ => return Err(Damage::UnknownLabel(kind & 0x7f)),
                }
                if kind & 0x80 != 0 {
                    break;
                }
            }
            if self.labels.len() >= MOST_ROWS {
                return Err(Damage::TooMany(MOST_ROWS));
            }
            self.labels.insert(first.wrapping_add(number), labels);
        }
        Ok(())
    }

    /// A sequence point: labels are always forgotten, threads if it says so.
    pub(crate) fn sequence_point(&mut self, forget_threads: bool) {
        self.labels.clear();
        if forget_threads {
            self.threads.clear();
        }
    }
}
