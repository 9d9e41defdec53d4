//! Parameters and locals of frames, and their values.
//!
//! What there is, is told by metadata: the method's signature, the names of its parameters, the signature of the locals
//! that its IL names; names of locals stand in the PDB. Where it is at an instruction, is told by debug info
//! ([`super::VariablePlace`]); what the compiler dropped there has no place. A register that a call in between may have
//! changed is not known, and neither is what was in it.
//!
//! Sources: `ClrDataFrame::ValueFromDebugInfo` in `debug/daccess/stack.cpp`, `NativeVarLocations` in `vm/util.cpp`. Two
//! things differ: behind a call the place is the one that holds for the call, not one that begins behind it; and
//! registers that calls destroy are not read.

use dnd_memory::{Arch, Memory};
use dnd_metadata::signature::{self, Type};
use dnd_metadata::{BODY_HEADER, Metadata, Pe, Source, Table, body_header};

use super::{Code, MethodKind, NativeVariable, VariablePlace};
use crate::constructed::Scope;
use crate::error::Error;
use crate::fields::ElementType;
use crate::modules::{InMemory, Module};
use crate::runtime::Runtime;
use crate::stack::{Context, Frame, FrameKind};
use crate::types::MethodTable;

/// Parameters and locals of one method; more is damage.
const MAX_VARIABLES: usize = 1 << 12;
/// `ICorDebugInfo::REGNUM_AMBIENT_SP`: the stack pointer as it is between the prolog and the epilog.
const AMBIENT_X64: u32 = 17;
const AMBIENT_ARM64: u32 = 34;

/// The variables of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables {
    /// Its parameters, `this` first.
    pub parameters: Vec<Variable>,
    /// Its locals, by number.
    pub locals: Vec<Variable>,
    /// Why there is nothing to tell of the locals, when that is so.
    pub no_locals: Option<&'static str>,
    /// Why no variable has a place, when what tells it is missing or damaged.
    pub problem: Option<Error>,
}

/// A parameter or local of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name, where it is known.
    pub name: Option<String>,
    /// Its type, as in names of methods.
    pub type_name: String,
    /// What it holds.
    pub kind: VariableKind,
    /// Where it is; `None` where the compiler keeps it nowhere.
    pub at: Option<VariableAt>,
    /// Its bits; `None` when they are not known, not there, or more than 64.
    pub value: Option<u64>,
}

/// What a variable holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableKind {
    /// A number of so many bytes.
    Number(u64),
    /// A reference to an object.
    Object,
    /// The address of something (`ref`, a pointer).
    Address,
    /// A struct.
    Struct {
        /// Its method table, when it can be found.
        table: Option<u64>,
        /// Bytes, when the type is known.
        size: Option<u64>,
    },
}

impl VariableKind {
    fn size(self) -> Option<u64> {
        match self {
            VariableKind::Number(size) => Some(size),
            VariableKind::Object | VariableKind::Address => Some(8),
            VariableKind::Struct { size, .. } => size,
        }
    }
}

/// Where a variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableAt {
    /// In a register.
    Register(&'static str),
    /// In a floating-point register, by number.
    FloatRegister(u32),
    /// In memory.
    Memory(u64),
    /// In memory, at an address that can't be told: it hangs on a register that isn't known.
    UnknownMemory,
    /// In two registers, or in a register and in memory.
    Split,
}

/// What the tokens and parameters of a method's signatures stand for.
struct Meaning<'a> {
    /// The address of the module is 0 when it isn't known.
    scope: Scope<'a>,
    metadata: Option<&'a Metadata<'a>>,
}

