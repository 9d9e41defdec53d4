//! [`Runtime`]: types and the modules that define them.

use std::sync::{Arc, Mutex};

use dnd_metadata::Table;

use super::{MAX_TYPES, Pdbs, Runtime};
use crate::error::Error;
use crate::modules::{self, Module};
use crate::types::MethodTable;

impl<'t> Runtime<'t> {
    /// The method table at an address.
    ///
    /// # Errors
    /// [`Error::Missing`], or [`Error::Damaged`] when what is there can't be one.
    pub fn method_table(&self, address: u64) -> Result<MethodTable, Error> {
        if address == self.free.address {
            return Ok(self.free);
        }
        if let Ok(tables) = self.tables.lock()
            && let Some(table) = tables.get(&address)
        {
            return Ok(*table);
        }
        let table = MethodTable::read(self.target, &self.layout, address)?;
        if !table.plausible(self.target, &self.layout) {
            return Err(Error::Damaged { what: "the method table", addr: address });
        }
        if let Ok(mut tables) = self.tables.lock() {
            tables.insert(address, table);
        }
        Ok(table)
    }

    /// The module at an address. What can't be read of it is left out, with the reason.
    #[must_use]
    pub fn module(&self, address: u64) -> Arc<Module<'t>> {
        if let Ok(modules) = self.modules.lock()
            && let Some(module) = modules.get(&address)
        {
            return Arc::clone(module);
        }
        let module = Arc::new(modules::read(self.target, &self.layout, address));
        if let Ok(mut modules) = self.modules.lock() {
            modules.insert(address, Arc::clone(&module));
        }
        module
    }

    /// PDBs that were looked for.
    pub(crate) fn pdbs(&self) -> &Mutex<Pdbs> {
        &self.pdbs
    }

    /// The modules of all assemblies, in the order in which they were loaded.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn modules(&self) -> Result<Vec<Arc<Module<'t>>>, Error> {
        let addresses = modules::all(self.target, &self.layout, &self.globals)?;
        Ok(addresses.into_iter().map(|address| self.module(address)).collect())
    }

    /// The method table of a type definition, when the type is loaded.
    #[must_use]
    pub fn type_def_table(&self, module: u64, row: u32) -> Option<u64> {
        Some(modules::type_def_table(self.target, &self.layout, module, row)).filter(|&table| table != 0)
    }

    /// The method description of a method definition; `None` while the runtime has made none. Of a generic type it is that
    /// of the open form.
    #[must_use]
    pub fn method_def(&self, module: u64, row: u32) -> Option<u64> {
        Some(modules::method_def(self.target, &self.layout, module, row)).filter(|&method| method != 0)
    }

    /// The `Assembly*` of a module.
    #[must_use]
    pub fn module_assembly(&self, module: u64) -> Option<u64> {
        let at = module.wrapping_add(self.layout.module.assembly);
        self.target.u64(at).ok().filter(|&assembly| assembly != 0)
    }

    /// The method tables of all loaded type definitions of a module, generic ones in their open form.
    pub fn type_def_tables(&self, module: u64) -> impl Iterator<Item = u64> + '_ {
        let rows =
            self.module(module).metadata().map_or(MAX_TYPES, |m| m.rows(Table::TypeDef).saturating_add(1));
        let count = modules::type_def_count(self.target, &self.layout, module).min(rows);
        (1..count).filter_map(move |row| self.type_def_table(module, row))
    }
}
