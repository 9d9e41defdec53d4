//! Rows of the tables as typed values (II.22).

use std::borrow::Cow;
use std::ops::Range;

use crate::metadata::Metadata;
use crate::tables::{Coded, Table};
use crate::token::{Guid, Token};

/// A type that the module defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeDef<'a> {
    /// Its row.
    pub row: u32,
    /// `TypeAttributes` (II.23.1.15).
    pub flags: u32,
    /// Name without namespace, with the number of generic parameters (``List`1``).
    pub name: Cow<'a, str>,
    /// Namespace; empty for none, and for nested types.
    pub namespace: Cow<'a, str>,
    /// Base type (TypeDef, TypeRef or TypeSpec); nil for `System.Object` and interfaces.
    pub extends: Token,
}

/// A type of another module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRef<'a> {
    /// Where it is: AssemblyRef, ModuleRef, Module, or TypeRef for the type around it.
    pub scope: Token,
    /// Name without namespace.
    pub name: Cow<'a, str>,
    /// Namespace.
    pub namespace: Cow<'a, str>,
}

/// A field that the module defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// II.23.1.5: 0x10 static, 0x40 literal (constant).
    pub flags: u16,
    /// Name.
    pub name: Cow<'a, str>,
    /// Signature, for [`crate::signature::field`].
    pub signature: &'a [u8],
}

impl Field<'_> {
    /// Whether it belongs to the type and not to its instances.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.flags & 0x10 != 0
    }

    /// Whether it is a constant, which has no storage.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.flags & 0x40 != 0
    }
}

/// A method that the module defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method<'a> {
    /// Where its IL is; 0 for none.
    pub rva: u32,
    /// II.23.1.11.
    pub impl_flags: u16,
    /// II.23.1.10: 0x10 static, 0x400 abstract.
    pub flags: u16,
    /// Name.
    pub name: Cow<'a, str>,
    /// Signature, for [`crate::signature::method`].
    pub signature: &'a [u8],
}

impl Method<'_> {
    /// Whether it has no `this`.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.flags & 0x10 != 0
    }
}

/// A parameter's name; types are in the method's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param<'a> {
    /// II.23.1.13.
    pub flags: u16,
    /// Position from 1; 0 is the return value.
    pub sequence: u16,
    /// Name.
    pub name: Cow<'a, str>,
}

/// A member of another type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRef<'a> {
    /// Its type (TypeDef, TypeRef, TypeSpec), module or, for varargs, method.
    pub parent: Token,
    /// Name.
    pub name: Cow<'a, str>,
    /// Signature of a method or field.
    pub signature: &'a [u8],
}

/// A generic method with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodSpec<'a> {
    /// MethodDef or MemberRef.
    pub method: Token,
    /// For [`crate::signature::method_spec`].
    pub instantiation: &'a [u8],
}

/// A constant: the value of a literal field, a default value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Constant<'a> {
    /// Its type, an element type (II.23.1.16).
    pub element_type: u8,
    /// Its value, little endian; a string in UTF-16.
    pub value: &'a [u8],
}

impl Constant<'_> {
    /// The value of a boolean, character or whole number.
    #[must_use]
    pub fn integer(&self) -> Option<i128> {
        let array = |n: usize| {
            let mut bytes = [0; 8];
            bytes.get_mut(..n)?.copy_from_slice(self.value.get(..n)?);
            Some(u64::from_le_bytes(bytes))
        };
        Some(match self.element_type {
            0x02 | 0x05 => array(1)?.into(),
            0x03 | 0x07 => array(2)?.into(),
            0x09 => array(4)?.into(),
            0x0b => array(8)?.into(),
            0x04 => (array(1)? as i8).into(),
            0x06 => (array(2)? as i16).into(),
            0x08 => (array(4)? as i32).into(),
            0x0a => (array(8)? as i64).into(),
            _ => return None,
        })
    }
}

