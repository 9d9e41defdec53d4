//! Compressed cores, as systemd-coredump (`.zst`, `.lz4`, `.xz`) and administrators (`.gz`) leave them.
//!
//! They are unpacked as a stream into a temporary file that has no name, then read like any other: random access to
//! compressed data would cost more than the disk does. Memory stays at the format's window (at most 128 MB for zstd and
//! xz, 8 MB and less as they are mostly used) and a buffer; zero pages take no room on the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use serde::Serialize;

use crate::error::Error;
use crate::map::MappedFile;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// LZ4 frames.
    Lz4,
    /// xz.
    Xz,
}

impl Packing {
    /// By the first bytes; `None` for what isn't compressed, or in another way.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            [0x1f, 0x8b, 8, ..] => Some(Packing::Gzip),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Packing::Lz4),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Xz),
            _ => None,
        }
    }

    /// The format's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Packing::Zstd => "zstd",
            Packing::Gzip => "gzip",
            Packing::Lz4 => "LZ4",
            Packing::Xz => "xz",
        }
    }
}

/// How far unpacking is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read of the compressed file.
    pub read: u64,
    /// Its size.
    pub of: u64,
    /// Bytes unpacked.
    pub unpacked: u64,
}

/// What came out of a compressed file.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) map: MappedFile,
    pub(crate) packing: Packing,
    pub(crate) damage: Option<String>,
}

const BUFFER: usize = 1 << 20;
const PAGE: usize = 4096;
/// Kilobytes that unpacking xz may take: `xz -9` needs 65 MB.
const XZ_MEMORY: u32 = 128 << 10;

/// Unpacks the file at `path` into a nameless file in `folder`; `None` when it isn't compressed. What comes before
/// a damage is kept and the damage told.
pub(crate) fn unpack(
    path: &Path,
    folder: &Path,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Unpacked>, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let temporary = |source| Error::Temporary { folder: folder.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    let of = file.metadata().map_err(failed)?.len();
    let mut source = Source { file: BufReader::with_capacity(BUFFER, file), read: 0, ended: false };
    let Some(packing) = Packing::of(source.file.fill_buf().map_err(failed)?) else { return Ok(None) };
    let out = nameless(folder).map_err(temporary)?;
    let mut decoder: Box<dyn Decoder> = match packing {
        Packing::Zstd => Box::new(Zstd { source, frame: FrameDecoder::new(), in_frame: false }),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Packing::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(source)),
        Packing::Xz => Box::new(XzReader::new_mem_limit(source, true, XZ_MEMORY)),
    };
    let mut buffer = vec![0; BUFFER];
    let mut unpacked = 0u64;
    let damage = loop {
        let (len, end) = fill(&mut *decoder, &mut buffer);
        let bytes = buffer.get(..len).unwrap_or_default();
        write_sparse(&out, bytes, unpacked).map_err(temporary)?;
        unpacked += len as u64;
        let read = decoder.source().read;
        if observe(Progress { read, of, unpacked }).is_break() {
            return Err(Error::Cancelled { path: path.to_owned() });
        }
        match end {
            None => {}
            Some(Ok(())) => break None,
            Some(Err(e)) => break Some(e.to_string()),
        }
    };
    if unpacked == 0 {
        let what = damage.unwrap_or_else(|| "nothing is in it".to_owned());
        return Err(Error::Packed { path: path.to_owned(), packing, what });
    }
    // Zeros at the end were not written.
    out.set_len(unpacked).map_err(temporary)?;
    let map = MappedFile::new(&out).map_err(temporary)?;
    Ok(Some(Unpacked { map, packing, damage }))
}

/// A new file that only this process can reach and that is gone when it ends, however it ends.
fn nameless(folder: &Path) -> io::Result<File> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut tries = 0;
    loop {
        let name = format!(".dnd-unpacked-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = folder.join(name);
        // `create_new` neither follows a link nor opens what is there.
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < 100 => tries += 1,
            Err(e) => return Err(e),
        }
    }
}

/// Writes all pages that aren't zero. `at` is a multiple of the page size in all calls but those after the last.
fn write_sparse(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let is_zero = |page: &[u8]| page.iter().all(|&b| b == 0);
    let mut offset = at;
    // Runs of pages of a kind go in one call.
    for run in bytes.chunks(PAGE).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let len: usize = run.iter().map(|page| page.len()).sum();
        if !run.first().is_none_or(|page| is_zero(page)) {
            let start = (offset - at) as usize;
            file.write_all_at(bytes.get(start..start + len).unwrap_or_default(), offset)?;
        }
        offset += len as u64;
    }
    Ok(())
}

