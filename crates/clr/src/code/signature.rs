//! Parameters of methods as the runtime writes them.
//!
//! Source: `SigFormat` in `vm/sigformat.cpp`: nested types without the outer one, type arguments in angle brackets, generic
//! parameters replaced by their arguments.

use dnd_metadata::signature::{self, Type};
use dnd_metadata::{Metadata, Table, Token};

use crate::runtime::Runtime;

/// Types inside types inside types; deeper nesting is cut with an ellipsis.
const MAX_DEPTH: u32 = 24;
/// A damaged signature can name long lists again and again.
const MAX_TEXT: usize = 1 << 14;

/// What a signature's tokens and parameters stand for.
pub(super) struct Context<'a> {
    /// Metadata of the module that the signature is in.
    pub(super) metadata: Option<&'a Metadata<'a>>,
    /// Type handles for the parameters of the type.
    pub(super) type_arguments: &'a [u64],
    /// Type handles for the parameters of the method.
    pub(super) method_arguments: &'a [u64],
}

impl Runtime<'_> {
    /// Writes `(A, B)`, or `(…)` when the signature can't be read.
    pub(super) fn write_parameters(&self, out: &mut String, context: &Context<'_>, blob: &[u8]) {
        let Some(signature) = signature::method(blob) else {
            return out.push_str("(…)");
        };
        out.push('(');
        for (i, parameter) in signature.parameters.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            self.write_parameter(out, context, parameter, 0);
        }
        out.push(')');
    }

    /// One type, as in a list of parameters.
    pub(super) fn parameter_text(&self, context: &Context<'_>, ty: &Type) -> String {
        let mut out = String::new();
        self.write_parameter(&mut out, context, ty, 0);
        out
    }

    fn write_parameter(&self, out: &mut String, context: &Context<'_>, ty: &Type, depth: u32) {
        if depth > MAX_DEPTH || out.len() > MAX_TEXT {
            return out.push('…');
        }
        let inner = |out: &mut String, ty: &Type| self.write_parameter(out, context, ty, depth + 1);
        let list = |out: &mut String, types: &[Type], between: &str| {
            for (i, ty) in types.iter().enumerate() {
                if i > 0 {
                    out.push_str(between);
                }
                inner(out, ty);
            }
        };
        match ty {
            Type::Primitive(primitive) => out.push_str(primitive.name()),
            Type::Class(token) | Type::ValueType(token) => write_token(out, context.metadata, *token),
            Type::Pointer(ty) => {
                inner(out, ty);
                out.push('*');
            }
            Type::ByRef(ty) => {
                inner(out, ty);
                out.push_str(" ByRef");
            }
            Type::Vector(ty) => {
                inner(out, ty);
                out.push_str("[]");
            }
            Type::Array(ty, shape) => {
                inner(out, ty);
                push_rank(out, shape.rank);
            }
            Type::Instance(token, _, arguments) => {
                write_token(out, context.metadata, *token);
                out.push('<');
                list(out, arguments, ",");
                out.push('>');
            }
            Type::InternalInstance(handle, arguments) => {
                out.push_str(short_name(&self.short_definition(*handle)));
                out.push('<');
                list(out, arguments, ",");
                out.push('>');
            }
            Type::TypeParameter(number) => match context.type_arguments.get(*number as usize) {
                Some(&handle) => self.write_short_handle(out, handle, depth + 1),
                None => out.push_str(&format!("!{number}")),
            },
            Type::MethodParameter(number) => match context.method_arguments.get(*number as usize) {
                Some(&handle) => self.write_short_handle(out, handle, depth + 1),
                None => out.push_str(&format!("!!{number}")),
            },
            Type::Function(signature) => {
                inner(out, &signature.returns);
                out.push_str(" (");
                list(out, &signature.parameters, ", ");
                out.push(')');
            }
            Type::Pinned(ty) | Type::Modified(_, _, ty) => inner(out, ty),
            // 3.1 writes these without their arguments.
            Type::Internal(handle) if self.major() < 5 => out.push_str(&self.short_definition(*handle)),
            Type::Internal(handle) => self.write_short_handle(out, *handle, depth + 1),
        }
    }

    /// Namespace and name of a type's definition.
    fn short_definition(&self, handle: u64) -> String {
        let name = || {
            let table = self.method_table(handle).ok()?;
            let address = table.module(self.target(), self.layout()).ok()?;
            let row = self.definition_row(&table, address)?;
            let module = self.module(address);
            let definition = module.metadata()?.type_def(row)?;
            Some(qualified(&definition.namespace, &definition.name))
        };
        name().unwrap_or_else(|| format!("<method table {handle:x}>"))
    }

    /// A loaded type in the style of signatures.
    fn write_short_handle(&self, out: &mut String, handle: u64, depth: u32) {
        if depth > MAX_DEPTH || out.len() > MAX_TEXT {
            return out.push('…');
        }
        if handle & 2 != 0 {
            // `ParamTypeDesc`: the kind in the low byte.
            let described = handle & !2;
            let suffix = match self.target().u8(described) {
                Ok(0x0f) => "*",
                Ok(0x10) => " ByRef",
                Ok(0x14 | 0x1d) => "[]",
                _ => return out.push_str("<unknown type>"),
            };
            self.write_short_handle(out, self.type_parameter(described).unwrap_or(0), depth + 1);
            return out.push_str(suffix);
        }
        let Ok(table) = self.method_table(handle) else {
            return out.push_str(&format!("<unreadable method table {handle:x}>"));
        };
        if table.is_array() {
            self.write_short_handle(out, table.per_inst_info, depth + 1);
            return if table.is_vector() { out.push_str("[]") } else { push_rank(out, table.rank()) };
        }
        out.push_str(short_name(&self.short_definition(handle)));
        if table.is_generic() {
            out.push('<');
            for (i, &argument) in self.type_arguments(&table).iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                self.write_short_handle(out, argument, depth + 1);
            }
            out.push('>');
        }
    }
}

fn push_rank(out: &mut String, rank: u32) {
    out.push('[');
    // 32 is the most that the runtime allows.
    out.extend(std::iter::repeat_n(',', rank.clamp(1, 32) as usize - 1));
    out.push(']');
}

fn write_token(out: &mut String, metadata: Option<&Metadata<'_>>, token: Token) {
    let names = metadata.and_then(|metadata| match token.row_of(Table::TypeDef) {
        Some(row) => metadata.type_def(row).map(|row| (row.namespace, row.name)),
        None => metadata.type_ref(token.row_of(Table::TypeRef)?).map(|row| (row.namespace, row.name)),
    });
    match names {
        Some((namespace, name)) => out.push_str(&qualified(&namespace, &name)),
        None => out.push_str(&format!("<type {:x}>", token.0)),
    }
}

fn qualified(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// Types with a code of their own are written without namespace, but for these two (`SigFormat::AddType`).
fn short_name(name: &str) -> &str {
    const PRIMITIVES: [&str; 17] = [
        "Void",
        "Boolean",
        "Char",
        "SByte",
        "Byte",
        "Int16",
        "UInt16",
        "Int32",
        "UInt32",
        "Int64",
        "UInt64",
        "Single",
        "Double",
        "IntPtr",
        "UIntPtr",
        "TypedReference",
        "TypedByRef",
    ];
    match name.strip_prefix("System.") {
        Some(short) if PRIMITIVES.contains(&short) => short,
        _ => name,
    }
}
