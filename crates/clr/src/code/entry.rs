//! From what a call jumps to back to the method: delegates and slots hold such entries, which may be code, or a stub in
//! front of it that the runtime made for just one method (a precode).
//!
//! Source: `vm/precode.h`, `vm/amd64/thunktemplates.S`, `vm/arm64/thunktemplates.S` of dotnet/runtime v8.0.0 to v10.0.14;
//! `vm/i386/stublinkerx86.h` (`FixupPrecode`, `StubPrecode`) of dotnet/coreclr v3.1.23.

use dnd_memory::Arch;

use super::method::Method;
use super::r2r;
use super::ranges::{self, Holds, Range};
use crate::runtime::Runtime;

/// How far behind a stub its data lies: the size of a page of stubs, which is that of the system's pages, at least 16 kB
/// (`GetStubCodePageSize`).
const STUB_PAGES: [u64; 3] = [0x4000, 0x1_0000, 0x1000];
/// Bytes of a stub that are looked at.
const STUB: usize = 24;

impl Runtime<'_> {
    /// The method that a call to `entry` reaches; `None` when that can't be told.
    #[must_use]
    pub fn method_at_entry(&self, entry: u64) -> Option<Method> {
        match ranges::find(self, entry) {
            // The functions of an image may not all be in a small dump; the map of entries is.
            Ok(Some(Range { holds: Holds::ReadyToRun { module }, .. })) => {
                return self.plausible(r2r::method_at(self, module, entry)?);
            }
            Ok(Some(Range { holds: Holds::Jit { .. }, .. })) => {
                let code = self.method_code(entry).ok()?.filter(|code| code.start == entry);
                if let Some(code) = code {
                    return self.method(code.method).ok();
                }
            }
            _ => {}
        }
        if self.major() < 5 {
            return self.old_precode(entry);
        }
        // The stub's own bytes are in few dumps; its data is, and the method there knows its entry.
        let candidates = STUB_PAGES.into_iter().flat_map(|page| [page + 8, page]);
        let from_data = candidates.filter_map(|offset| {
            let method = self.target().u64(entry.wrapping_add(offset)).ok()?;
            self.entered_at(method, entry)
        });
        from_data.chain(self.new_precode(entry)).next()
    }

    fn entered_at(&self, method: u64, entry: u64) -> Option<Method> {
        let method = self.plausible(method)?;
        (self.entry(&method) == entry).then_some(method)
    }

    fn plausible(&self, method: u64) -> Option<Method> {
        let method = self.method(method).ok().filter(|_| method != 0 && method.is_multiple_of(8))?;
        self.method_table(method.table).ok().map(|_| method)
    }

    /// `mov r10, [data]` somewhere in the stub: the method, as the stub hands it on.
    fn new_precode(&self, entry: u64) -> Option<Method> {
        if self.target().arch() != Arch::X64 {
            return None;
        }
        let mut bytes = [0u8; STUB];
        self.target().read(entry, &mut bytes).ok()?;
        let at = bytes.windows(3).position(|three| three == [0x4c, 0x8b, 0x15])?;
        let offset = bytes.get(at + 3..at + 7)?.try_into().ok().map(i32::from_le_bytes)?;
        let next = entry.wrapping_add(at as u64 + 7);
        self.plausible(self.target().u64(next.wrapping_add_signed(offset.into())).ok()?)
    }

    /// 3.1: a call or jump, then the kind of stub; a method is counted from an address behind the chunk of stubs.
    fn old_precode(&self, entry: u64) -> Option<Method> {
        const FIXUP: [u8; 2] = [0x5e, 0x5f];
        let mut bytes = [0u8; STUB];
        self.target().read(entry, &mut bytes).ok()?;
        let [op, _, _, _, _, kind, method, stub, ..] = bytes;
        if [0xe8, 0xe9].contains(&op) && FIXUP.contains(&kind) {
            let base = entry.wrapping_add(8 * (u64::from(stub) + 1));
            let base = self.target().u64(base).ok()?;
            return self.plausible(base.wrapping_add(8 * u64::from(method)));
        }
        // `mov r10, method` and a jump.
        match bytes {
            [0x49, 0xba, rest @ ..] => {
                let method = rest.get(..8)?.try_into().ok().map(u64::from_le_bytes)?;
                self.plausible(method)
            }
            _ => None,
        }
    }
}
