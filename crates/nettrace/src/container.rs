//! The outer layer of a stream: which bytes are which block.
//!
//! Version 4 wraps every block in a named object of the "FastSerialization" format; version 6 has a four-byte header
//! before each block. The layers above see the same blocks for both.

use std::fmt;

use crate::error::Error;

/// The largest block accepted. Real ones stay around 100 KB; version 6 cannot express more.
const LARGEST_BLOCK: u32 = 16 << 20;
/// The longest object name accepted; the longest real one has 13 bytes.
const LONGEST_NAME: u32 = 255;

/// The kinds of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockKind {
    /// The trace header.
    Trace,
    /// Events.
    Event,
    /// Descriptions of events.
    Metadata,
    /// Call stacks.
    Stack,
    /// What every thread had written when all buffers were empty.
    SequencePoint,
    /// Threads that events refer to by index (version 6).
    Thread,
    /// Indexes of threads that are gone (version 6).
    RemoveThread,
    /// Lists of labels such as activity ids (version 6).
    LabelList,
    /// Anything else; it is skipped.
    Unknown,
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trace => "trace header",
            Self::Event => "event block",
            Self::Metadata => "metadata block",
            Self::Stack => "stack block",
            Self::SequencePoint => "sequence point block",
            Self::Thread => "thread block",
            Self::RemoveThread => "removed-thread block",
            Self::LabelList => "label block",
            Self::Unknown => "block of unknown kind",
        })
    }
}

/// A whole block, by its place in the buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) kind: BlockKind,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Bytes from the start of the stream.
    pub(crate) offset: u64,
}

/// What the bytes at hand amount to.
#[derive(Debug)]
pub(crate) enum Next {
    Block(Block),
    /// More bytes are needed.
    Wait,
    /// The end mark was read.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was read.
    Magic,
    /// Version 4, before an object or the end mark.
    Object,
    /// Version 4, after an object's header; the trace header has no size in front.
    Contents(BlockKind),
    /// Version 4, before the tag that ends an object.
    ObjectEnd,
    /// Version 6, before a block.
    Block,
    /// The end mark was read.
    Ended,
}

/// Cuts a stream into blocks.
#[derive(Debug)]
pub(crate) struct Container {
    buffer: Vec<u8>,
    /// Index of the first byte that was not consumed.
    at: usize,
    /// Bytes of the stream before `buffer`.
    base: u64,
    state: State,
    format: u32,
}

const TRACE_V4_SIZE: usize = 48;

impl Container {
    pub(crate) fn new() -> Self {
        Self { buffer: Vec::new(), at: 0, base: 0, state: State::Magic, format: 4 }
    }

    /// Adds bytes. Places in the buffer that were handed out stay valid.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Forgets the bytes that were consumed; places that were handed out become invalid.
    pub(crate) fn compact(&mut self) {
        // Moving the rest costs time: only when that is little, or when it frees much.
        if self.at == self.buffer.len() || self.at > 1 << 20 {
            self.buffer.drain(..self.at);
            self.base += self.at as u64;
            self.at = 0;
        }
    }

    /// The bytes of a block, or of a part of it.
    pub(crate) fn bytes(&self, start: usize, end: usize) -> &[u8] {
        self.buffer.get(start..end).unwrap_or_default()
    }

    pub(crate) fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// 4 or 6; meaningful once a block was read.
    pub(crate) fn format(&self) -> u32 {
        self.format
    }

    /// How many bytes of the stream were consumed.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Finds the next block.
    pub(crate) fn next(&mut self) -> Result<Next, Error> {
        loop {
            let step = match self.state {
                State::Magic => self.magic()?,
                State::Object => self.object()?,
                State::Contents(kind) => return Ok(self.contents(kind)?.map_or(Next::Wait, Next::Block)),
                State::ObjectEnd => self.object_end()?,
                State::Block => return self.block(),
                State::Ended => return Ok(Next::End),
            };
            if step.is_none() {
                return Ok(Next::Wait);
            }
        }
    }

    fn peek<const N: usize>(&self, ahead: usize) -> Option<[u8; N]> {
        self.buffer.get(self.at + ahead..)?.first_chunk().copied()
    }

    fn peek_u32(&self, ahead: usize) -> Option<u32> {
        self.peek(ahead).map(u32::from_le_bytes)
    }

    fn expect(&self, ahead: usize, tag: u8, expected: &'static str) -> Result<Option<()>, Error> {
        match self.peek(ahead) {
            None => Ok(None),
            Some([found]) if found == tag => Ok(Some(())),
            Some([found]) => Err(Error::Framing { offset: self.offset() + ahead as u64, expected, found }),
        }
    }

