//! Type names.
//!
//! The runtime keeps no names: a method table leads to a module and a row of its metadata, and for generic types to the
//! method tables of the arguments (`vm/generics.cpp`, `vm/typedesc.h`, `vm/typestring.cpp` of dotnet/runtime).

use dnd_metadata::signature::Type;
use dnd_metadata::{Metadata, Table};

use crate::runtime::Runtime;
use crate::types::MethodTable;

/// How a name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameStyle {
    /// As dumpheap and gcroot write it: ``System.Collections.Generic.List<Demo.Node>``.
    Display,
    /// As the runtime and dumpmt write it: ``System.Collections.Generic.List`1[[Demo.Node, TestApp]]``.
    Runtime,
}

/// Types inside types inside types; deeper nesting is cut with an ellipsis.
pub(crate) const MAX_DEPTH: u32 = 24;
/// More type arguments than any type has.
const MAX_ARGUMENTS: u16 = 512;

/// `CorElementType` values that a `TypeDesc` may have.
mod element {
    pub(super) const POINTER: u32 = 0x0f;
    pub(super) const BY_REF: u32 = 0x10;
    pub(super) const VAR: u32 = 0x13;
    pub(super) const ARRAY: u32 = 0x14;
    pub(super) const FUNCTION_POINTER: u32 = 0x1b;
    pub(super) const SZ_ARRAY: u32 = 0x1d;
    pub(super) const METHOD_VAR: u32 = 0x1e;
}

