//! From bytes to items.

use std::collections::VecDeque;

use crate::blob::{self, Encoding, Header};
use crate::clock::TraceInfo;
use crate::container::{Block, BlockKind, Container, Next};
use crate::cursor::{Cursor, OutOfBytes};
use crate::error::{Damage, Error};
use crate::event::{Dropped, Event, Item, Stack, Statistics};
use crate::metadata::{self, EventType, EventTypes};
use crate::sequence::Sequences;
use crate::stacks::Stacks;
use crate::tables::Tables;
use crate::waiting::{Record, Waiting};

/// Notes that one block may leave: what it has beyond that is added up, or only counted.
const MOST_NOTES: usize = 1 << 10;

/// The order in which events are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they come: in order of time within a thread, not across threads. Nothing waits; right for live counters.
    AsWritten,
    /// In order of time. Events wait until the stream says that no older one can follow.
    ByTime,
}

/// A streaming parser; see the crate's description.
#[derive(Debug)]
pub struct Parser {
    order: Order,
    container: Container,
    trace: Option<TraceInfo>,
    types: EventTypes,
    stacks: Stacks,
    sequences: Sequences,
    tables: Tables,
    /// The event block being read.
    current: Option<Current>,
    /// A sequence point that takes effect once the events before it are out.
    point: Option<Block>,
    waiting: Waiting,
    /// Small items that go out before anything else.
    notes: VecDeque<Note>,
    failed: Option<Error>,
    finished: bool,
    statistics: Statistics,
}

#[derive(Debug)]
enum Note {
    Trace,
    Dropped(Dropped),
    Damaged(Error),
}

#[derive(Debug)]
struct Current {
    block: Block,
    at: usize,
    encoding: Encoding,
    header: Header,
    /// Events that can't be understood.
    unknown: usize,
}

impl Parser {
    /// A parser for one stream.
    #[must_use]
    pub fn new(order: Order) -> Self {
        Self {
            order,
            container: Container::new(),
            trace: None,
            types: EventTypes::default(),
            stacks: Stacks::default(),
            sequences: Sequences::default(),
            tables: Tables::default(),
            current: None,
            point: None,
            waiting: Waiting::default(),
            notes: VecDeque::new(),
            failed: None,
            finished: false,
            statistics: Statistics::default(),
        }
    }

