//! Method descriptions.
//!
//! Source: `vm/method.hpp` (`MethodDesc`, `MethodDescChunk`, `InstantiatedMethodDesc`, `DynamicMethodDesc`) of dotnet/runtime
//! v8.0.0 to v10.0.14 and dotnet/coreclr v3.1.23; names as `TypeString::AppendMethodInternal` in `vm/typestring.cpp` writes
//! them, which is what the DAC answers: `Type.Method[[arguments]](parameters)`.

use serde::Serialize;

use super::signature;
use crate::error::{Error, Reading};
use crate::names::NameStyle;
use crate::runtime::Runtime;
use crate::types::MethodTable;

/// `MethodDescChunk`: size of its header; method descriptions are counted in units of 8 bytes behind it.
pub(super) const CHUNK_HEADER: u64 = 24;
pub(super) const UNIT: u64 = 8;
/// Type arguments of a generic method; more is damage.
const MAX_ARGUMENTS: u16 = 512;
/// Bytes of the name of a dynamic method.
const MAX_NAME: usize = 1024;
/// Bytes of a signature made at run time.
const MAX_SIGNATURE: u32 = 1 << 16;
/// `InstantiatedMethodDesc` kinds in the low bits of its flags.
const INSTANTIATION_KIND: u16 = 7;
const GENERIC_DEFINITION: u16 = 1;
const OLD_GENERIC_DEFINITION: u16 = 0;

/// What kind of method a method description describes (`MethodClassification`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MethodKind {
    /// Ordinary: it has IL.
    Il,
    /// Implemented by the runtime, called directly.
    FCall,
    /// A native function by P/Invoke.
    PInvoke,
    /// Implemented by the runtime (a delegate's `Invoke`).
    RuntimeProvided,
    /// A method of an array type.
    Array,
    /// A generic method, with or without its arguments.
    Instantiated,
    /// A method of a COM object.
    ComInterop,
    /// Made at run time: a `DynamicMethod` or a stub that the runtime wrote in IL.
    Dynamic,
}

/// A method description, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Its own address.
    pub address: u64,
    /// Method table of the type that it belongs to.
    pub table: u64,
    /// Metadata token (0x06……); row 0 for methods without metadata.
    pub token: u32,
    /// What kind of method it is.
    pub kind: MethodKind,
    /// Its slot in the type.
    pub slot: u16,
    /// See `Runtime::method_flags`.
    pub(super) flags: u16,
}

