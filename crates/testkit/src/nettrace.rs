//! Writes event streams (nettrace version 4), for parsers and for runtimes that are none.
//!
//! Written from the format's description, apart from the reader's structures, so that a mistake in those shows.

/// A field of an event's metadata (version 1), and its value in a payload.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// Type 9.
    I32(i32),
    /// Type 13.
    F32(f32),
    /// Type 14.
    F64(f64),
    /// Type 18.
    Text(&'a str),
    /// Type 1.
    Object(Vec<(&'a str, Value<'a>)>),
}

impl Value<'_> {
    fn describe(&self, name: &str, out: &mut Vec<u8>) {
        let code: u32 = match self {
            Self::I32(_) => 9,
            Self::F32(_) => 13,
            Self::F64(_) => 14,
            Self::Text(_) => 18,
            Self::Object(_) => 1,
        };
        out.extend(code.to_le_bytes());
        if let Self::Object(fields) = self {
            describe(fields, out);
        }
        utf16(name, out);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::I32(value) => out.extend(value.to_le_bytes()),
            Self::F32(value) => out.extend(value.to_le_bytes()),
            Self::F64(value) => out.extend(value.to_le_bytes()),
            Self::Text(text) => utf16(text, out),
            Self::Object(fields) => fields.iter().for_each(|(_, value)| value.encode(out)),
        }
    }
}

fn describe(fields: &[(&str, Value<'_>)], out: &mut Vec<u8>) {
    out.extend(u32::try_from(fields.len()).unwrap_or(0).to_le_bytes());
    for (name, value) in fields {
        value.describe(name, out);
    }
}

fn utf16(text: &str, out: &mut Vec<u8>) {
    for unit in text.encode_utf16().chain([0]) {
        out.extend(unit.to_le_bytes());
    }
}

fn varuint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// The payload of an event with these fields.
pub fn payload(fields: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|(_, value)| value.encode(&mut out));
    out
}

/// An event to write.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// What [`Stream::describe`] was given.
    pub metadata: u32,
    /// Number among the events of its thread, from 1.
    pub sequence: u32,
    /// The thread that writes it.
    pub thread: u64,
    /// The clock.
    pub timestamp: u64,
    /// A stack of [`Stream::stacks`].
    pub stack: u32,
    /// No older event follows.
    pub sorted: bool,
    /// See [`payload`].
    pub payload: Vec<u8>,
}

/// A stream being written; the clock has 1,000,000,000 ticks a second and stood at 0 on 2026-11-22 16:00 UTC.
#[derive(Debug, Clone)]
pub struct Stream {
    bytes: Vec<u8>,
    taken: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    /// A stream with its header.
    pub fn new() -> Self {
        let mut stream = Self { bytes: b"Nettrace\x14\0\0\0!FastSerialization.1".to_vec(), taken: 0 };
        stream.object("Trace", 4);
        for part in [2026i16, 11, 0, 22, 16, 0, 0, 0] {
            stream.bytes.extend(part.to_le_bytes());
        }
        for part in [0i64, 1_000_000_000] {
            stream.bytes.extend(part.to_le_bytes());
        }
        for part in [8i32, 4711, 2, 1_000_000] {
            stream.bytes.extend(part.to_le_bytes());
        }
        stream.bytes.push(6);
        stream
    }

    fn object(&mut self, name: &str, version: u32) {
        self.bytes.extend([5, 5, 1]);
        self.bytes.extend(version.to_le_bytes());
        self.bytes.extend(version.to_le_bytes());
        self.bytes.extend(u32::try_from(name.len()).unwrap_or(0).to_le_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(6);
    }

    /// A block of any name.
    pub fn block(&mut self, name: &str, contents: &[u8]) {
        self.object(name, 2);
        self.bytes.extend(u32::try_from(contents.len()).unwrap_or(u32::MAX).to_le_bytes());
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
        self.bytes.extend(contents);
        self.bytes.push(6);
    }

    fn blobs(&mut self, name: &str, events: &[Event]) {
        let times = events.iter().map(|e| e.timestamp);
        let (first, last) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
        let mut block = Vec::new();
        block.extend(20u16.to_le_bytes());
        block.extend(1u16.to_le_bytes());
        block.extend(first.to_le_bytes());
        block.extend(last.to_le_bytes());
        let mut before = Event::default();
        for event in events {
            // Everything that may be left out is written: 1 metadata, 2 writer, 4 thread, 8 stack, 128 size.
            block.push(0x8f | if event.sorted { 64 } else { 0 });
            varuint(event.metadata.into(), &mut block);
            let step = u32::from(event.metadata != 0);
            varuint(event.sequence.wrapping_sub(before.sequence).wrapping_sub(step).into(), &mut block);
            varuint(event.thread, &mut block);
            varuint(0, &mut block);
            varuint(event.thread, &mut block);
            varuint(event.stack.into(), &mut block);
            varuint(event.timestamp.wrapping_sub(before.timestamp), &mut block);
            varuint(event.payload.len() as u64, &mut block);
            block.extend(&event.payload);
            before = event.clone();
        }
        self.block(name, &block);
    }

    /// Describes an event with fields of these names and kinds.
    pub fn describe(
        &mut self,
        id: u32,
        provider: &str,
        event: u32,
        name: &str,
        fields: &[(&str, Value<'_>)],
    ) {
        let mut payload = Vec::new();
        payload.extend(id.to_le_bytes());
        utf16(provider, &mut payload);
        payload.extend(event.to_le_bytes());
        utf16(name, &mut payload);
        payload.extend(0xf000_0000_0000u64.to_le_bytes());
        payload.extend(0u32.to_le_bytes());
        payload.extend(4u32.to_le_bytes());
        describe(fields, &mut payload);
        self.blobs("MetadataBlock", &[Event { payload, ..Event::default() }]);
    }

    /// Stacks, numbered from `first`.
    pub fn stacks(&mut self, first: u32, stacks: &[&[u64]]) {
        let mut block = Vec::new();
        block.extend(first.to_le_bytes());
        block.extend(u32::try_from(stacks.len()).unwrap_or(0).to_le_bytes());
        for stack in stacks {
            block.extend(u32::try_from(stack.len() * 8).unwrap_or(0).to_le_bytes());
            stack.iter().for_each(|address| block.extend(address.to_le_bytes()));
        }
        self.block("StackBlock", &block);
    }

    /// A block of events.
    pub fn events(&mut self, events: &[Event]) {
        self.blobs("EventBlock", events);
    }

    /// A sequence point: the number of the last event of each thread.
    pub fn sequence_point(&mut self, timestamp: u64, threads: &[(u64, u32)]) {
        let mut block = Vec::new();
        block.extend(timestamp.to_le_bytes());
        block.extend(u32::try_from(threads.len()).unwrap_or(0).to_le_bytes());
        for (thread, sequence) in threads {
            block.extend(thread.to_le_bytes());
            block.extend(sequence.to_le_bytes());
        }
        self.block("SPBlock", &block);
    }

    /// The end mark.
    pub fn end(&mut self) {
        self.bytes.push(1);
    }

    /// All bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes written since this was last called: what a runtime would send now.
    pub fn take(&mut self) -> Vec<u8> {
        let new = self.bytes.split_at(self.taken).1.to_vec();
        self.taken = self.bytes.len();
        new
    }
}
