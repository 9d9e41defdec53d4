//! Everything that reads bytes of another process, for `fuzz/` (feature `fuzzing`): no part of the interface.

use crate::codec::{EnvironmentHeader, HEADER_LEN, Header, ProcessInfo, SessionId, environment, reply};

/// Reads bytes as what a runtime answers to each command.
pub fn replies(bytes: &[u8]) {
    for version in 1..=3 {
        let _ = ProcessInfo::decode(version, bytes);
    }
    let _ = (EnvironmentHeader::decode(bytes), SessionId::decode(bytes), environment(bytes));
    if let Some((head, payload)) = bytes.split_first_chunk::<HEADER_LEN>()
        && let Ok(header) = Header::parse(head)
    {
        let _ = reply(header, payload.get(..header.payload_len()).unwrap_or(payload));
    }
    if let Some((message, _)) = bytes.split_first_chunk() {
        let _ = crate::reverse::parse(message);
    }
}
