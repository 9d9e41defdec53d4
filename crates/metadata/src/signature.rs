//! Signatures: the types of fields, methods and locals (II.23.2).

use std::fmt::Write;

use crate::bytes::{compressed, compressed_signed, u64_at};
use crate::metadata::Metadata;
use crate::token::Token;

/// A type, as a signature writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// `void`, `bool`, numbers, `object`, `string`, `typedref`.
    Primitive(Primitive),
    /// A reference type by token (TypeDef, TypeRef or TypeSpec).
    Class(Token),
    /// A value type by token.
    ValueType(Token),
    /// A pointer.
    Pointer(Box<Type>),
    /// A managed reference (`ref`).
    ByRef(Box<Type>),
    /// A one-dimensional array from 0.
    Vector(Box<Type>),
    /// Any other array.
    Array(Box<Type>, ArrayShape),
    /// A generic type with its arguments; whether it is a value type.
    Instance(Token, bool, Vec<Type>),
    /// Parameter n of the generic type.
    TypeParameter(u32),
    /// Parameter n of the generic method.
    MethodParameter(u32),
    /// A function pointer.
    Function(Box<MethodSignature>),
    /// A local that holds its object in place.
    Pinned(Box<Type>),
    /// A type with a modifier that it requires (`true`) or may have.
    Modified(bool, Token, Box<Type>),
    /// ELEMENT_TYPE_INTERNAL, in signatures that the runtime makes: a TypeHandle.
    Internal(u64),
    /// A generic type that is given by its TypeHandle in such signatures, with its arguments.
    InternalInstance(u64, Vec<Type>),
}

/// Types that have a code of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of .NET")]
pub enum Primitive {
    Void = 0x01,
    Boolean = 0x02,
    Char = 0x03,
    SByte = 0x04,
    Byte = 0x05,
    Int16 = 0x06,
    UInt16 = 0x07,
    Int32 = 0x08,
    UInt32 = 0x09,
    Int64 = 0x0a,
    UInt64 = 0x0b,
    Single = 0x0c,
    Double = 0x0d,
    String = 0x0e,
    TypedReference = 0x16,
    IntPtr = 0x18,
    UIntPtr = 0x19,
    Object = 0x1c,
}

impl Primitive {
    /// By its element type (II.23.1.16).
    #[must_use]
    pub fn from_element_type(code: u8) -> Option<Self> {
        use Primitive::*;
        const ALL: [Primitive; 18] = [
            Void,
            Boolean,
            Char,
            SByte,
            Byte,
            Int16,
            UInt16,
            Int32,
            UInt32,
            Int64,
            UInt64,
            Single,
            Double,
            String,
            TypedReference,
            IntPtr,
            UIntPtr,
            Object,
        ];
        ALL.into_iter().find(|&primitive| primitive as u8 == code)
    }

    /// Its name as the runtime writes it in method names: `Int32`, but `System.String` and `System.Object`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Primitive::Void => "Void",
            Primitive::Boolean => "Boolean",
            Primitive::Char => "Char",
            Primitive::SByte => "SByte",
            Primitive::Byte => "Byte",
            Primitive::Int16 => "Int16",
            Primitive::UInt16 => "UInt16",
            Primitive::Int32 => "Int32",
            Primitive::UInt32 => "UInt32",
            Primitive::Int64 => "Int64",
            Primitive::UInt64 => "UInt64",
            Primitive::Single => "Single",
            Primitive::Double => "Double",
            Primitive::String => "System.String",
            Primitive::TypedReference => "TypedReference",
            Primitive::IntPtr => "IntPtr",
            Primitive::UIntPtr => "UIntPtr",
            Primitive::Object => "System.Object",
        }
    }
}

/// Shape of an array that is no vector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArrayShape {
    /// Number of dimensions.
    pub rank: u32,
    /// Sizes of the first dimensions, where given.
    pub sizes: Vec<u32>,
    /// Lower bounds of the first dimensions, where given.
    pub lower_bounds: Vec<i32>,
}

/// A method's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodSignature {
    /// Whether it has a `this`.
    pub has_this: bool,
    /// The low four bits: 0 default, 5 vararg, 9 unmanaged, ...
    pub calling_convention: u8,
    /// Number of generic parameters.
    pub generic_parameters: u32,
    /// What it returns.
    pub returns: Type,
    /// Its parameters, without `this`.
    pub parameters: Vec<Type>,
    /// For a call with variable arguments: how many parameters stand before them.
    pub fixed: Option<usize>,
}

/// Real signatures nest a handful of levels.
const MAX_DEPTH: u32 = 64;