impl Runtime<'_> {
    /// The parameters and locals of a frame whose registers are `context`; nothing for frames without managed code.
    ///
    /// # Errors
    /// Those of reading the method's description. What is missing of its debug info leaves variables without a place.
    pub fn variables(&self, frame: &Frame, context: &Context) -> Result<Variables, Error> {
        let FrameKind::Managed(code) = &frame.kind else { return Ok(Variables::default()) };
        let method = self.method(code.method)?;
        // The type of a method made at run time may be none that can be read.
        let table = MethodTable::read(self.target(), self.layout(), method.table)?;
        let module = self.module(table.module(self.target(), self.layout()).unwrap_or(0));
        let metadata = module.metadata();
        let row = method.token & 0xff_ffff;
        let dynamic = method.kind == MethodKind::Dynamic;
        let definition = metadata.as_ref().and_then(|metadata| metadata.method(row)).filter(|_| !dynamic);
        let signature = match &definition {
            Some(definition) => signature::method(definition.signature),
            None if dynamic => self.stored_signature(&method).and_then(|bytes| signature::method(&bytes)),
            None => None,
        };
        let Some(signature) = signature else { return Ok(Variables::default()) };
        let type_arguments = if table.is_generic() { self.type_arguments(&table) } else { Vec::new() };
        let method_arguments = self.method_arguments(&method);
        let scope = Scope {
            module: module.address,
            type_arguments: &type_arguments,
            method_arguments: &method_arguments,
        };
        let meaning = Meaning { scope, metadata: metadata.as_ref() };
        let (native, problem) = match self.native_variables(code) {
            Ok(native) => (native, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let at = u32::try_from(frame.at().wrapping_sub(code.start)).unwrap_or(u32::MAX);
        let placed = |variable: Variable, number: usize| {
            let here = |variable: &&NativeVariable| {
                variable.number == u32::try_from(number).ok() && (variable.start..variable.end).contains(&at)
            };
            self.placed(variable, context, native.iter().find(here).map(|variable| variable.place))
        };
        let mut variables = Variables { problem, ..Variables::default() };
        if signature.has_this {
            let kind = if table.is_value_type() { VariableKind::Address } else { VariableKind::Object };
            let type_name = self.type_name(table.address, crate::NameStyle::Runtime);
            let this = Variable { name: Some("this".to_owned()), type_name, kind, at: None, value: None };
            variables.parameters.push(placed(this, 0));
        }
        for (index, ty) in signature.parameters.iter().enumerate().take(MAX_VARIABLES) {
            // Numbered from 1, without `this`; those of methods made at run time have no names.
            let named = |metadata: &Metadata<'_>| {
                let param = metadata.params_of(row).find(|param| usize::from(param.sequence) == index + 1)?;
                Some(param.name.into_owned())
            };
            let name = metadata.as_ref().filter(|_| !dynamic).and_then(named);
            let variable = self.variable(&meaning, name.filter(|name| !name.is_empty()), ty);
            variables.parameters.push(placed(variable, variables.parameters.len()));
        }
        let types = match metadata.as_ref().zip(definition) {
            Some((metadata, definition)) => self.locals(&module, metadata, definition.rva),
            // They were forgotten once it was compiled.
            None => Err("it was made at run time"),
        };
        match types {
            Ok(types) => {
                let names = self.local_names(code, &module, row, at);
                for (index, ty) in types.iter().enumerate().take(MAX_VARIABLES) {
                    let name = names.get(index).cloned().flatten();
                    let variable = self.variable(&meaning, name, ty);
                    variables.locals.push(placed(variable, variables.parameters.len() + index));
                }
            }
            Err(reason) => variables.no_locals = Some(reason),
        }
        Ok(variables)
    }

    /// The types of a method's locals, from its IL.
    fn locals(
        &self,
        module: &Module<'_>,
        metadata: &Metadata<'_>,
        rva: u32,
    ) -> Result<Vec<Type>, &'static str> {
        if rva == 0 {
            return Err("it has no IL");
        }
        let missing = "its IL is not in the dump";
        let (base, layout) = module.image.ok_or(missing)?;
        let image = InMemory { memory: self.target(), base };
        let at = Pe::parse(&image, layout).ok().and_then(|pe| pe.offset(rva)).ok_or(missing)?;
        let mut header = [0; BODY_HEADER];
        if !image.read(at, &mut header) {
            // A short body may stand at the very end.
            let (first, _) = header.split_at_mut(1);
            if !image.read(at, first) {
                return Err(missing);
            }
        }
        let header = body_header(&header).ok_or("its IL is damaged")?;
        let Some(row) = header.locals.row_of(Table::StandAloneSig) else { return Ok(Vec::new()) };
        metadata.stand_alone_sig(row).and_then(signature::locals).ok_or("its IL is damaged")
    }

    fn local_names(&self, code: &Code, module: &Module<'_>, row: u32, native: u32) -> Vec<Option<String>> {
        let Some(pdb) = self.pdb(module.address) else { return Vec::new() };
        let offset = self.il_map(code).ok().and_then(|map| map.line_offset(native));
        pdb.get().map(|pdb| pdb.local_names(row, offset)).unwrap_or_default()
    }

    fn variable(&self, meaning: &Meaning<'_>, name: Option<String>, ty: &Type) -> Variable {
        let context = super::signature::Context {
            metadata: meaning.metadata,
            type_arguments: meaning.scope.type_arguments,
            method_arguments: meaning.scope.method_arguments,
        };
        let type_name = self.parameter_text(&context, ty);
        Variable { name, type_name, kind: self.kind(meaning, ty), at: None, value: None }
    }

    fn kind(&self, meaning: &Meaning<'_>, ty: &Type) -> VariableKind {
        match ty {
            Type::Primitive(primitive) => match ElementType(*primitive as u8) {
                element if element.is_reference() => VariableKind::Object,
                // A typed reference is an address and a type.
                ElementType(0x16) => VariableKind::Struct { table: None, size: Some(16) },
                element => VariableKind::Number(element.size().unwrap_or(8)),
            },
            Type::Class(_) | Type::Vector(_) | Type::Array(..) | Type::Instance(_, false, _) => {
                VariableKind::Object
            }
            Type::Pointer(_) | Type::ByRef(_) | Type::Function(_) => VariableKind::Address,
            Type::ValueType(token) => self.struct_kind(self.token_type(meaning.scope.module, *token)),
            Type::TypeParameter(number) => {
                self.handle_kind(meaning.scope.type_arguments.get(*number as usize))
            }
            Type::MethodParameter(number) => {
                self.handle_kind(meaning.scope.method_arguments.get(*number as usize))
            }
            Type::Pinned(inner) | Type::Modified(_, _, inner) => self.kind(meaning, inner),
            Type::Internal(handle) => self.handle_kind(Some(handle)),
            Type::Instance(_, true, _) => self.struct_kind(self.signature_table(&meaning.scope, ty)),
            Type::InternalInstance(..) => match self.signature_table(&meaning.scope, ty) {
                Some(table) => self.handle_kind(Some(&table)),
                None => VariableKind::Struct { table: None, size: None },
            },
        }
    }

    fn handle_kind(&self, handle: Option<&u64>) -> VariableKind {
        let Some(&handle) = handle else { return VariableKind::Struct { table: None, size: None } };
        if handle & 2 != 0 {
            return VariableKind::Address;
        }
        match self.method_table(handle) {
            Ok(table) if table.is_value_type() => self.struct_kind(Some(handle)),
            Ok(_) => VariableKind::Object,
            Err(_) => VariableKind::Struct { table: None, size: None },
        }
    }

    /// A value type: numbers and enums by the number that they are.
    fn struct_kind(&self, handle: Option<u64>) -> VariableKind {
        let table = handle.and_then(|handle| self.method_table(handle).ok());
        let Some(table) = table else { return VariableKind::Struct { table: None, size: None } };
        let (element, size) = self.value_shape(&table).map_or((None, None), |(e, s)| (Some(e), Some(s)));
        match element.map(|element| (element, element.size())) {
            Some((ElementType(0x02..=0x0d | 0x18 | 0x19), Some(size))) => VariableKind::Number(size),
            _ => VariableKind::Struct { table: Some(table.address), size },
        }
    }

    /// The variable, with its place and what is there.
    fn placed(&self, mut variable: Variable, context: &Context, place: Option<VariablePlace>) -> Variable {
        let memory = self.target();
        let register = |number: u32| context.get(register_number(context.arch(), number));
        let name = |number: u32| Context::name(context.arch(), register_number(context.arch(), number));
        let address = |base: u32, offset: i32| Some(register(base)?.wrapping_add_signed(offset.into()));
        let in_memory = |at: Option<u64>| at.map_or(VariableAt::UnknownMemory, VariableAt::Memory);
        let size = variable.kind.size().unwrap_or(u64::MAX);
        let mask = |bits: u64| if size < 8 { bits & ((1 << (8 * size)) - 1) } else { bits };
        let at = match place {
            None => return variable,
            Some(VariablePlace::Register(number)) => {
                // A struct in a register is there whole.
                variable.value = register(number).filter(|_| size <= 8).map(mask);
                VariableAt::Register(name(number))
            }
            Some(VariablePlace::FloatRegister(number)) => VariableAt::FloatRegister(number),
            Some(VariablePlace::RegisterAddress(number)) => in_memory(register(number)),
            Some(VariablePlace::Stack(base, offset) | VariablePlace::TwoWords(base, offset)) => {
                in_memory(address(base, offset))
            }
            Some(VariablePlace::StackAddress(base, offset)) => {
                in_memory(address(base, offset).and_then(|at| memory.u64(at).ok()))
            }
            Some(
                VariablePlace::TwoRegisters(..)
                | VariablePlace::RegisterAndStack(..)
                | VariablePlace::StackAndRegister(..),
            ) => VariableAt::Split,
            Some(VariablePlace::Other) => return variable,
        };
        if let VariableAt::Memory(address) = at {
            variable.value = read_number(memory, address, size);
        }
        variable.at = Some(at);
        variable
    }
}

