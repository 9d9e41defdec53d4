//! The blobs of event and metadata blocks: a header, mostly told as differences from the blob before, and a payload.

use crate::cursor::{Cursor, OutOfBytes};

/// An event's header.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Header {
    pub(crate) metadata: u32,
    pub(crate) sequence: u32,
    /// Version 6: an index into the thread table.
    pub(crate) capture_thread: u64,
    pub(crate) processor: u32,
    /// Version 6: an index into the thread table.
    pub(crate) thread: u64,
    pub(crate) stack: u32,
    pub(crate) timestamp: u64,
    pub(crate) activity: [u8; 16],
    pub(crate) related_activity: [u8; 16],
    /// Version 6 has lists of labels instead of the two ids above.
    pub(crate) labels: u32,
    pub(crate) payload: u32,
    /// No later event of the stream is older than this one.
    pub(crate) sorted: bool,
}

/// How the headers of a block are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Version 4, every field in full. No runtime is known to write it.
    Plain,
    /// Version 4, differences.
    Compressed,
    /// Version 6, differences.
    Compressed6,
}

/// Reads a header into `header`, which holds the one before (or the default at the start of a block).
pub(crate) fn read(
    header: &mut Header,
    cursor: &mut Cursor<'_>,
    encoding: Encoding,
) -> Result<(), OutOfBytes> {
    if encoding == Encoding::Plain {
        return read_plain(header, cursor);
    }
    let flags = cursor.u8()?;
    if flags & 1 != 0 {
        header.metadata = cursor.varuint32()?;
    }
    if flags & 2 != 0 {
        header.sequence = header.sequence.wrapping_add(cursor.varuint32()?);
        header.capture_thread = cursor.varuint64()?;
        header.processor = cursor.varuint32()?;
    }
    if header.metadata != 0 || encoding == Encoding::Compressed6 {
        header.sequence = header.sequence.wrapping_add(1);
    }
    if flags & 4 != 0 {
        header.thread = cursor.varuint64()?;
    }
    if flags & 8 != 0 {
        header.stack = cursor.varuint32()?;
    }
    header.timestamp = header.timestamp.wrapping_add(cursor.varuint64()?);
    if encoding == Encoding::Compressed6 {
        if flags & 16 != 0 {
            header.labels = cursor.varuint32()?;
        }
    } else {
        if flags & 16 != 0 {
            header.activity = cursor.guid()?;
        }
        if flags & 32 != 0 {
            header.related_activity = cursor.guid()?;
        }
    }
    header.sorted = flags & 64 != 0;
    if flags & 128 != 0 {
        header.payload = cursor.varuint32()?;
    }
    Ok(())
}

fn read_plain(header: &mut Header, cursor: &mut Cursor<'_>) -> Result<(), OutOfBytes> {
    cursor.u32()?; // size of what follows
    let id = cursor.u32()?;
    *header = Header {
        metadata: id & 0x7fff_ffff,
        // A clear bit means sorted: nothing younger was written before.
        sorted: id >> 31 == 0,
        sequence: cursor.u32()?,
        thread: cursor.u64()?,
        capture_thread: cursor.u64()?,
        processor: cursor.u32()?,
        stack: cursor.u32()?,
        timestamp: cursor.u64()?,
        activity: cursor.guid()?,
        related_activity: cursor.guid()?,
        labels: 0,
        payload: cursor.u32()?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences() {
        let bytes = [
            207, 3, 4, 9, 1, 7, 2, 100,
            5, // metadata 3, sequence 0+4+1, thread 7, stack 2, ts 100, sorted, 5 bytes
            0, 6, // nothing changes but the time
            48, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
            2, 2,
        ];
        let mut cursor = Cursor::new(&bytes);
        let mut header = Header::default();
        read(&mut header, &mut cursor, Encoding::Compressed).unwrap();
        assert_eq!((header.metadata, header.sequence, header.capture_thread, header.processor), (3, 5, 9, 1));
        assert_eq!((header.thread, header.stack, header.timestamp, header.payload), (7, 2, 100, 5));
        assert!(header.sorted);
        read(&mut header, &mut cursor, Encoding::Compressed).unwrap();
        assert_eq!((header.metadata, header.sequence, header.timestamp, header.payload), (3, 6, 106, 5));
        assert!(!header.sorted);
        read(&mut header, &mut cursor, Encoding::Compressed).unwrap();
        assert_eq!((header.activity, header.related_activity, header.timestamp), ([1; 16], [2; 16], 107));
        assert_eq!(cursor.left(), 0);
        assert_eq!(read(&mut header, &mut cursor, Encoding::Compressed), Err(OutOfBytes));
    }
}