/// A TypeSpec's signature can name that TypeSpec itself in a damaged file, and each level may name many: so the
/// text is bounded besides the depth.
const MAX_TEXT: usize = 1 << 14;

/// Reads a field's signature.
#[must_use]
pub fn field(blob: &[u8]) -> Option<Type> {
    let mut reader = Reader { bytes: blob, sentinel: false };
    (reader.byte()? & 0xf == 6).then(|| reader.ty(0))?
}

/// Reads a method's signature (MethodDef, MemberRef of a method, or a stand-alone one for `calli`).
#[must_use]
pub fn method(blob: &[u8]) -> Option<MethodSignature> {
    Reader { bytes: blob, sentinel: false }.method(0)
}

/// Reads a TypeSpec.
#[must_use]
pub fn type_spec(blob: &[u8]) -> Option<Type> {
    Reader { bytes: blob, sentinel: false }.ty(0)
}

/// Reads the types of a method's locals.
#[must_use]
pub fn locals(blob: &[u8]) -> Option<Vec<Type>> {
    let mut reader = Reader { bytes: blob, sentinel: false };
    (reader.byte()? == 7).then(|| reader.types(0))?
}

/// Reads the arguments of a MethodSpec.
#[must_use]
pub fn method_spec(blob: &[u8]) -> Option<Vec<Type>> {
    let mut reader = Reader { bytes: blob, sentinel: false };
    (reader.byte()? == 0xa).then(|| reader.types(0))?
}

struct Reader<'a> {
    bytes: &'a [u8],
    sentinel: bool,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    fn number(&mut self) -> Option<u32> {
        let (value, len) = compressed(self.bytes)?;
        self.bytes = self.bytes.get(len..)?;
        Some(value)
    }

    fn signed(&mut self) -> Option<i32> {
        let (value, len) = compressed_signed(self.bytes)?;
        self.bytes = self.bytes.get(len..)?;
        Some(value)
    }

    /// A TypeDefOrRefOrSpecEncoded.
    fn token(&mut self) -> Option<Token> {
        let value = self.number()?;
        let table = [0x0200_0000, 0x0100_0000, 0x1b00_0000].get(value as usize & 3)?;
        Some(Token(table | (value >> 2 & 0xff_ffff)))
    }

    /// A number, and so many types. Each takes at least one byte, so the blob's length bounds them.
    fn types(&mut self, depth: u32) -> Option<Vec<Type>> {
        let count = self.number()?;
        let mut types = Vec::new();
        for _ in 0..count {
            types.push(self.ty(depth)?);
        }
        Some(types)
    }

    fn method(&mut self, depth: u32) -> Option<MethodSignature> {
        if depth > MAX_DEPTH {
            return None;
        }
        let first = self.byte()?;
        let calling_convention = first & 0xf;
        // Field, locals, property and generic instantiation are not methods.
        if matches!(calling_convention, 6 | 7 | 8 | 0xa) {
            return None;
        }
        let generic_parameters = if first & 0x10 != 0 { self.number()? } else { 0 };
        let count = self.number()?;
        let returns = self.ty(depth)?;
        let mut parameters = Vec::new();
        let mut fixed = None;
        for i in 0..count as usize {
            self.sentinel = false;
            parameters.push(self.ty(depth)?);
            if self.sentinel {
                fixed = Some(i);
                self.sentinel = false;
            }
        }
        let has_this = first & 0x20 != 0;
        Some(MethodSignature { has_this, calling_convention, generic_parameters, returns, parameters, fixed })
    }

    /// A TypeHandle of the runtime.
    fn handle(&mut self) -> Option<u64> {
        let handle = u64_at(self.bytes, 0)?;
        self.bytes = self.bytes.get(8..)?;
        Some(handle)
    }

    fn boxed(&mut self, depth: u32) -> Option<Box<Type>> {
        Some(Box::new(self.ty(depth + 1)?))
    }

    fn ty(&mut self, depth: u32) -> Option<Type> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut code = self.byte()?;
        if code == 0x41 {
            self.sentinel = true;
            code = self.byte()?;
        }
        Some(match code {
            0x0f => Type::Pointer(self.boxed(depth)?),
            0x10 => Type::ByRef(self.boxed(depth)?),
            0x11 => Type::ValueType(self.token()?),
            0x12 => Type::Class(self.token()?),
            0x13 => Type::TypeParameter(self.number()?),
            0x14 => {
                let element = self.boxed(depth)?;
                let mut shape = ArrayShape { rank: self.number()?, ..ArrayShape::default() };
                for _ in 0..self.number()? {
                    shape.sizes.push(self.number()?);
                }
                for _ in 0..self.number()? {
                    shape.lower_bounds.push(self.signed()?);
                }
                Type::Array(element, shape)
            }
            0x15 => {
                let value_type = match self.byte()? {
                    0x11 => true,
                    0x12 => false,
                    0x21 => return Some(Type::InternalInstance(self.handle()?, self.types(depth + 1)?)),
                    _ => return None,
                };
                Type::Instance(self.token()?, value_type, self.types(depth + 1)?)
            }
            0x1b => Type::Function(Box::new(self.method(depth + 1)?)),
            0x1d => Type::Vector(self.boxed(depth)?),
            0x1e => Type::MethodParameter(self.number()?),
            0x1f | 0x20 => Type::Modified(code == 0x1f, self.token()?, self.boxed(depth)?),
            0x21 => Type::Internal(self.handle()?),
            0x45 => Type::Pinned(self.boxed(depth)?),
            code => Type::Primitive(Primitive::from_element_type(code)?),
        })
    }
}

