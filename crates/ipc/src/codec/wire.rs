//! Header, primitive types, and the two shapes of a reply.

use thiserror::Error;

use super::hresult::HResult;
use super::request::EncodeError;

/// Length of the header of every message.
pub const HEADER_LEN: usize = 20;

const MAGIC: &[u8; 14] = b"DOTNET_IPC_V1\0";
const SERVER_SET: u8 = 0xff;
const SERVER_OK: u8 = 0x00;
const SERVER_ERROR: u8 = 0xff;

/// Bytes that are no reply of a runtime.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The reply doesn't begin with the protocol's magic.
    #[error("the reply is not of the diagnostics protocol (it begins with {}), is this a runtime's socket?", hex(.0))]
    Magic(Vec<u8>),
    /// The size field is smaller than the header.
    #[error("the reply claims to be {0} bytes long, less than its header")]
    Size(u16),
    /// A reply that is neither success nor an error.
    #[error("the reply is of the unknown kind {set:#04x}/{id:#04x}")]
    Kind {
        /// Command set of the reply.
        set: u8,
        /// Command id of the reply.
        id: u8,
    },
    /// The payload ends inside a field.
    #[error("the reply ends inside `{0}`")]
    Short(&'static str),
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for b in bytes {
        use std::fmt::Write;
        let _ = write!(out, "{b:02x}");
    }
    out
}

/// The header of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    size: u16,
    set: u8,
    id: u8,
}

impl Header {
    /// Reads the header of a reply.
    ///
    /// # Errors
    /// When the magic is not that of the protocol, or the size is impossible.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let magic = r.bytes(MAGIC.len(), "magic")?;
        if magic != MAGIC {
            return Err(DecodeError::Magic(magic.to_vec()));
        }
        let header = Self { size: r.u16("size")?, set: r.u8("command set")?, id: r.u8("command id")? };
        if usize::from(header.size) < HEADER_LEN {
            return Err(DecodeError::Size(header.size));
        }
        Ok(header)
    }

    /// Number of payload bytes that follow.
    #[must_use]
    pub fn payload_len(self) -> usize {
        usize::from(self.size).saturating_sub(HEADER_LEN)
    }
}

/// What a runtime answers when it does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, as a number.
    pub code: HResult,
    /// Why, in the runtime's words: `GenerateCoreDump3` of .NET 8 and later only.
    pub message: Option<String>,
}

/// Tells success from failure: the payload of a success, or the refusal.
///
/// # Errors
/// The outer error when the reply can't be understood, the inner one when the runtime refuses.
pub fn reply(header: Header, payload: &[u8]) -> Result<Result<&[u8], Refusal>, DecodeError> {
    match (header.set, header.id) {
        (SERVER_SET, SERVER_OK) => Ok(Ok(payload)),
        (SERVER_SET, SERVER_ERROR) => {
            let mut r = Reader::new(payload);
            let code = HResult(r.u32("error code")?);
            // The message is a bonus of one command; its absence or a cut is no error.
            let message = r.string("error message").ok().map(|m| one_line(&m)).filter(|m| !m.is_empty());
            Ok(Err(Refusal { code, message }))
        }
        (set, id) => Err(DecodeError::Kind { set, id }),
    }
}

/// The lines of a log as one.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

/// A message of `set`/`id` with `payload`.
pub(super) fn message(set: u8, id: u8, payload: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let size = u16::try_from(HEADER_LEN + payload.len())
        .map_err(|_| EncodeError::TooLarge { len: payload.len(), max: usize::from(u16::MAX) - HEADER_LEN })?;
    let mut out = Vec::with_capacity(usize::from(size));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&[set, id, 0, 0]);
    out.extend_from_slice(payload);
    Ok(out)
}

