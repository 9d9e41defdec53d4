//! What a parser hands out.

use crate::clock::TraceInfo;
use crate::error::Error;
use crate::metadata::EventType;
use crate::value::{self, Payload};

/// The next thing found in a stream.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// The trace header; the first item of every stream.
    Trace(&'a TraceInfo),
    /// An event.
    Event(Event<'a>),
    /// Events that the target could not keep, noticed by a gap of sequence numbers.
    Dropped(Dropped),
    /// A block, or an event in it, that could not be read. What follows can be.
    Damaged(Error),
}

/// Events of one thread that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// The thread that wrote them.
    pub thread: u64,
    /// How many are missing.
    pub count: u32,
}

/// An event, borrowed from the parser.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// What it is.
    pub kind: &'a EventType,
    /// The trace's clock when it happened; see [`TraceInfo::unix_nanos`].
    pub timestamp: u64,
    /// The thread it is about, by its id in the target's pid namespace.
    pub thread: u64,
    /// The thread that wrote it: differs from `thread` for samples.
    pub capture_thread: u64,
    /// The processor it was written on; meaningless unless the trace has that number of processors.
    pub processor: u32,
    /// Id of the activity it belongs to; zeros for none.
    pub activity: [u8; 16],
    /// Id of a related activity; zeros for none.
    pub related_activity: [u8; 16],
    /// The call stack.
    pub stack: Stack<'a>,
    /// The payload as sent.
    pub payload: &'a [u8],
}

impl<'a> Event<'a> {
    /// Decodes the payload with the field list of the stream.
    #[must_use]
    pub fn decode(&self) -> Payload<'a> {
        value::decode(self.kind, self.payload)
    }
}

/// A call stack, innermost frame first.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) pointer_size: u32,
}

impl<'a> Stack<'a> {
    /// Whether the event has no stack.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The code addresses: the first is where the thread was, the others are where calls return to.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + use<'a> {
        let (narrow, wide) = if self.pointer_size == 4 {
            (self.bytes.as_chunks::<4>().0, &[][..])
        } else {
            (&[][..], self.bytes.as_chunks::<8>().0)
        };
        let narrow = narrow.iter().map(|&bytes| u64::from(u32::from_le_bytes(bytes)));
        narrow.chain(wide.iter().map(|&bytes| u64::from_le_bytes(bytes)))
    }
}

/// Counts over a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Events handed out.
    pub events: u64,
    /// Events that the target dropped.
    pub dropped: u64,
    /// Blocks and events that could not be read.
    pub damaged: u64,
    /// Blocks of kinds this reader does not know.
    pub unknown_blocks: u64,
    /// Times that more events waited for their turn than are kept, so that some were handed out in the order in
    /// which they were written.
    pub order_given_up: u64,
}