impl Metadata<'_> {
    /// The type as the runtime writes it in method names: `Int32`, `System.String`, `Ns.Type[]`,
    /// ``System.Collections.Generic.List`1<Int32>``, `Int32 ByRef`, `!0`, `!!0`.
    #[must_use]
    pub fn type_text(&self, ty: &Type) -> String {
        let mut out = String::new();
        self.write_type(ty, &mut out, 0);
        out
    }

    /// The parameters of a method as the runtime writes them: `(System.String, Int32)`.
    #[must_use]
    pub fn parameters_text(&self, signature: &MethodSignature) -> String {
        let mut out = String::new();
        self.write_list(&signature.parameters, ('(', ", ", ')'), &mut out, 0);
        out
    }

    fn write_list(
        &self,
        types: &[Type],
        (open, between, close): (char, &str, char),
        out: &mut String,
        depth: u32,
    ) {
        out.push(open);
        for (i, ty) in types.iter().enumerate() {
            if i > 0 {
                out.push_str(between);
            }
            if out.len() > MAX_TEXT {
                out.push('…');
                break;
            }
            self.write_type(ty, out, depth);
        }
        out.push(close);
    }

    fn write_type(&self, ty: &Type, out: &mut String, depth: u32) {
        if depth > MAX_DEPTH || out.len() > MAX_TEXT {
            out.push('…');
            return;
        }
        let depth = depth + 1;
        // Writing to a String can't fail.
        let _ = match ty {
            Type::Primitive(primitive) => {
                out.push_str(primitive.name());
                Ok(())
            }
            Type::Class(token) | Type::ValueType(token) => {
                self.write_token(*token, out, depth);
                Ok(())
            }
            Type::Pointer(inner) => {
                self.write_type(inner, out, depth);
                write!(out, "*")
            }
            Type::ByRef(inner) => {
                self.write_type(inner, out, depth);
                write!(out, " ByRef")
            }
            Type::Vector(inner) => {
                self.write_type(inner, out, depth);
                write!(out, "[]")
            }
            Type::Array(inner, shape) => {
                self.write_type(inner, out, depth);
                // 32 is the most that the runtime allows.
                let commas = ",".repeat(shape.rank.clamp(1, 32) as usize - 1);
                if shape.rank == 1 { write!(out, "[*]") } else { write!(out, "[{commas}]") }
            }
            Type::Instance(token, _, arguments) => {
                self.write_token(*token, out, depth);
                self.write_list(arguments, ('<', ",", '>'), out, depth);
                Ok(())
            }
            Type::TypeParameter(n) => write!(out, "!{n}"),
            Type::MethodParameter(n) => write!(out, "!!{n}"),
            Type::Function(signature) => {
                out.push_str("FnPtr ");
                self.write_type(&signature.returns, out, depth);
                self.write_list(&signature.parameters, ('(', ", ", ')'), out, depth);
                Ok(())
            }
            Type::Pinned(inner) | Type::Modified(_, _, inner) => {
                self.write_type(inner, out, depth);
                Ok(())
            }
            Type::Internal(handle) => write!(out, "<type {handle:#x}>"),
            Type::InternalInstance(handle, arguments) => {
                let _ = write!(out, "<type {handle:#x}>");
                self.write_list(arguments, ('<', ",", '>'), out, depth);
                Ok(())
            }
        };
    }

    fn write_token(&self, token: Token, out: &mut String, depth: u32) {
        match token.row_of(crate::Table::TypeSpec).and_then(|row| type_spec(self.type_spec(row)?)) {
            Some(spec) => self.write_type(&spec, out, depth),
            None => out.push_str(&self.type_name(token)),
        }
    }
}
