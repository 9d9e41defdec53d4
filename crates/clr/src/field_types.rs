//! Method tables of the types that fields are declared with.
//!
//! A field's signature names a type by a token of its module. The runtime keeps maps from these tokens to what it has
//! loaded; constructed types (arrays, instances of generic types) are not in them and stay unknown here.

use dnd_metadata::signature::{self, Type};
use dnd_metadata::{Table, Token};

use crate::fields::Field;
use crate::modules;
use crate::runtime::Runtime;
use crate::types::MethodTable;

impl Runtime<'_> {
    /// The method table of a field's declared type; `None` when it isn't loaded or is a constructed type that the
    /// module's maps don't hold. `declared` is the type that declares the field.
    #[must_use]
    pub fn field_type(&self, declared: &MethodTable, field: &Field) -> Option<u64> {
        let address = declared.module(self.target(), self.layout()).ok()?;
        let module = self.module(address);
        let metadata = module.metadata()?;
        let definition = metadata.field(field.row)?;
        let mut ty = signature::field(definition.signature)?;
        while let Type::Modified(_, _, inner) | Type::Pinned(inner) = ty {
            ty = *inner;
        }
        match ty {
            Type::Primitive(primitive) => self.core_type(primitive.name()),
            Type::Class(token) | Type::ValueType(token) => self.token_type(address, token),
            Type::TypeParameter(number) => {
                let arguments = self.type_arguments(declared);
                // A handle with bit 1 set is no method table.
                arguments.get(number as usize).copied().filter(|handle| handle & 2 == 0)
            }
            _ => None,
        }
    }

    /// The loaded type that a TypeDef or TypeRef token of a module names.
    pub(crate) fn token_type(&self, module: u64, token: Token) -> Option<u64> {
        if let Some(row) = token.row_of(Table::TypeDef) {
            return self.type_def_table(module, row);
        }
        let row = token.row_of(Table::TypeRef)?;
        Some(modules::type_ref_table(self.target(), self.layout(), module, row))
            .filter(|&table| table != 0 && table & 2 == 0)
    }

    /// A type of the core library by the name that signatures have for it.
    fn core_type(&self, name: &str) -> Option<u64> {
        let string = self.method_table(self.string_table().ok()?).ok()?;
        let core = string.module(self.target(), self.layout()).ok()?;
        let name = name.strip_prefix("System.").unwrap_or(name);
        let row = self.module(core).metadata()?.find_type("System", name)?;
        self.type_def_table(core, row)
    }
}