/// Fills the buffer as far as there is something; at the end says how it ended.
fn fill(decoder: &mut dyn Decoder, buffer: &mut [u8]) -> (usize, Option<io::Result<()>>) {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match decoder.unpack(rest) {
            Ok(0) => return (len, Some(Ok(()))),
            Ok(more) => len += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (len, Some(Err(e))),
        }
    }
    (len, None)
}

/// The compressed file, counted.
struct Source {
    file: BufReader<File>,
    read: u64,
    /// Somebody wanted more than there is.
    ended: bool,
}

impl Source {
    fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.file.fill_buf()?.is_empty())
    }
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buf)?;
        self.read += len as u64;
        self.ended |= len == 0 && !buf.is_empty();
        Ok(len)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, len: usize) {
        self.read += len as u64;
        self.file.consume(len);
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the compressed data is cut off")
}

trait Decoder {
    /// The next bytes; 0 only at the end of sound data.
    fn unpack(&mut self, buf: &mut [u8]) -> io::Result<usize>;
    fn source(&self) -> &Source;
}

impl Decoder for flate2::bufread::MultiGzDecoder<Source> {
    fn unpack(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read(buf).map_err(|e| if e.kind() == io::ErrorKind::UnexpectedEof { cut_off() } else { e })
    }

    fn source(&self) -> &Source {
        self.get_ref()
    }
}

impl Decoder for lz4_flex::frame::FrameDecoder<Source> {
    /// The decoder says 0 at the end of each frame, and also where the file ends between two blocks of one.
    fn unpack(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read(buf) {
                Ok(0) if self.get_ref().ended => return Err(cut_off()),
                Ok(0) if self.get_mut().at_end()? => return Ok(0),
                Ok(0) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(cut_off()),
                other => return other,
            }
        }
    }

    fn source(&self) -> &Source {
        self.get_ref()
    }
}

impl Decoder for XzReader<Source> {
    /// Little at a time: what is asked for is given whole or not at all.
    fn unpack(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(PAGE);
        self.read(buf.get_mut(..len).unwrap_or_default()).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => cut_off(),
            io::ErrorKind::OutOfMemory => io::Error::other(format!(
                "it needs more than {} MB of memory; `xz -d` unpacks it",
                XZ_MEMORY >> 10
            )),
            _ => e,
        })
    }

    fn source(&self) -> &Source {
        self.inner()
    }
}

/// Frames one after the other; ruzstd's own stream reader knows one.
struct Zstd {
    source: Source,
    frame: FrameDecoder,
    in_frame: bool,
}

impl Zstd {
    fn next_frame(&mut self) -> io::Result<()> {
        match self.frame.reset(&mut self.source) {
            Ok(()) => self.in_frame = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
            }
            Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
                // Made with --long or --ultra: what is to be kept in memory is bounded here.
                return Err(io::Error::other(format!(
                    "it needs {requested} bytes of memory, more than the {max} that are allowed; \
                     `zstd -d --long=31` unpacks it"
                )));
            }
            Err(_) if self.source.ended => return Err(cut_off()),
            Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e)),
        }
        Ok(())
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.in_frame = false;
        match (self.frame.get_checksum_from_data(), self.frame.get_calculated_checksum()) {
            (Some(said), Some(is)) if said != is => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl Decoder for Zstd {
    fn unpack(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                if self.source.at_end()? {
                    return Ok(0);
                }
                self.next_frame()?;
            } else if self.frame.can_collect() > 0 {
                return self.frame.read(buf);
            } else if self.frame.is_finished() {
                self.end_frame()?;
            } else if let Err(e) =
                self.frame.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
            {
                return Err(if self.source.ended {
                    cut_off()
                } else {
                    io::Error::new(io::ErrorKind::InvalidData, e)
                });
            }
        }
    }

    fn source(&self) -> &Source {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_temporary_file_is_private_nameless_and_sparse() {
        let file = nameless(&std::env::temp_dir()).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.nlink()), (0o600, 0));
        let mut bytes = vec![0; 64 << 20];
        let places = [0, PAGE + 5, 40 << 20, (64 << 20) - 1];
        for at in places {
            bytes[at] = 7;
        }
        for (i, part) in bytes.chunks(BUFFER).enumerate() {
            write_sparse(&file, part, (i * BUFFER) as u64).unwrap();
        }
        write_sparse(&file, &[0, 0, 9], bytes.len() as u64).unwrap();
        bytes.extend([0, 0, 9]);
        let map = MappedFile::new(&file).unwrap();
        assert!(map.bytes() == bytes);
        // In blocks of 512 bytes: five pages and what the file system needs to find them.
        assert!(file.metadata().unwrap().blocks() < 1024, "{} blocks", file.metadata().unwrap().blocks());
    }
}