impl Runtime<'_> {
    /// Name of the type with the method table at `table`. When it can't be found, a text in angle brackets says so.
    #[must_use]
    pub fn type_name(&self, table: u64, style: NameStyle) -> String {
        let mut out = String::new();
        self.write_name(&mut out, table, style, 0);
        out
    }

    fn write_name(&self, out: &mut String, table: u64, style: NameStyle, depth: u32) {
        if table == self.free().address {
            return out.push_str("Free");
        }
        if depth > MAX_DEPTH {
            return out.push('…');
        }
        let Ok(read) = self.method_table(table) else {
            return out.push_str(&format!("<unreadable method table {table:x}>"));
        };
        if read.is_array() {
            self.write_handle(out, read.per_inst_info, style, depth + 1);
            return if read.is_vector() { out.push_str("[]") } else { write_rank(out, read.rank()) };
        }
        let parts = match self.definition_parts(&read) {
            Ok(parts) => parts,
            Err(problem) => return out.push_str(&problem),
        };
        let arguments = if read.is_generic() { self.type_arguments(&read) } else { Vec::new() };
        match style {
            NameStyle::Runtime => {
                for (i, part) in parts.iter().enumerate() {
                    if i > 0 {
                        out.push('+');
                    }
                    escape_part(out, part);
                }
                if arguments.is_empty() {
                    return;
                }
                self.write_arguments(out, &arguments, depth + 1);
            }
            NameStyle::Display => self.write_display(out, &parts, &arguments, depth),
        }
    }

    /// Type arguments as the runtime writes them: `[[Demo.Node, TestApp],[…]]`.
    pub(crate) fn write_arguments(&self, out: &mut String, arguments: &[u64], depth: u32) {
        out.push('[');
        for (i, &argument) in arguments.iter().enumerate() {
            out.push_str(if i == 0 { "[" } else { ",[" });
            self.write_handle(out, argument, NameStyle::Runtime, depth);
            let assembly = self.assembly_of(argument);
            if !assembly.is_empty() {
                out.push_str(", ");
                out.push_str(&assembly);
            }
            out.push(']');
        }
        out.push(']');
    }

    /// Gives each part of ``Outer`1+Inner`2`` its own arguments: `Outer<A>+Inner<B, C>`.
    fn write_display(&self, out: &mut String, parts: &[String], arguments: &[u64], depth: u32) {
        let mut left = arguments.iter();
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                out.push('+');
            }
            if arguments.is_empty() {
                out.push_str(part);
                continue;
            }
            let (name, count) = split_arity(part);
            out.push_str(name);
            if count == 0 {
                continue;
            }
            out.push('<');
            for (i, &argument) in left.by_ref().take(count).enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                self.write_handle(out, argument, NameStyle::Display, depth + 1);
            }
            out.push('>');
        }
    }

    /// Name of a `TypeHandle`: a method table, or (bit 1 set) a `TypeDesc`.
    fn write_handle(&self, out: &mut String, handle: u64, style: NameStyle, depth: u32) {
        if handle & 2 == 0 {
            return self.write_name(out, handle, style, depth);
        }
        if depth > MAX_DEPTH {
            return out.push('…');
        }
        let desc = handle & !2;
        let kind = self.target().u32(desc).map_or(0, |word| word & 0xff);
        let parameter = || self.type_parameter(desc).unwrap_or(0);
        let suffix = match kind {
            element::POINTER => "*",
            element::BY_REF => "&",
            element::SZ_ARRAY => "[]",
            element::ARRAY => {
                // 3.1 only: `ParamTypeDesc::m_TemplateMT` is an array type of the same shape.
                let template = self.target().u64(desc.wrapping_add(8)).unwrap_or(0);
                let rank = self.method_table(template).map_or(1, |table| table.rank());
                self.write_handle(out, parameter(), style, depth + 1);
                return write_rank(out, rank);
            }
            element::FUNCTION_POINTER => return out.push_str("<function pointer>"),
            element::VAR | element::METHOD_VAR => return out.push_str("<type parameter>"),
            _ => return out.push_str("<unknown type>"),
        };
        self.write_handle(out, parameter(), style, depth + 1);
        out.push_str(suffix);
    }

    /// Names of the type's definition, outermost type first (with its namespace): ``Demo.Outer`1``, `Inner`. The error
    /// is a text that stands for the name.
    fn definition_parts(&self, table: &MethodTable) -> Result<Vec<String>, String> {
        let unknown = |what: &str| format!("<{what}, method table {:x}>", table.address);
        let address =
            table.module(self.target(), self.layout()).map_err(|_| unknown("module not in the dump"))?;
        let module = self.module(address);
        let Some(metadata) = module.metadata() else {
            self.has_no_names(address);
            return Err(unknown("no metadata"));
        };
        let row = self.definition_row(table, address);
        let mut row = row.ok_or_else(|| unknown("type outside the table's range"))?;
        let mut parts = Vec::new();
        for _ in 0..MAX_DEPTH {
            let definition = metadata.type_def(row).ok_or_else(|| unknown("no such row in the metadata"))?;
            let outer = metadata.enclosing_type(row);
            parts.push(match (&outer, definition.namespace.is_empty()) {
                (None, false) => format!("{}.{}", definition.namespace, definition.name),
                _ => definition.name.into_owned(),
            });
            match outer {
                Some(outer) => row = outer,
                None => break,
            }
        }
        parts.reverse();
        Ok(parts)
    }

    /// Row of a type's definition. Before 9 a method table has room for 16 bits of it; the rows of larger assemblies
    /// are found by looking for the type in its module's map.
    #[must_use]
    pub fn definition_row(&self, table: &MethodTable, module: u64) -> Option<u32> {
        if self.layout().method_table.wide_token || table.row != 0xffff {
            return Some(table.row);
        }
        // A damaged map may claim more than there are, and a damaged type may look like one of these.
        let rows = self.module(module).metadata().map_or(0, |m| m.rows(Table::TypeDef).saturating_add(1));
        let count = crate::modules::type_def_count(self.target(), self.layout(), module).min(rows);
        (0xffff..count).find(|&row| {
            let entry = crate::modules::type_def_table(self.target(), self.layout(), module, row);
            entry == table.address || entry == table.canonical
        })
    }

    /// The type arguments of a generic type: the last of its dictionaries holds its own.
    #[must_use]
    pub fn type_arguments(&self, table: &MethodTable) -> Vec<u64> {
        let memory = self.target();
        let at = table.per_inst_info;
        let read = || -> Option<Vec<u64>> {
            let dictionaries = memory.u16(at.wrapping_sub(4)).ok()?;
            let arguments = memory.u16(at.wrapping_sub(2)).ok().filter(|&n| n <= MAX_ARGUMENTS)?;
            let last = u64::from(dictionaries.checked_sub(1)?);
            let dictionary = memory.u64(at.wrapping_add(8 * last)).ok()?;
            (0..u64::from(arguments)).map(|i| memory.u64(dictionary.wrapping_add(8 * i)).ok()).collect()
        };
        read().unwrap_or_default()
    }

    /// What a `ParamTypeDesc` is made of.
    pub(crate) fn type_parameter(&self, desc: u64) -> Option<u64> {
        self.target().u64(desc.wrapping_add(self.layout().method_table.type_parameter)).ok()
    }

    /// Simple name of the assembly of a type, of an array that of its elements.
    fn assembly_of(&self, handle: u64) -> String {
        let mut handle = handle;
        for _ in 0..MAX_DEPTH {
            if handle & 2 != 0 {
                match self.type_parameter(handle & !2) {
                    Some(parameter) => handle = parameter,
                    None => return String::new(),
                }
                continue;
            }
            let Ok(table) = self.method_table(handle) else { return String::new() };
            if table.is_array() {
                handle = table.per_inst_info;
                continue;
            }
            return match table.module(self.target(), self.layout()) {
                Ok(module) => self.module(module).name.clone(),
                Err(_) => String::new(),
            };
        }
        String::new()
    }
}

