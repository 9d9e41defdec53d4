//! Method tables of the types that fields are declared with.
//!
//! A field's signature names a type by a token of its module. The runtime keeps maps from these tokens to what it has
//! loaded; constructed types (arrays, instances of generic types) are in tables of their own ([`crate::constructed`]).

use dnd_metadata::signature;
use dnd_metadata::{Table, Token};

use crate::constructed::Scope;
use crate::fields::Field;
use crate::modules;
use crate::runtime::Runtime;
use crate::types::MethodTable;

impl Runtime<'_> {
    /// The method table of a field's declared type; `None` when it isn't loaded. `declared` is the type that declares the
    /// field.
    #[must_use]
    pub fn field_type(&self, declared: &MethodTable, field: &Field) -> Option<u64> {
        let address = declared.module(self.target(), self.layout()).ok()?;
        let module = self.module(address);
        let metadata = module.metadata()?;
        let definition = metadata.field(field.row)?;
        let ty = signature::field(definition.signature)?;
        let type_arguments = self.type_arguments_of(declared);
        let scope = Scope { module: address, type_arguments: &type_arguments, method_arguments: &[] };
        self.signature_table(&scope, &ty)
    }

    fn type_arguments_of(&self, table: &MethodTable) -> Vec<u64> {
        if table.is_generic() { self.type_arguments(table) } else { Vec::new() }
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
    pub(crate) fn core_type(&self, name: &str) -> Option<u64> {
        let string = self.method_table(self.string_table().ok()?).ok()?;
        let core = string.module(self.target(), self.layout()).ok()?;
        let name = name.strip_prefix("System.").unwrap_or(name);
        let row = self.module(core).metadata()?.find_type("System", name)?;
        self.type_def_table(core, row)
    }
}