/// Appends a string: number of UTF-16 units with the NUL, the units, the NUL. The empty string is a bare 0.
pub(super) fn put_string(out: &mut Vec<u8>, what: &'static str, text: &str) -> Result<(), EncodeError> {
    if text.contains('\0') {
        return Err(EncodeError::Nul { what });
    }
    if text.is_empty() {
        put_u32(out, 0);
        return Ok(());
    }
    let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
    // Far more than fits into a message is refused there; here it must only not wrap.
    put_u32(out, u32::try_from(units.len()).unwrap_or(u32::MAX));
    for unit in units {
        out.extend_from_slice(&unit.to_le_bytes());
    }
    Ok(())
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Reads a payload from front to back, never past its end.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(DecodeError::Short(what))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Short(what))?;
        self.rest = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(super) fn guid(&mut self, what: &'static str) -> Result<[u8; 16], DecodeError> {
        self.array(what)
    }

    /// A string; ends at its first NUL, unpaired surrogates are replaced.
    pub(super) fn string(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let units = self.u32(what)?;
        let len =
            usize::try_from(units).ok().and_then(|n| n.checked_mul(2)).ok_or(DecodeError::Short(what))?;
        let bytes = self.bytes(len, what)?;
        let units = bytes.as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b)).take_while(|&u| u != 0);
        Ok(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(size: u16, set: u8, id: u8) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[..14].copy_from_slice(b"DOTNET_IPC_V1\0");
        b[14..16].copy_from_slice(&size.to_le_bytes());
        b[16] = set;
        b[17] = id;
        b
    }

    #[test]
    fn header_is_checked() {
        assert_eq!(Header::parse(&header(28, 0xff, 0)).unwrap().payload_len(), 8);
        assert_eq!(Header::parse(&header(19, 0xff, 0)), Err(DecodeError::Size(19)));
        let mut bad = header(20, 0xff, 0);
        bad[0] = b'X';
        assert!(matches!(Header::parse(&bad), Err(DecodeError::Magic(_))));
    }

    #[test]
    fn replies() {
        let ok = Header::parse(&header(24, 0xff, 0)).unwrap();
        assert_eq!(reply(ok, &[1, 2, 3, 4]), Ok(Ok(&[1u8, 2, 3, 4][..])));
        let err = Header::parse(&header(24, 0xff, 0xff)).unwrap();
        let refusal = reply(err, &0x8013_1385u32.to_le_bytes()).unwrap().unwrap_err();
        assert_eq!(refusal, Refusal { code: HResult::UNKNOWN_COMMAND, message: None });
        assert_eq!(reply(err, &[1, 2]), Err(DecodeError::Short("error code")));
        let other = Header::parse(&header(20, 4, 0)).unwrap();
        assert_eq!(reply(other, &[]), Err(DecodeError::Kind { set: 4, id: 0 }));
    }

    #[test]
    fn refusal_with_words() {
        let err = Header::parse(&header(20, 0xff, 0xff)).unwrap();
        let mut payload = 0x8000_4005u32.to_le_bytes().to_vec();
        put_string(&mut payload, "m", "no\n space\n").unwrap();
        assert_eq!(reply(err, &payload).unwrap().unwrap_err().message.as_deref(), Some("no; space"));
        // A message that is cut off leaves the code.
        payload.truncate(9);
        assert_eq!(reply(err, &payload).unwrap().unwrap_err().message, None);
    }

    #[test]
    fn strings_never_read_past_the_end() {
        let mut out = Vec::new();
        put_string(&mut out, "s", "a\u{1f600}").unwrap();
        assert_eq!(out, [4, 0, 0, 0, b'a', 0, 0x3d, 0xd8, 0, 0xde, 0, 0]);
        assert_eq!(Reader::new(&out).string("s").unwrap(), "a\u{1f600}");
        for cut in 0..out.len() {
            assert!(Reader::new(&out[..cut]).string("s").is_err(), "{cut}");
        }
        assert!(Reader::new(&[0xff; 12]).string("s").is_err());
        assert_eq!(Reader::new(&[0; 4]).string("s").unwrap(), "");
        assert_eq!(Reader::new(&[1, 0, 0, 0, 0, 0xd8]).string("s").unwrap(), "\u{fffd}");
        assert!(put_string(&mut out, "s", "a\0b").is_err());
    }
}
