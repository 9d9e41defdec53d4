//! [`Runtime`]: objects, by address and by walking segments.

use std::ops::ControlFlow;

use super::Runtime;
use crate::error::{Error, Reading};
use crate::heap::{Heap, Segment};
use crate::progress::Progress;
use crate::walk::{self, Damage, Object, Statistics, Walker};

impl Runtime<'_> {
    /// The object at an address: its type and size. Checks that the type can be one, not that the address is the start
    /// of an object; [`Self::find_object`] does.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`].
    pub fn object(&self, address: u64) -> Result<Object, Error> {
        let word = self.target.u64(address).reading("an object")?;
        let table =
            self.method_table(word & !7).map_err(|_| Error::Damaged { what: "the object", addr: address })?;
        let count = if table.component_size == 0 {
            0
        } else {
            self.target.u32(address.wrapping_add(8)).reading("an object's length")?
        };
        Ok(Object { address, table: table.address, size: table.object_size(count) })
    }

    /// The object that holds an address, and the one before it in the same segment, by a walk of the segment.
    ///
    /// # Errors
    /// As for [`Self::walk`].
    pub fn find_object(&self, address: u64, progress: &Progress) -> Result<Option<Object>, Error> {
        let heap = self.heap()?;
        let Some(segment) = heap.segment_of(address) else { return Ok(None) };
        let mut found = None;
        self.walk(segment, progress, |object| {
            if object.address > address {
                return ControlFlow::Break(());
            }
            if address - object.address < object.size.saturating_add(7) & !7 {
                found = Some(object);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn walker<'r>(&'r self, heap: &'r Heap, progress: &'r Progress) -> Walker<'r> {
        Walker::new(self.target, &self.layout, heap, &self.free, progress)
    }

    /// Calls `visit` for every object of a segment, by address, free space included.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; damage is no error but counted in what is returned.
    pub fn walk(
        &self,
        segment: &Segment,
        progress: &Progress,
        mut visit: impl FnMut(Object) -> ControlFlow<()>,
    ) -> Result<Damage, Error> {
        let mut walker = self.walker(self.heap()?, progress);
        let _ = walker
            .segment(segment, |address, slot, size| visit(Object { address, table: slot.table, size }))?;
        Ok(walker.damage)
    }

    /// Walks several segments one after the other; cheaper than [`Self::walk`] for each.
    ///
    /// # Errors
    /// As for [`Self::walk`].
    pub fn walk_all<'s>(
        &self,
        segments: impl IntoIterator<Item = &'s Segment>,
        progress: &Progress,
        mut visit: impl FnMut(&Segment, Object) -> ControlFlow<()>,
    ) -> Result<Damage, Error> {
        let mut walker = self.walker(self.heap()?, progress);
        for segment in segments {
            let flow = walker.segment(segment, |address, slot, size| {
                visit(segment, Object { address, table: slot.table, size })
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(walker.damage)
    }

    /// Walks several segments like [`Self::walk_all`], for the objects of one type; on several threads.
    ///
    /// # Errors
    /// As for [`Self::walk`].
    pub fn walk_type(
        &self,
        segments: &[Segment],
        table: u64,
        threads: usize,
        progress: &Progress,
        visit: impl FnMut(&Segment, Object) -> ControlFlow<()>,
    ) -> Result<Damage, Error> {
        let heap = self.heap()?;
        walk::each_of(&|| self.walker(heap, progress), segments, threads, table, visit)
    }

    /// Counts the objects of some segments by type, on several threads.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn count(
        &self,
        segments: &[Segment],
        threads: usize,
        progress: &Progress,
    ) -> Result<Statistics, Error> {
        let heap = self.heap()?;
        progress.start(segments.iter().map(Segment::len).sum());
        walk::count(&|| self.walker(heap, progress), segments, threads)
    }
}
