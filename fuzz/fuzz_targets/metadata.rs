//! A PE image in both layouts, and bytes taken for metadata.
#![no_main]

use dnd_metadata::{Layout, Metadata, Pe, Table, Token, signature};
use libfuzzer_sys::fuzz_target;

fn ask(md: &Metadata<'_>) {
    let rows = |table| 0..=md.rows(table).min(200) + 1;
    let _ = (md.module(), md.assembly(), md.version(), md.find_type("System", "Object"), md.user_string(1));
    for row in rows(Table::TypeDef) {
        let token = Token::new(Table::TypeDef, row);
        let _ =
            (md.type_def(row), md.type_name(token), md.enclosing_type(row), md.generic_params(token).count());
        let _ = (md.fields_of(row).take(200).count(), md.methods_of(row).take(200).count());
        if row < 50 {
            let _ = (md.enum_members(row).len(), md.interfaces_of(row).count());
        }
    }
    for table in [Table::TypeRef, Table::TypeSpec] {
        for row in rows(table) {
            let _ = md.type_name(Token::new(table, row));
        }
    }
    for row in rows(Table::MethodDef) {
        let _ = (md.method_owner(row), md.params_of(row).take(200).count());
        if let Some(method) = md.method(row).and_then(|method| signature::method(method.signature)) {
            let _ = md.parameters_text(&method);
        }
    }
    for row in rows(Table::Field) {
        let _ = (md.field_owner(row), md.constant(Token::new(Table::Field, row)), md.field_rva(row));
    }
    for row in rows(Table::MemberRef) {
        let _ = (md.member_ref(row), md.method_spec(row), md.stand_alone_sig(row), md.assembly_ref(row));
    }
}

fuzz_target!(|data: &[u8]| {
    for layout in [Layout::File, Layout::Mapped] {
        let Ok(pe) = Pe::parse(data, layout) else { continue };
        let _ = (pe.code_view(data), pe.debug_entries(data));
        let Ok((offset, len)) = pe.metadata_range(data) else { continue };
        let bytes = usize::try_from(offset).ok().and_then(|at| data.get(at..)?.get(..len as usize));
        if let Some(md) = bytes.and_then(|bytes| Metadata::parse(bytes).ok()) {
            ask(&md);
        }
    }
    if let Ok(md) = Metadata::parse(data) {
        ask(&md);
    }
});