/// A generic parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenericParam<'a> {
    /// Position from 0.
    pub number: u16,
    /// II.23.1.7.
    pub flags: u16,
    /// Name.
    pub name: Cow<'a, str>,
}

/// The assembly that the module is the manifest of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssemblyRow<'a> {
    /// Simple name.
    pub name: Cow<'a, str>,
    /// Major, minor, build, revision.
    pub version: [u16; 4],
    /// Culture; empty for none.
    pub culture: Cow<'a, str>,
}

/// An assembly that the module refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssemblyRef<'a> {
    /// Simple name.
    pub name: Cow<'a, str>,
    /// Major, minor, build, revision.
    pub version: [u16; 4],
}

/// The module itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRow<'a> {
    /// File name.
    pub name: Cow<'a, str>,
    /// Module version id: another one after every compilation that changes anything.
    pub mvid: Guid,
}

impl<'a> Metadata<'a> {
    fn col(&self, table: Table, row: u32, column: usize) -> Option<u32> {
        self.tables.get(table, row, column)
    }

    fn short(&self, table: Table, row: u32, column: usize) -> Option<u16> {
        self.col(table, row, column).map(|value| value as u16)
    }

    fn str_col(&self, table: Table, row: u32, column: usize) -> Option<Cow<'a, str>> {
        Some(self.string(self.col(table, row, column)?))
    }

    /// The module's name and MVID.
    #[must_use]
    pub fn module(&self) -> Option<ModuleRow<'a>> {
        let t = Table::Module;
        Some(ModuleRow { name: self.str_col(t, 1, 1)?, mvid: self.guid(self.col(t, 1, 2)?)? })
    }

    /// The assembly; `None` in a module that is none's manifest.
    #[must_use]
    pub fn assembly(&self) -> Option<AssemblyRow<'a>> {
        let t = Table::Assembly;
        let part = |i| self.short(t, 1, i);
        Some(AssemblyRow {
            name: self.str_col(t, 1, 7)?,
            version: [part(1)?, part(2)?, part(3)?, part(4)?],
            culture: self.str_col(t, 1, 8)?,
        })
    }

    /// Row `row` of AssemblyRef.
    #[must_use]
    pub fn assembly_ref(&self, row: u32) -> Option<AssemblyRef<'a>> {
        let t = Table::AssemblyRef;
        let part = |i| self.short(t, row, i);
        Some(AssemblyRef {
            name: self.str_col(t, row, 6)?,
            version: [part(0)?, part(1)?, part(2)?, part(3)?],
        })
    }

    /// Row `row` of TypeDef.
    #[must_use]
    pub fn type_def(&self, row: u32) -> Option<TypeDef<'a>> {
        let t = Table::TypeDef;
        Some(TypeDef {
            row,
            flags: self.col(t, row, 0)?,
            name: self.str_col(t, row, 1)?,
            namespace: self.str_col(t, row, 2)?,
            extends: Coded::TypeDefOrRef.decode(self.col(t, row, 3)?),
        })
    }

    /// Row `row` of TypeRef.
    #[must_use]
    pub fn type_ref(&self, row: u32) -> Option<TypeRef<'a>> {
        let t = Table::TypeRef;
        Some(TypeRef {
            scope: Coded::ResolutionScope.decode(self.col(t, row, 0)?),
            name: self.str_col(t, row, 1)?,
            namespace: self.str_col(t, row, 2)?,
        })
    }

    /// The signature of row `row` of TypeSpec, for [`crate::signature::type_spec`].
    #[must_use]
    pub fn type_spec(&self, row: u32) -> Option<&'a [u8]> {
        Some(self.blob(self.col(Table::TypeSpec, row, 0)?))
    }

    /// Row `row` of Field.
    #[must_use]
    pub fn field(&self, row: u32) -> Option<Field<'a>> {
        let t = Table::Field;
        Some(Field {
            flags: self.short(t, row, 0)?,
            name: self.str_col(t, row, 1)?,
            signature: self.blob(self.col(t, row, 2)?),
        })
    }

    /// Row `row` of MethodDef.
    #[must_use]
    pub fn method(&self, row: u32) -> Option<Method<'a>> {
        let t = Table::MethodDef;
        Some(Method {
            rva: self.col(t, row, 0)?,
            impl_flags: self.short(t, row, 1)?,
            flags: self.short(t, row, 2)?,
            name: self.str_col(t, row, 3)?,
            signature: self.blob(self.col(t, row, 4)?),
        })
    }

    /// Row `row` of Param.
    #[must_use]
    pub fn param(&self, row: u32) -> Option<Param<'a>> {
        let t = Table::Param;
        Some(Param {
            flags: self.short(t, row, 0)?,
            sequence: self.short(t, row, 1)?,
            name: self.str_col(t, row, 2)?,
        })
    }

    /// Row `row` of MemberRef.
    #[must_use]
    pub fn member_ref(&self, row: u32) -> Option<MemberRef<'a>> {
        let t = Table::MemberRef;
        Some(MemberRef {
            parent: Coded::MemberRefParent.decode(self.col(t, row, 0)?),
            name: self.str_col(t, row, 1)?,
            signature: self.blob(self.col(t, row, 2)?),
        })
    }

    /// Row `row` of MethodSpec.
    #[must_use]
    pub fn method_spec(&self, row: u32) -> Option<MethodSpec<'a>> {
        let t = Table::MethodSpec;
        Some(MethodSpec {
            method: Coded::MethodDefOrRef.decode(self.col(t, row, 0)?),
            instantiation: self.blob(self.col(t, row, 1)?),
        })
    }

    /// The signature of row `row` of StandAloneSig, for [`crate::signature::locals`].
    #[must_use]
    pub fn stand_alone_sig(&self, row: u32) -> Option<&'a [u8]> {
        Some(self.blob(self.col(Table::StandAloneSig, row, 0)?))
    }

    /// Where the list in `column` of `row` begins and ends: the next row's list begins where it ends.
    pub(crate) fn list(
        &self,
        table: Table,
        row: u32,
        column: usize,
        target: Table,
        pointers: Table,
    ) -> Range<u32> {
        // With a pointer table the list is one of pointers.
        let target = if self.rows(pointers) > 0 { pointers } else { target };
        let last = self.rows(target).saturating_add(1);
        let Some(start) = self.col(table, row, column) else { return 0..0 };
        let end = row.checked_add(1).and_then(|next| self.col(table, next, column)).unwrap_or(last);
        start.max(1)..end.min(last).max(start.max(1))
    }

    /// Follows a pointer table (II.22.14 and the like: only in `#-`), where there is one.
    fn pointed(&self, pointers: Table, row: u32) -> u32 {
        if self.rows(pointers) > 0 { self.col(pointers, row, 0).unwrap_or(0) } else { row }
    }

    /// Rows of the fields of type `row`.
    pub fn fields_of(&self, row: u32) -> impl Iterator<Item = u32> + use<'_, 'a> {
        let list = self.list(Table::TypeDef, row, 4, Table::Field, Table::FieldPtr);
        list.map(|i| self.pointed(Table::FieldPtr, i))
    }

    /// Rows of the methods of type `row`.
    pub fn methods_of(&self, row: u32) -> impl Iterator<Item = u32> + use<'_, 'a> {
        let list = self.list(Table::TypeDef, row, 5, Table::MethodDef, Table::MethodPtr);
        list.map(|i| self.pointed(Table::MethodPtr, i))
    }

    /// The parameters of method `row` that have rows (those with names, defaults or attributes).
    pub fn params_of(&self, row: u32) -> impl Iterator<Item = Param<'a>> + use<'_, 'a> {
        let list = self.list(Table::MethodDef, row, 5, Table::Param, Table::ParamPtr);
        list.filter_map(|i| self.param(self.pointed(Table::ParamPtr, i)))
    }

    /// The type (row of TypeDef) that field `row` belongs to.
    #[must_use]
    pub fn field_owner(&self, row: u32) -> Option<u32> {
        self.owner(4, row, Table::Field, Table::FieldPtr)
    }

    /// The type (row of TypeDef) that method `row` belongs to.
    #[must_use]
    pub fn method_owner(&self, row: u32) -> Option<u32> {
        self.owner(5, row, Table::MethodDef, Table::MethodPtr)
    }

    fn owner(&self, column: usize, row: u32, table: Table, pointers: Table) -> Option<u32> {
        if row == 0 || row > self.rows(table) {
            return None;
        }
        let count = self.rows(pointers);
        let position =
            if count > 0 { (1..=count).find(|&i| self.col(pointers, i, 0) == Some(row))? } else { row };
        // The last type whose list begins at or before it: types without members begin where the next one does.
        let after = partition_point(self.rows(Table::TypeDef), |i| {
            self.col(Table::TypeDef, i, column).is_some_and(|start| start <= position)
        });
        after.checked_sub(1).filter(|&owner| owner != 0)
    }

    /// The rows of `table` whose `key` column is `value`; by binary search where the table is sorted.
    pub(crate) fn rows_with(
        &self,
        table: Table,
        key: usize,
        value: u32,
    ) -> impl Iterator<Item = u32> + use<'_, 'a> {
        let count = self.rows(table);
        let (first, last) = if self.tables.is_sorted(table) {
            let first = partition_point(count, |i| self.col(table, i, key).is_some_and(|v| v < value));
            let last = partition_point(count, |i| self.col(table, i, key).is_some_and(|v| v <= value));
            (first, last)
        } else {
            (1, count + 1)
        };
        (first..last).filter(move |&i| self.col(table, i, key) == Some(value))
    }

    /// The type (row of TypeDef) that type `row` is nested in.
    #[must_use]
    pub fn enclosing_type(&self, row: u32) -> Option<u32> {
        let found = self.rows_with(Table::NestedClass, 0, row).next()?;
        self.col(Table::NestedClass, found, 1)
    }

    /// The constant of a Field, Param or Property.
    #[must_use]
    pub fn constant(&self, parent: Token) -> Option<Constant<'a>> {
        let row = self.rows_with(Table::Constant, 1, Coded::HasConstant.encode(parent)?).next()?;
        Some(Constant {
            element_type: self.col(Table::Constant, row, 0)? as u8,
            value: self.blob(self.col(Table::Constant, row, 2)?),
        })
    }

    /// The generic parameters of a TypeDef or MethodDef.
    pub fn generic_params(&self, owner: Token) -> impl Iterator<Item = GenericParam<'a>> + use<'_, 'a> {
        let t = Table::GenericParam;
        let key = Coded::TypeOrMethodDef.encode(owner);
        let rows = key.map(|key| self.rows_with(t, 2, key)).into_iter().flatten();
        rows.filter_map(move |row| {
            Some(GenericParam {
                number: self.short(t, row, 0)?,
                flags: self.short(t, row, 1)?,
                name: self.str_col(t, row, 3)?,
            })
        })
    }

    /// The interfaces that type `row` itself names.
    pub fn interfaces_of(&self, row: u32) -> impl Iterator<Item = Token> + use<'_, 'a> {
        let t = Table::InterfaceImpl;
        self.rows_with(t, 0, row).filter_map(move |i| Some(Coded::TypeDefOrRef.decode(self.col(t, i, 1)?)))
    }

    /// Where the initial bytes of a static field are (an RVA), for fields with data in the image.
    #[must_use]
    pub fn field_rva(&self, row: u32) -> Option<u32> {
        let found = self.rows_with(Table::FieldRva, 1, row).next()?;
        self.col(Table::FieldRva, found, 0)
    }
}

/// The first of the rows `1..=count` for which `before` no longer holds; `count + 1` when it holds for all.
fn partition_point(count: u32, before: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (1, count.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