/// The number that a register of debug info has in a [`Context`].
fn register_number(arch: Arch, number: u32) -> usize {
    match (arch, number) {
        (Arch::X64, AMBIENT_X64) => 4,
        (Arch::Arm64, AMBIENT_ARM64) => 31,
        // The others are numbered as the processor numbers them.
        (_, number) => number as usize,
    }
}

fn read_number(memory: &dyn Memory, at: u64, size: u64) -> Option<u64> {
    match size {
        1 => memory.u8(at).ok().map(u64::from),
        2 => memory.u16(at).ok().map(u64::from),
        4 => memory.u32(at).ok().map(u64::from),
        8 => memory.u64(at).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_numbered_as_in_contexts() {
        assert_eq!(Context::name(Arch::X64, register_number(Arch::X64, 7)), "rdi");
        assert_eq!(Context::name(Arch::X64, register_number(Arch::X64, AMBIENT_X64)), "rsp");
        assert_eq!(Context::name(Arch::Arm64, register_number(Arch::Arm64, AMBIENT_ARM64)), "sp");
        assert_eq!(Context::name(Arch::Arm64, register_number(Arch::Arm64, 29)), "fp");
        // One that does not exist is no register.
        assert_eq!(Context::name(Arch::X64, register_number(Arch::X64, 99)), "?");
    }
}
