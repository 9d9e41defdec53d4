//! Exception objects.
//!
//! Sources: `System.Private.CoreLib`, `Exception.cs` and `Exception.CoreCLR.cs`, and `src/coreclr/vm/object.h` (`ExceptionObject`,
//! `StackTraceArray`), `vm/clrex.h` (`StackTraceElement`), `StackTraceInfo::AppendElement` in `vm/excep.cpp` of dotnet/runtime v8.0.0 to v10.0.14 and dotnet/coreclr v3.1.23.

use crate::error::{Error, Reading};
use crate::runtime::Runtime;
use crate::types::MethodTable;

/// Fields of `System.Exception`, from the start of the object: the same in all versions.
const MESSAGE: u64 = 16;
const INNER: u64 = 32;
const STACK_TRACE: u64 = 48;
const STACK_TRACE_STRING: u64 = 64;
/// `StackTraceElement`: ip, sp, `MethodDesc*`, flags.
const ELEMENT: u64 = 32;
/// `STEF_IP_ADJUSTED`: the instruction pointer was taken back by one, into the call.
const ADJUSTED: u32 = 2;
/// Frames of a trace: a stack overflow has some hundred thousand.
const MAX_FRAMES: u64 = 1 << 21;
/// Steps from a type to its parent.
const MAX_DEPTH: usize = 1 << 10;

/// A frame of an exception's stack trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceFrame {
    /// Instruction pointer, as the runtime noted it: at times one byte before where the frame stood.
    pub ip: u64,
    /// An address inside the instruction that threw, or the call that went on to the frame before.
    pub at: u64,
    /// Stack pointer.
    pub sp: u64,
    /// `MethodDesc*`.
    pub method: u64,
}

/// An exception object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Its address.
    pub object: u64,
    /// Its method table.
    pub table: u64,
    /// The string with its message, 0 for none (its type then makes one when asked).
    pub message: u64,
    /// The exception that led to it, 0 for none.
    pub inner: u64,
    /// The string with its stack trace, where it was asked for or brought from elsewhere; 0 for none.
    pub trace_string: u64,
    /// `HResult`, when the field can be found.
    pub hresult: Option<u32>,
    /// Where it was thrown and what it passed, innermost frame first; empty for one that was never thrown.
    pub frames: Vec<TraceFrame>,
    /// Frames that are not in the dump.
    pub missing_frames: u64,
}

impl Runtime<'_> {
    /// Whether a type is `System.Exception` or derived from it.
    ///
    /// # Errors
    /// [`Error::Missing`] for the pointer to `System.Exception`.
    pub fn is_exception(&self, table: u64) -> Result<bool, Error> {
        let wanted =
            self.target().u64(self.globals().exception_class).reading("the type System.Exception")?;
        let mut at = table;
        for _ in 0..MAX_DEPTH {
            if at == wanted || at == 0 {
                break;
            }
            at = self.method_table(at).map(|table| table.parent).unwrap_or(0);
        }
        Ok(at == wanted && at != 0)
    }

    /// The exception object at an address; `None` when the object is none.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Damaged`].
    pub fn exception(&self, address: u64) -> Result<Option<Exception>, Error> {
        let object = self.object(address)?;
        if !self.is_exception(object.table)? {
            return Ok(None);
        }
        let memory = self.target();
        let what = "an exception";
        let field = |offset: u64| memory.u64(address.wrapping_add(offset)).reading(what);
        let table = self.method_table(object.table)?;
        let number = |name: &str| memory.u32(address.wrapping_add(self.field_offset(&table, name)?)).ok();
        let hresult = number("_HResult");
        // Codes of the processor's exceptions begin with 0xC, that of a thrown one is 0xE0434352.
        let faulted = number("_xcode").is_some_and(|code| code >> 28 == 0xc);
        let (frames, missing_frames) = match field(STACK_TRACE)? {
            0 => (Vec::new(), 0),
            array => self.trace(array, faulted)?,
        };
        Ok(Some(Exception {
            object: address,
            table: object.table,
            message: field(MESSAGE)?,
            inner: field(INNER)?,
            trace_string: field(STACK_TRACE_STRING)?,
            hresult,
            frames,
            missing_frames,
        }))
    }

    fn field_offset(&self, table: &MethodTable, name: &str) -> Option<u64> {
        let fields = self.fields(table).ok()?;
        let field = fields.iter().find(|field| field.name == name && !field.is_static)?;
        Some(u64::from(field.offset) + 8)
    }

    /// The frames in a stack trace, and how many could not be read: a byte array, since 9 maybe the first element of an
    /// object array that keeps the methods alive. `faulted`: the processor raised the exception.
    fn trace(&self, array: u64, faulted: bool) -> Result<(Vec<TraceFrame>, u64), Error> {
        let memory = self.target();
        let what = "the stack trace of an exception";
        let mut array = array;
        let object = self.object(array)?;
        if self.method_table(object.table)?.component_size == 8 {
            array = memory.u64(array.wrapping_add(16)).reading(what)?;
            if array == 0 {
                return Ok((Vec::new(), 0));
            }
        }
        let bytes = u64::from(memory.u32(array.wrapping_add(8)).reading(what)?);
        if bytes < 16 {
            return Ok((Vec::new(), 0));
        }
        let count = u64::from(memory.u32(array.wrapping_add(16)).reading(what)?);
        // The array is longer than what is used of it.
        if count > MAX_FRAMES || count > (bytes - 16) / ELEMENT {
            return Err(Error::Damaged { what: "the stack trace of an exception", addr: array });
        }
        let mut frames = Vec::new();
        for i in 0..count {
            let at = array.wrapping_add(32 + ELEMENT * i);
            let word = |offset: u64| memory.u64(at.wrapping_add(offset));
            let (Ok(ip), Ok(sp), Ok(method)) = (word(0), word(8), word(16)) else {
                return Ok((frames, count - i));
            };
            let flags = memory.u32(at.wrapping_add(24)).unwrap_or(0);
            // 3.1 has no such flag, and takes back the instruction pointers of the processor's exceptions only.
            let adjusted = if self.major() < 5 { faulted } else { flags & ADJUSTED != 0 };
            let at = match (adjusted, faulted && i == 0) {
                (true, true) => ip.wrapping_add(1),
                (false, false) if self.major() < 5 => ip.wrapping_sub(1),
                _ => ip,
            };
            frames.push(TraceFrame { ip, at, sp, method });
        }
        Ok((frames, 0))
    }
}
