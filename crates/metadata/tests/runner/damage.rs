//! Assemblies with changed bytes: an error or an answer, never a panic, in bounded time.

use dnd_metadata::{Layout, Metadata, Pe, Table, Token, signature};
use proptest::prelude::*;

/// A real assembly of a few kilobytes: this test's own oracle.
fn small() -> Option<Vec<u8>> {
    let bench = dnd_testkit::bench();
    if dnd_testkit::runtimes().is_empty() {
        return None;
    }
    Some(std::fs::read(xtask::apps::ensure(bench, "Metadata").unwrap()).unwrap())
}

/// Asks for everything there is, and a little more.
fn ask(md: &Metadata<'_>) -> usize {
    let mut work = 0;
    let rows = |table| 0..=md.rows(table).min(5000) + 1;
    let _ = (md.module(), md.assembly(), md.version(), md.pdb_id());
    for row in rows(Table::TypeDef) {
        work += md.type_def_name(row).map_or(0, |name| name.len());
        work += md.fields_of(row).take(5000).count() + md.methods_of(row).take(5000).count();
        work += md.interfaces_of(row).count() + md.generic_params(Token::new(Table::TypeDef, row)).count();
        work += md.enum_members(row).len();
        let _ = md.enclosing_type(row);
    }
    for row in rows(Table::TypeRef) {
        work += md.type_ref_name(row).map_or(0, |name| name.len());
    }
    for row in rows(Table::TypeSpec) {
        work += md.type_name(Token::new(Table::TypeSpec, row)).len();
    }
    for row in rows(Table::Field) {
        let _ = (md.field_owner(row), md.field_rva(row), md.constant(Token::new(Table::Field, row)));
        if let Some(ty) = md.field(row).and_then(|field| signature::field(field.signature)) {
            work += md.type_text(&ty).len();
        }
    }
    for row in rows(Table::MethodDef) {
        let _ = md.method_owner(row);
        work += md.params_of(row).take(5000).count();
        if let Some(method) = md.method(row).and_then(|method| signature::method(method.signature)) {
            work += md.parameters_text(&method).len();
        }
    }
    for row in rows(Table::MemberRef) {
        work += md.member_ref(row).map_or(0, |member| md.type_name(member.parent).len());
    }
    for row in rows(Table::MethodSpec) {
        work += md
            .method_spec(row)
            .and_then(|spec| signature::method_spec(spec.instantiation))
            .map_or(0, |t| t.len());
    }
    for row in rows(Table::StandAloneSig) {
        work += md.stand_alone_sig(row).and_then(signature::locals).map_or(0, |locals| locals.len());
    }
    for row in rows(Table::AssemblyRef) {
        let _ = md.assembly_ref(row);
    }
    let _ = (md.find_type("System", "Object"), md.find_field(1, "x"), md.user_string(1), md.guid(u32::MAX));
    work
}

fn ask_file(file: &[u8]) -> usize {
    let mut work = 0;
    for layout in [Layout::File, Layout::Mapped] {
        let Ok(pe) = Pe::parse(file, layout) else { continue };
        let _ = (pe.code_view(file), pe.debug_entries(file), pe.cli_header(file));
        let Ok((offset, len)) = pe.metadata_range(file) else { continue };
        let bytes = usize::try_from(offset).ok().and_then(|at| file.get(at..)?.get(..len as usize));
        if let Some(md) = bytes.and_then(|bytes| Metadata::parse(bytes).ok()) {
            work += ask(&md);
        }
    }
    work
}

/// Where the metadata of the small assembly is, and where its tables begin and end.
fn metadata_at(file: &[u8]) -> (usize, usize) {
    let pe = Pe::parse(file, Layout::File).unwrap();
    let (offset, len) = pe.metadata_range(file).unwrap();
    (offset as usize, len as usize)
}

#[test]
fn changed_bytes() {
    let Some(good) = small() else { return };
    let (start, len) = metadata_at(&good);
    let work = ask_file(&good);
    assert!(work > 1000);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4000));
    // Half of the changes in the headers and the first kilobyte of the metadata, where they hurt most.
    let place = prop_oneof![0usize..0x400, start..start + 0x400, start..start + len];
    let value = prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    let changes = prop::collection::vec((place, value), 1..9);
    let cut = prop_oneof![3 => Just(usize::MAX), 1 => 0..good.len()];
    runner
        .run(&(changes, cut), |(changes, cut)| {
            let mut bytes = good.clone();
            for (at, value) in changes {
                bytes[at] = value;
            }
            bytes.truncate(cut);
            // Names and lists can grow by what a change makes them share, but not without bound.
            prop_assert!(ask_file(&bytes) < 2000 * work);
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_truncation() {
    let Some(good) = small() else { return };
    let (start, len) = metadata_at(&good);
    let bytes = &good[start..start + len];
    // All of the root and the table stream's header, then in steps.
    for cut in (0..0x200).chain((0x200..len).step_by(37)) {
        assert!(Metadata::parse(&bytes[..cut]).is_err(), "metadata cut at {cut} of {len} was read");
    }
    assert!(Metadata::parse(bytes).is_ok());
    for cut in 0..0x400 {
        let _ = ask_file(&good[..cut]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_bytes_as_signature(blob in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = (signature::field(&blob), signature::method(&blob), signature::type_spec(&blob));
        let _ = (signature::locals(&blob), signature::method_spec(&blob));
    }

    /// Only bytes that mean something, so that it goes deep.
    #[test]
    fn plausible_bytes_as_signature(
        blob in prop::collection::vec(prop::sample::select(vec![
            0u8, 1, 2, 0x06, 0x07, 0x08, 0x0a, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x1b, 0x1d, 0x1e, 0x1f, 0x20,
            0x21, 0x41, 0x45, 0x80, 0xc0,
        ]), 0..400)
    ) {
        let _ = (signature::field(&blob), signature::method(&blob), signature::type_spec(&blob));
        let _ = (signature::locals(&blob), signature::method_spec(&blob));
    }
}

#[test]
fn endless_nesting_ends() {
    // Pointers to pointers, arrays of arrays, functions of functions.
    for code in [0x0f, 0x10, 0x1d, 0x45] {
        assert_eq!(signature::type_spec(&[code; 10_000]), None);
        let mut fine = vec![code; 40];
        fine.push(0x08);
        assert!(signature::type_spec(&fine).is_some());
    }
    assert_eq!(signature::type_spec(&[0x1b, 0, 1].repeat(5000)), None);
    assert_eq!(signature::type_spec(&[0x15, 0x12, 4, 1].repeat(5000)), None);
}