    fn magic(&mut self) -> Result<Option<()>, Error> {
        let Some(magic) = self.peek::<8>(0) else { return Ok(None) };
        if &magic != b"Nettrace" {
            // The older format starts with the length and the name that version 4 has after its magic.
            return Err(match &magic {
                b"\x14\0\0\0!Fas" => Error::NetPerf,
                _ => Error::NotNettrace { found: magic },
            });
        }
        let Some(length) = self.peek_u32(8) else { return Ok(None) };
        if length == 0 {
            let (Some(major), Some(_minor)) = (self.peek_u32(12), self.peek_u32(16)) else { return Ok(None) };
            if major != 6 {
                return Err(Error::UnsupportedVersion { found: major });
            }
            self.at += 20;
            self.format = 6;
            self.state = State::Block;
            return Ok(Some(()));
        }
        let Some(name) = self.peek::<20>(12) else { return Ok(None) };
        if length != 20 || &name != b"!FastSerialization.1" {
            let [found, ..] = name;
            let offset = self.offset() + 8;
            return Err(Error::Framing { offset, expected: "`!FastSerialization.1`", found });
        }
        self.at += 32;
        self.state = State::Object;
        Ok(Some(()))
    }

    /// `05 05 01`, version, least version of a reader, name with its length, `06`; or `01` at the end.
    fn object(&mut self) -> Result<Option<()>, Error> {
        match self.peek(0) {
            None => return Ok(None),
            Some([1]) => {
                self.at += 1;
                self.state = State::Ended;
                return Ok(Some(()));
            }
            Some(_) => {}
        }
        for (ahead, tag) in [5, 5, 1].into_iter().enumerate() {
            if self.expect(ahead, tag, "the start of an object")?.is_none() {
                return Ok(None);
            }
        }
        let (Some(least_reader), Some(length)) = (self.peek_u32(7), self.peek_u32(11)) else {
            return Ok(None);
        };
        if length > LONGEST_NAME {
            let offset = self.offset() + 11;
            return Err(Error::TooLarge { offset, size: u64::from(length), limit: u64::from(LONGEST_NAME) });
        }
        let length = length as usize;
        let Some(name) = self.buffer.get(self.at + 15..).and_then(|rest| rest.get(..length)) else {
            return Ok(None);
        };
        let kind = match name {
            b"Trace" if least_reader > 4 => return Err(Error::UnsupportedVersion { found: least_reader }),
            b"Trace" => BlockKind::Trace,
            b"EventBlock" => BlockKind::Event,
            b"MetadataBlock" => BlockKind::Metadata,
            b"StackBlock" => BlockKind::Stack,
            b"SPBlock" => BlockKind::SequencePoint,
            _ => BlockKind::Unknown,
        };
        if self.expect(15 + length, 6, "the end of an object's type")?.is_none() {
            return Ok(None);
        }
        self.at += 16 + length;
        self.state = State::Contents(kind);
        Ok(Some(()))
    }

    fn contents(&mut self, kind: BlockKind) -> Result<Option<Block>, Error> {
        let (before, size) = if kind == BlockKind::Trace {
            (0, TRACE_V4_SIZE)
        } else {
            let Some(size) = self.peek_u32(0) else { return Ok(None) };
            if size > LARGEST_BLOCK {
                let (offset, size) = (self.offset(), u64::from(size));
                return Err(Error::TooLarge { offset, size, limit: u64::from(LARGEST_BLOCK) });
            }
            // Contents start at a multiple of four, counted from the first byte of the stream.
            let padding = (self.offset() + 4).wrapping_neg() & 3;
            (4 + padding as usize, size as usize)
        };
        let block = self.whole(kind, before, size);
        if block.is_some() {
            self.state = State::ObjectEnd;
        }
        Ok(block)
    }

    fn object_end(&mut self) -> Result<Option<()>, Error> {
        let end = self.expect(0, 6, "the end of an object")?;
        if end.is_some() {
            self.at += 1;
            self.state = State::Object;
        }
        Ok(end)
    }

    /// Version 6: size in the low 24 bits, kind in the high 8.
    fn block(&mut self) -> Result<Next, Error> {
        let Some(header) = self.peek_u32(0) else { return Ok(Next::Wait) };
        let kind = match header >> 24 {
            0 => {
                self.at += 4;
                self.state = State::Ended;
                return Ok(Next::End);
            }
            1 => BlockKind::Trace,
            2 => BlockKind::Event,
            3 => BlockKind::Metadata,
            4 => BlockKind::SequencePoint,
            5 => BlockKind::Stack,
            6 => BlockKind::Thread,
            7 => BlockKind::RemoveThread,
            8 => BlockKind::LabelList,
            _ => BlockKind::Unknown,
        };
        Ok(self.whole(kind, 4, (header & 0x00ff_ffff) as usize).map_or(Next::Wait, Next::Block))
    }

    /// Takes a block of `size` bytes that begins `before` bytes ahead, if all of it is there.
    fn whole(&mut self, kind: BlockKind, before: usize, size: usize) -> Option<Block> {
        let start = self.at + before;
        let end = start + size;
        if end > self.buffer.len() {
            return None;
        }
        let block = Block { kind, start, end, offset: self.base + start as u64 };
        self.at = end;
        Some(block)
    }
}
