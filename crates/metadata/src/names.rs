//! Full names.

use crate::metadata::Metadata;
use crate::signature::{self, Type};
use crate::tables::Table;
use crate::token::Token;

/// Types can be nested deeper in theory; a damaged table may form a circle.
const MAX_NESTING: usize = 32;

impl Metadata<'_> {
    /// `Namespace.Outer+Inner` of row `row` of TypeDef; `None` for a row that isn't there.
    #[must_use]
    pub fn type_def_name(&self, row: u32) -> Option<String> {
        let mut row = row;
        let mut parts = Vec::new();
        for _ in 0..MAX_NESTING {
            let def = self.type_def(row)?;
            parts.push((def.namespace, def.name));
            match self.enclosing_type(row) {
                Some(outer) => row = outer,
                None => break,
            }
        }
        Some(join(&parts))
    }

    /// `Namespace.Outer+Inner` of row `row` of TypeRef; `None` for a row that isn't there.
    #[must_use]
    pub fn type_ref_name(&self, row: u32) -> Option<String> {
        let mut row = row;
        let mut parts = Vec::new();
        for _ in 0..MAX_NESTING {
            let reference = self.type_ref(row)?;
            parts.push((reference.namespace, reference.name));
            match reference.scope.row_of(Table::TypeRef) {
                Some(outer) => row = outer,
                None => break,
            }
        }
        Some(join(&parts))
    }

    /// The name of a TypeDef, TypeRef or TypeSpec; a token that isn't there as `<token 02001234>`.
    #[must_use]
    pub fn type_name(&self, token: Token) -> String {
        let name = match token.table() {
            Some(Table::TypeDef) => self.type_def_name(token.row()),
            Some(Table::TypeRef) => self.type_ref_name(token.row()),
            Some(Table::TypeSpec) => self.type_spec_type(token.row()).map(|spec| self.type_text(&spec)),
            _ => None,
        };
        name.unwrap_or_else(|| format!("<token {token}>"))
    }

    fn type_spec_type(&self, row: u32) -> Option<Type> {
        signature::type_spec(self.type_spec(row)?)
    }

    /// The row of the top-level type with that namespace and name.
    #[must_use]
    pub fn find_type(&self, namespace: &str, name: &str) -> Option<u32> {
        (1..=self.rows(Table::TypeDef)).find(|&row| {
            let column = |i| self.tables.get(Table::TypeDef, row, i).map(|offset| self.string_bytes(offset));
            column(1) == Some(name.as_bytes())
                && column(2) == Some(namespace.as_bytes())
                && self.enclosing_type(row).is_none()
        })
    }

    /// The row of the field `name` of type `row`.
    #[must_use]
    pub fn find_field(&self, row: u32, name: &str) -> Option<u32> {
        self.fields_of(row).find(|&field| {
            let offset = self.tables.get(Table::Field, field, 1);
            offset.is_some_and(|offset| self.string_bytes(offset) == name.as_bytes())
        })
    }

    /// The named values of an enum: its literal fields in order.
    #[must_use]
    pub fn enum_members(&self, row: u32) -> Vec<(String, i128)> {
        self.fields_of(row)
            .filter_map(|field| {
                let name = self.field(field).filter(crate::Field::is_literal)?.name;
                let value = self.constant(Token::new(Table::Field, field))?.integer()?;
                Some((name.into_owned(), value))
            })
            .collect()
    }
}

/// From the inside out: the last part is the outermost type, whose namespace counts.
fn join<S: AsRef<str>>(parts: &[(S, S)]) -> String {
    let mut out = String::new();
    for (i, (namespace, name)) in parts.iter().rev().enumerate() {
        if i > 0 {
            out.push('+');
        } else if !namespace.as_ref().is_empty() {
            out.push_str(namespace.as_ref());
            out.push('.');
        }
        out.push_str(name.as_ref());
    }
    out
}
