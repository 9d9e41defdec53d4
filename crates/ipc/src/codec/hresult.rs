//! The error codes of the protocol.

use std::fmt;

/// An HRESULT: the runtime's error code. `Display` gives its name, where known, and the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HResult(pub u32);

impl HResult {
    /// Success.
    pub const OK: Self = Self(0);
    /// The runtime doesn't know the command: it is older than the command.
    pub const UNKNOWN_COMMAND: Self = Self(0x8013_1385);
    /// Unspecified failure. As an answer to `CollectTracing` it means that all 64 sessions are in use.
    pub const FAIL: Self = Self(0x8000_4005);

    /// The name the runtime's sources give the code.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x8013_1384 => "DS_IPC_E_BAD_ENCODING",
            0x8013_1385 => "DS_IPC_E_UNKNOWN_COMMAND",
            0x8013_1386 => "DS_IPC_E_UNKNOWN_MAGIC",
            0x8013_1387 => "DS_IPC_E_UNKNOWN_ERROR",
            0x8013_1515 => "DS_IPC_E_NOTSUPPORTED",
            0x8013_135b => "DS_IPC_E_NOT_YET_AVAILABLE",
            0x8013_1371 => "DS_IPC_E_RUNTIME_UNINITIALIZED",
            0x8013_136a => "CORPROF_E_PROFILER_ALREADY_ACTIVE",
            0x8000_00cb => "DS_IPC_E_ENVVAR_NOT_FOUND",
            0x8000_4005 => "E_FAIL",
            0x8007_0057 => "E_INVALIDARG",
            0x8007_007a => "E_INSUFFICIENT_BUFFER",
            0x8007_0005 => "E_ACCESSDENIED",
            0x8007_000e => "E_OUTOFMEMORY",
            0x8000_4001 => "E_NOTIMPL",
            0x8013_1522 => "COR_E_TYPELOAD",
            _ => return None,
        })
    }
}

impl fmt::Display for HResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#010x})", self.0),
            None => write!(f, "HRESULT {:#010x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(HResult(0x8000_4005).to_string(), "E_FAIL (0x80004005)");
        assert_eq!(HResult(0x8000_1234).to_string(), "HRESULT 0x80001234");
    }
}