    /// Adds bytes of the stream. [`Parser::read`] until it gives `None` before adding more, so that they don't pile up.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.container.ended() && self.failed.is_none() {
            self.container.push(bytes);
        }
    }

    /// Says that no more bytes will come: events that waited for their turn go out.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether the end mark was read. If not, the stream was cut off: its writer was killed, or a file was truncated.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.container.ended()
    }

    /// The trace header, once it was read.
    #[must_use]
    pub fn trace(&self) -> Option<&TraceInfo> {
        self.trace.as_ref()
    }

    /// How many bytes of the stream were understood.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.container.offset()
    }

    /// Counts so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Takes the next item out of the bytes pushed so far; `None` if they hold no further one.
    ///
    /// # Errors
    ///
    /// The stream can't be read from here on; everything before was handed out, and the error stays.
    pub fn read(&mut self) -> Result<Option<Item<'_>>, Error> {
        loop {
            if let Some(note) = self.notes.pop_front() {
                return Ok(Some(match note {
                    // A note of the header is made where the header is stored.
                    Note::Trace => match &self.trace {
                        Some(trace) => Item::Trace(trace),
                        None => return Ok(None),
                    },
                    Note::Dropped(dropped) => Item::Dropped(dropped),
                    Note::Damaged(error) => Item::Damaged(error),
                }));
            }
            if let Some(record) = self.waiting.pop() {
                return Ok(Some(self.item(record)));
            }
            self.waiting.reclaim();
            if let Some(block) = self.point.take() {
                self.sequence_point(block);
                continue;
            }
            if self.current.is_some() {
                if let Some(record) = self.next_blob() {
                    return Ok(Some(self.item(record)));
                }
                continue;
            }
            self.container.compact();
            if self.failed.is_none() {
                match self.container.next() {
                    Ok(Next::Block(block)) => {
                        self.begin(block);
                        continue;
                    }
                    Ok(Next::Wait) if !self.finished => return Ok(None),
                    Ok(Next::Wait | Next::End) => {}
                    Err(error) => self.failed = Some(error),
                }
            }
            // Nothing more will come.
            if !self.waiting.is_empty() {
                self.waiting.until = Some(u64::MAX);
                continue;
            }
            return self.failed.clone().map_or(Ok(None), Err);
        }
    }

    fn item(&mut self, record: Record) -> Item<'_> {
        self.statistics.events += 1;
        let (start, end) = record.payload;
        let payload = if record.set_aside {
            self.waiting.payload(record.payload)
        } else {
            self.container.bytes(start, end)
        };
        let header = record.header;
        Item::Event(Event {
            kind: self.types.get(record.event_type).unwrap_or(EventType::UNKNOWN),
            timestamp: header.timestamp,
            thread: header.thread,
            capture_thread: header.capture_thread,
            processor: header.processor,
            activity: header.activity,
            related_activity: header.related_activity,
            stack: Stack {
                bytes: self.stacks.get(header.stack).unwrap_or_default(),
                pointer_size: self.trace.as_ref().map_or(8, |trace| trace.pointer_size),
            },
            payload,
        })
    }

    fn damaged(&mut self, block: Block, what: impl Into<Damage>) {
        self.statistics.damaged += 1;
        if self.notes.len() < MOST_NOTES {
            let error = Error::Block { block: block.kind, offset: block.offset, what: what.into() };
            self.notes.push_back(Note::Damaged(error));
        }
    }

    fn dropped(&mut self, thread: u64, count: u32) {
        if count > 0 {
            self.statistics.dropped = self.statistics.dropped.saturating_add(count.into());
            let dropped = Dropped { thread, count };
            let full = self.notes.len() >= MOST_NOTES;
            match self.notes.back_mut() {
                Some(Note::Dropped(last)) if full => last.count = last.count.saturating_add(count),
                _ => self.notes.push_back(Note::Dropped(dropped)),
            }
        }
    }

    fn begin(&mut self, block: Block) {
        let version6 = self.container.format() == 6;
        let bytes = self.container.bytes(block.start, block.end);
        let done = match block.kind {
            BlockKind::Trace => {
                let trace = if version6 { TraceInfo::read_v6(bytes) } else { TraceInfo::read_v4(bytes) };
                trace
                    .map(|trace| {
                        self.trace = Some(trace);
                        self.notes.push_back(Note::Trace);
                    })
                    .map_err(Damage::from)
            }
            BlockKind::Event => {
                return match self.start_of_blobs(block) {
                    Ok(current) => self.current = Some(current),
                    Err(damage) => self.damaged(block, damage),
                };
            }
            BlockKind::Metadata if version6 => return self.metadata_v6(block),
            BlockKind::Metadata => return self.metadata_v4(block),
            BlockKind::Stack => self.stacks.add(bytes),
            BlockKind::SequencePoint => {
                self.waiting.until = Some(u64::MAX);
                self.point = Some(block);
                Ok(())
            }
            BlockKind::Thread => self.tables.add_threads(bytes),
            BlockKind::RemoveThread => {
                let mut gaps = Vec::new();
                let done = self.tables.remove_threads(bytes, |thread, sequence| {
                    lose(&mut gaps, thread, self.sequences.point(thread, sequence));
                    self.sequences.remove(thread);
                });
                for gap in gaps {
                    self.dropped(gap.thread, gap.count);
                }
                done
            }
            BlockKind::LabelList => self.tables.add_labels(bytes),
            BlockKind::Unknown => {
                self.statistics.unknown_blocks += 1;
                Ok(())
            }
        };
        if let Err(damage) = done {
            self.damaged(block, damage);
        }
    }

    /// Header of a block of blobs: its own size, flags, the times of its first and last event.
    fn start_of_blobs(&self, block: Block) -> Result<Current, Damage> {
        let mut cursor = Cursor::new(self.container.bytes(block.start, block.end));
        let size = cursor.u16()?;
        let flags = cursor.u16()?;
        if size < 4 {
            return Err(Damage::ShortHeader(size));
        }
        if usize::from(size) > block.end - block.start {
            return Err(OutOfBytes.into());
        }
        let encoding = match (self.container.format(), flags & 1) {
            (6, _) => Encoding::Compressed6,
            (_, 0) => Encoding::Plain,
            _ => Encoding::Compressed,
        };
        Ok(Current {
            block,
            at: block.start + usize::from(size),
            encoding,
            header: Header::default(),
            unknown: 0,
        })
    }

    /// Header and payload of the next blob of a block.
    fn blob(&self, current: &Current) -> Result<Option<Record>, Damage> {
        let mut cursor = Cursor::new(self.container.bytes(current.at, current.block.end));
        if cursor.left() == 0 {
            return Ok(None);
        }
        let mut header = current.header;
        blob::read(&mut header, &mut cursor, current.encoding)?;
        let start = current.block.end - cursor.left();
        cursor.take(header.payload as usize)?;
        let payload = (start, current.block.end - cursor.left());
        Ok(Some(Record { header, event_type: 0, payload, set_aside: false }))
    }

    /// Where the blob after `record` starts.
    fn after(current: &Current, record: &Record) -> usize {
        let end = record.payload.1;
        match current.encoding {
            Encoding::Plain => end.next_multiple_of(4).min(current.block.end),
            _ => end,
        }
    }

    fn next_blob(&mut self) -> Option<Record> {
        let mut current = self.current.take()?;
        let mut record = match self.blob(&current) {
            Ok(record) => record?,
            Err(damage) => {
                self.damaged(current.block, damage);
                return None;
            }
        };
        current.at = Self::after(&current, &record);
        current.header = record.header;
        let (block, unknown) = (current.block, current.unknown);
        self.current = Some(current);

        let header = &mut record.header;
        let lost = self.sequences.event(header.capture_thread, header.sequence);
        if self.container.format() == 6 {
            let labels = self.tables.labels(header.labels);
            header.activity = labels.activity;
            header.related_activity = labels.related_activity;
            header.thread = self.tables.thread(header.thread);
            header.capture_thread = self.tables.thread(header.capture_thread);
        }
        let (writer, metadata) = (header.capture_thread, header.metadata);
        self.dropped(writer, lost);
        let Some(event_type) = self.types.find(metadata) else {
            if let Some(current) = &mut self.current {
                current.unknown += 1;
            }
            match unknown {
                0..MOST_NOTES => self.damaged(block, Damage::UnknownMetadata(metadata)),
                _ => self.statistics.damaged += 1,
            }
            return None;
        };
        record.event_type = event_type;
        match self.order {
            Order::AsWritten => Some(record),
            Order::ByTime => {
                let payload = self.container.bytes(record.payload.0, record.payload.1);
                self.waiting.push(record, payload);
                if record.header.sorted {
                    self.waiting.until = Some(record.header.timestamp);
                } else if self.waiting.overfull() {
                    self.waiting.until = Some(u64::MAX);
                    self.statistics.order_given_up += 1;
                }
                None
            }
        }
    }

    fn metadata_v4(&mut self, block: Block) {
        let mut current = match self.start_of_blobs(block) {
            Ok(current) => current,
            Err(damage) => return self.damaged(block, damage),
        };
        loop {
            let record = match self.blob(&current) {
                Ok(Some(record)) => record,
                Ok(None) => return,
                Err(damage) => return self.damaged(block, damage),
            };
            current.at = Self::after(&current, &record);
            current.header = record.header;
            let read = metadata::read_v4(self.container.bytes(record.payload.0, record.payload.1));
            self.add_type(block, read);
        }
    }

    fn metadata_v6(&mut self, block: Block) {
        // The block's header has the shape of a row: a size, and that many bytes.
        let mut at = match self.row_v6(block.start, block.end) {
            Ok(header) => header.map_or(block.end, |(_, end)| end),
            Err(damage) => return self.damaged(block, damage),
        };
        loop {
            match self.row_v6(at, block.end) {
                Ok(Some((start, end))) => {
                    at = end;
                    let read = metadata::read_v6(self.container.bytes(start, end));
                    self.add_type(block, read);
                }
                Ok(None) => return,
                Err(damage) => return self.damaged(block, damage),
            }
        }
    }

    /// The bytes of a row with its size in front.
    fn row_v6(&self, start: usize, end: usize) -> Result<Option<(usize, usize)>, OutOfBytes> {
        let mut cursor = Cursor::new(self.container.bytes(start, end));
        if cursor.left() == 0 {
            return Ok(None);
        }
        let size = usize::from(cursor.u16()?);
        cursor.take(size)?;
        let end = end - cursor.left();
        Ok(Some((end - size, end)))
    }

    fn add_type(&mut self, block: Block, read: Result<(u32, EventType), Damage>) {
        if let Err(damage) = read.and_then(|(id, event_type)| self.types.add(id, event_type)) {
            self.damaged(block, damage);
        }
    }

    /// All events before it are out: take stock of lost ones, and forget what later events can't refer to.
    fn sequence_point(&mut self, block: Block) {
        let mut cursor = Cursor::new(self.container.bytes(block.start, block.end));
        let version6 = self.container.format() == 6;
        let mut gaps = Vec::new();
        let mut flags = 0;
        let sequences = &mut self.sequences;
        let read = (|| -> Result<(), OutOfBytes> {
            cursor.u64()?; // time
            if version6 {
                flags = cursor.u32()?;
            }
            let count = cursor.u32()?;
            for _ in 0..count {
                let (thread, sequence) = if version6 {
                    (cursor.varuint64()?, cursor.varuint32()?)
                } else {
                    (cursor.u64()?, cursor.u32()?)
                };
                lose(&mut gaps, thread, sequences.point(thread, sequence));
            }
            Ok(())
        })();
        for gap in gaps {
            let thread = if version6 { self.tables.thread(gap.thread) } else { gap.thread };
            self.dropped(thread, gap.count);
        }
        if let Err(damage) = read {
            self.damaged(block, damage);
        }
        self.stacks.clear();
        if version6 {
            self.tables.sequence_point(flags & 1 != 0);
            if flags & 1 != 0 {
                self.sequences.clear();
            }
            if flags & 2 != 0 {
                self.types.clear();
            }
        }
    }
}

/// Notes the lost events of a thread. A block has room for millions of threads: most of such are added up.
fn lose(gaps: &mut Vec<Dropped>, thread: u64, count: u32) {
    let full = gaps.len() >= MOST_NOTES;
    match gaps.last_mut() {
        _ if count == 0 => {}
        Some(last) if full => last.count = last.count.saturating_add(count),
        _ => gaps.push(Dropped { thread, count }),
    }
}