impl Runtime<'_> {
    /// The method description at an address.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn method(&self, address: u64) -> Result<Method, Error> {
        let memory = self.target();
        let what = "a method description";
        let low = memory.u16(address).reading(what)?;
        let index = memory.u8(address.wrapping_add(2)).reading(what)?;
        let flags = memory.u16(address.wrapping_add(6)).reading(what)?;
        let chunk = address.wrapping_sub(UNIT * u64::from(index) + CHUNK_HEADER);
        let table = memory.u64(chunk).reading("a chunk of method descriptions")?;
        let high = memory.u16(chunk.wrapping_add(18)).reading("a chunk of method descriptions")?;
        // The token's low bits stand in the method, the others in its chunk.
        let bits = self.layout().method_desc.token_bits;
        let mask = |bits: u32| (1u32 << bits) - 1;
        let row = (u32::from(high) & mask(24 - bits)) << bits | u32::from(low) & mask(bits);
        let kind = match flags & 7 {
            0 => MethodKind::Il,
            1 => MethodKind::FCall,
            2 => MethodKind::PInvoke,
            3 => MethodKind::RuntimeProvided,
            4 => MethodKind::Array,
            5 => MethodKind::Instantiated,
            6 => MethodKind::ComInterop,
            _ => MethodKind::Dynamic,
        };
        let slot = memory.u16(address.wrapping_add(4)).reading(what)?;
        let slot = self.slot_number(slot, flags);
        let flags2 = memory.u8(address.wrapping_add(3)).reading(what)?;
        Ok(Method {
            address,
            table,
            token: 0x0600_0000 | row,
            kind,
            slot,
            flags: self.method_flags(flags, flags2, low),
        })
    }

    /// Name of the method with the description at `address`, as the runtime writes it. What can't be found is told in
    /// angle brackets.
    #[must_use]
    pub fn method_name(&self, address: u64) -> String {
        let Ok(method) = self.method(address) else {
            return format!("<unreadable method description {address:x}>");
        };
        match method.kind {
            MethodKind::Dynamic => return self.dynamic_name(&method),
            MethodKind::Array => return self.array_name(&method),
            _ => {}
        }
        let type_name = self.type_name(method.table, NameStyle::Runtime);
        let Ok(table) = self.method_table(method.table) else {
            return format!("{type_name}.<method {:x}>", method.token);
        };
        let Ok(module) = table.module(self.target(), self.layout()) else {
            return format!("{type_name}.<method {:x}>", method.token);
        };
        let module = self.module(module);
        let Some(metadata) = module.metadata() else {
            return format!("{type_name}.<method {:x}>", method.token);
        };
        let Some(row) = metadata.method(method.token & 0xff_ffff) else {
            return format!("{type_name}.<method {:x}>", method.token);
        };
        let type_arguments = if table.is_generic() { self.type_arguments(&table) } else { Vec::new() };
        let method_arguments = self.method_arguments(&method);
        let mut name = format!("{type_name}.{}", row.name);
        if !method_arguments.is_empty() {
            self.write_arguments(&mut name, &method_arguments, 0);
        }
        let context = signature::Context {
            metadata: Some(&metadata),
            type_arguments: &type_arguments,
            method_arguments: &method_arguments,
        };
        self.write_parameters(&mut name, &context, row.signature);
        name
    }

    /// The type arguments (type handles) of a generic method; empty for other methods and for open ones.
    #[must_use]
    pub fn method_arguments(&self, method: &Method) -> Vec<u64> {
        if method.kind != MethodKind::Instantiated {
            return Vec::new();
        }
        let memory = self.target();
        let at = method.address.wrapping_add(self.layout().method_desc.generic_args);
        let read = || -> Option<Vec<u64>> {
            let flags = memory.u16(at.wrapping_add(8)).ok()?;
            let count = memory.u16(at.wrapping_add(10)).ok().filter(|&n| n <= MAX_ARGUMENTS)?;
            let definition = if self.major() > 3 { GENERIC_DEFINITION } else { OLD_GENERIC_DEFINITION };
            if flags & INSTANTIATION_KIND == definition {
                return None;
            }
            let list = memory.u64(at).ok()?;
            (0..u64::from(count)).map(|i| memory.u64(list.wrapping_add(8 * i)).ok()).collect()
        };
        read().unwrap_or_default()
    }

    /// Whether a dynamic method was made by the program (`DynamicMethod`), not by the runtime.
    pub(crate) fn is_user_dynamic(&self, method: &Method) -> bool {
        let layout = &self.layout().method_desc;
        let flags = self.target().u32(method.address.wrapping_add(layout.dynamic_name - 4)).unwrap_or(0);
        method.kind == MethodKind::Dynamic && flags & layout.dynamic_user != 0
    }

    /// `StoredSigMethodDesc`: signature, its size, flags.
    pub(super) fn stored_signature(&self, method: &Method) -> Option<Vec<u8>> {
        let memory = self.target();
        let at = method.address.wrapping_add(self.layout().method_desc.dynamic_name);
        let size = memory.u32(at.wrapping_sub(8)).ok().filter(|&size| size <= MAX_SIGNATURE)?;
        let mut signature = vec![0; size as usize];
        memory.read(memory.u64(at.wrapping_sub(16)).ok()?, &mut signature).ok()?;
        Some(signature)
    }

    /// Methods of an array type have a number instead of a name (`ArrayMethodDesc::GetMethodName`).
    fn array_name(&self, method: &Method) -> String {
        let mut out = self.type_name(method.table, NameStyle::Runtime);
        let table = self.method_table(method.table).ok();
        let number = table.as_ref().and_then(|table| method.slot.checked_sub(table.virtuals));
        out.push_str(match number {
            Some(0) => ".Get",
            Some(1) => ".Set",
            Some(2) => ".Address",
            Some(_) => "..ctor",
            None => ".<unknown method>",
        });
        let element = table.map(|table| table.per_inst_info);
        match self.stored_signature(method) {
            Some(signature) => {
                let context = signature::Context {
                    metadata: None,
                    type_arguments: element.as_slice(),
                    method_arguments: &[],
                };
                self.write_parameters(&mut out, &context, &signature);
            }
            None => out.push_str("(…)"),
        }
        out
    }

    /// `DynamicMethodDesc`: signature, its size, flags and the name follow each other.
    fn dynamic_name(&self, method: &Method) -> String {
        let memory = self.target();
        let layout = &self.layout().method_desc;
        let word = |offset: u64| memory.u64(method.address.wrapping_add(offset)).unwrap_or(0);
        let name = match word(layout.dynamic_name) {
            0 => Vec::new(),
            at => memory.c_string(at, MAX_NAME),
        };
        let class = if self.is_user_dynamic(method) { "DynamicClass" } else { "ILStubClass" };
        let name = if name.is_empty() { "<unnamed>".into() } else { String::from_utf8_lossy(&name) };
        let mut out = format!("{class}.{name}");
        let Some(signature) = self.stored_signature(method) else {
            out.push_str("(…)");
            return out;
        };
        // Tokens in it would belong to the module of the type that it was made for; most signatures have none.
        let table = MethodTable::read(self.target(), self.layout(), method.table);
        let module = table.as_ref().ok().and_then(|table| table.module(self.target(), self.layout()).ok());
        let module = module.map(|module| self.module(module));
        let metadata = module.as_ref().and_then(|module| module.metadata());
        let arguments =
            table.map(|table| if table.is_generic() { self.type_arguments(&table) } else { Vec::new() });
        let context = signature::Context {
            metadata: metadata.as_ref(),
            type_arguments: arguments.as_deref().unwrap_or_default(),
            method_arguments: &[],
        };
        self.write_parameters(&mut out, &context, &signature);
        out
    }
}