/// `[,]` for two dimensions; `[*]` for one that need not begin at zero.
fn write_rank(out: &mut String, rank: u32) {
    match rank {
        0 | 1 => out.push_str("[*]"),
        rank => {
            out.push('[');
            out.extend(std::iter::repeat_n(',', rank.min(32) as usize - 1));
            out.push(']');
        }
    }
}

/// Writes a part of a name as the runtime does (`TypeNameBuilder::EscapeName` in `vm/typestring.cpp`): a backslash in
/// front of what has a meaning in a type name.
fn escape_part(out: &mut String, part: &str) {
    for c in part.chars() {
        if matches!(c, ',' | '[' | ']' | '&' | '*' | '+' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
}

/// ``List`1`` → (`List`, 1).
fn split_arity(part: &str) -> (&str, usize) {
    match part.rsplit_once('`') {
        Some((name, count)) => match count.parse() {
            Ok(count) => (name, count),
            Err(_) => (part, 0),
        },
        None => (part, 0),
    }
}

impl Runtime<'_> {
    /// A type as a signature writes it, with the generic parameters replaced by `arguments` (type handles).
    #[must_use]
    pub(crate) fn signature_text(&self, metadata: &Metadata<'_>, ty: &Type, arguments: &[u64]) -> String {
        let mut out = String::new();
        self.write_signature(&mut out, metadata, ty, arguments, 0);
        out
    }

    fn write_signature(
        &self,
        out: &mut String,
        metadata: &Metadata<'_>,
        ty: &Type,
        arguments: &[u64],
        depth: u32,
    ) {
        if depth > MAX_DEPTH {
            return out.push('…');
        }
        let inner =
            |out: &mut String, ty: &Type| self.write_signature(out, metadata, ty, arguments, depth + 1);
        match ty {
            Type::Primitive(primitive) => {
                if !primitive.name().contains('.') {
                    out.push_str("System.");
                }
                out.push_str(primitive.name());
            }
            Type::Class(token) | Type::ValueType(token) => out.push_str(&metadata.type_name(*token)),
            Type::Pointer(ty) => {
                inner(out, ty);
                out.push('*');
            }
            Type::ByRef(ty) => {
                inner(out, ty);
                out.push('&');
            }
            Type::Vector(ty) => {
                inner(out, ty);
                out.push_str("[]");
            }
            Type::Array(ty, shape) => {
                inner(out, ty);
                write_rank(out, shape.rank);
            }
            Type::Instance(token, _, types) => {
                let definition = metadata.type_name(*token);
                let mut left = types.iter();
                for (i, part) in definition.split('+').enumerate() {
                    if i > 0 {
                        out.push('+');
                    }
                    let (name, count) = split_arity(part);
                    out.push_str(name);
                    if count > 0 {
                        out.push('<');
                        for (i, ty) in left.by_ref().take(count).enumerate() {
                            if i > 0 {
                                out.push_str(", ");
                            }
                            inner(out, ty);
                        }
                        out.push('>');
                    }
                }
            }
            Type::TypeParameter(number) => match arguments.get(*number as usize) {
                Some(&handle) => self.write_handle(out, handle, NameStyle::Display, depth + 1),
                None => out.push_str(&format!("!{number}")),
            },
            Type::MethodParameter(number) => out.push_str(&format!("!!{number}")),
            Type::Function(_) => out.push_str("<function pointer>"),
            Type::Pinned(ty) | Type::Modified(_, _, ty) => inner(out, ty),
            Type::Internal(handle) | Type::InternalInstance(handle, _) => {
                self.write_handle(out, *handle, NameStyle::Display, depth + 1);
            }
        }
    }
}
