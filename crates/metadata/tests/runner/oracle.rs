//! Every row of real assemblies against System.Reflection.Metadata (tests/apps/Metadata.cs).

use std::fmt::Write;
use std::path::{Path, PathBuf};

use dnd_metadata::{Layout, Metadata, Pe, Table, Token, debug_kind, signature};
use dnd_testkit::{bench, runtimes};
use xtask::runtimes::Runtime;

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

fn version(parts: [u16; 4]) -> String {
    parts.map(|part| part.to_string()).join(".")
}

fn method_text(md: &Metadata<'_>, blob: &[u8]) -> Option<String> {
    let method = signature::method(blob)?;
    Some(md.type_text(&method.returns) + &md.parameters_text(&method))
}

/// The same lines as tests/apps/Metadata.cs writes.
fn ours(file: &[u8]) -> String {
    let pe = Pe::parse(file, Layout::File).unwrap();
    let md = super::metadata_of(file).unwrap();
    let mut out = String::new();
    let module = md.module().unwrap();
    writeln!(out, "module\t{}\t{}", module.name, module.mvid).unwrap();
    if let Some(assembly) = md.assembly() {
        writeln!(out, "assembly\t{}\t{}", assembly.name, version(assembly.version)).unwrap();
    }
    for row in 1..=md.rows(Table::AssemblyRef) {
        let reference = md.assembly_ref(row).unwrap();
        writeln!(out, "reference\t{}\t{}", reference.name, version(reference.version)).unwrap();
    }
    if let Some(pdb) = pe.code_view(file).unwrap() {
        writeln!(out, "pdb\t{}\t{}\t{}", pdb.guid, pdb.age, pdb.path).unwrap();
    }
    types(&md, &mut out);
    members(&md, &mut out);
    references(&md, &mut out);
    out
}

fn types(md: &Metadata<'_>, out: &mut String) {
    for row in 1..=md.rows(Table::TypeDef) {
        let def = md.type_def(row).unwrap();
        let base = if def.extends.is_nil() { String::new() } else { md.type_name(def.extends) };
        let (fields, methods) = (list(md.fields_of(row)), list(md.methods_of(row)));
        let interfaces = list(md.interfaces_of(row));
        let generics = list(md.generic_params(Token::new(Table::TypeDef, row)).map(|param| param.name));
        let name = md.type_def_name(row).unwrap();
        writeln!(
            out,
            "type\t{row}\t{name}\t{base}\t{:x}\t{fields}\t{methods}\t{interfaces}\t{generics}",
            def.flags
        )
        .unwrap();
    }
    for row in 1..=md.rows(Table::TypeRef) {
        writeln!(out, "typeref\t{}", md.type_ref_name(row).unwrap()).unwrap();
    }
    for row in 1..=md.rows(Table::TypeSpec) {
        writeln!(out, "typespec\t{}", md.type_name(Token::new(Table::TypeSpec, row))).unwrap();
    }
}

fn members(md: &Metadata<'_>, out: &mut String) {
    for row in 1..=md.rows(Table::Field) {
        let field = md.field(row).unwrap();
        let owner = md.field_owner(row).unwrap();
        let ty = md.type_text(&signature::field(field.signature).unwrap());
        let constant = md.constant(Token::new(Table::Field, row)).map_or(String::new(), |constant| {
            let bytes: String = constant.value.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:x}:{bytes}", constant.element_type)
        });
        let rva = md.field_rva(row).unwrap_or(0);
        writeln!(out, "field\t{owner}\t{}\t{ty}\t{:x}\t{constant}\t{rva}", field.name, field.flags).unwrap();
    }
    for row in 1..=md.rows(Table::MethodDef) {
        let method = md.method(row).unwrap();
        let owner = md.method_owner(row).unwrap();
        let text = method_text(md, method.signature).unwrap();
        let signature = signature::method(method.signature).unwrap();
        let instance = if signature.has_this { "True" } else { "False" };
        let params = list(md.params_of(row).map(|param| format!("{}{}", param.sequence, param.name)));
        let generics = list(md.generic_params(Token::new(Table::MethodDef, row)).map(|param| param.name));
        let (name, flags, rva, count) = (method.name, method.flags, method.rva, signature.generic_parameters);
        writeln!(
            out,
            "method\t{owner}\t{name}\t{text}\t{flags:x}\t{rva}\t{count},{instance}\t{params}\t{generics}"
        )
        .unwrap();
    }
}

fn references(md: &Metadata<'_>, out: &mut String) {
    for row in 1..=md.rows(Table::MemberRef) {
        let member = md.member_ref(row).unwrap();
        let text = match signature::field(member.signature) {
            Some(ty) => md.type_text(&ty),
            None => method_text(md, member.signature).unwrap(),
        };
        writeln!(out, "member\t{}\t{}\t{text}", member.parent, member.name).unwrap();
    }
    for row in 1..=md.rows(Table::MethodSpec) {
        let spec = md.method_spec(row).unwrap();
        let arguments = signature::method_spec(spec.instantiation).unwrap();
        writeln!(out, "methodspec\t{}\t{}", spec.method, list(arguments.iter().map(|ty| md.type_text(ty))))
            .unwrap();
    }
    for row in 1..=md.rows(Table::StandAloneSig) {
        let blob = md.stand_alone_sig(row).unwrap();
        if let Some(locals) = signature::locals(blob) {
            let locals: Vec<_> = locals.iter().map(|ty| md.type_text(ty)).collect();
            writeln!(out, "locals\t{row}\t{}", locals.join(", ")).unwrap();
        } else {
            writeln!(out, "call\t{row}\t{}", method_text(md, blob).unwrap()).unwrap();
        }
    }
}

/// What the oracle says of the file: its lines, those with user strings apart.
fn theirs(by: &Runtime, app: &Path, file: &Path) -> (String, Vec<(u32, String)>) {
    let out = by.dotnet().arg(app).arg(file).output().unwrap();
    assert!(out.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let strings = text.split_terminator('\n').filter_map(|line| {
        let (offset, text) = line.strip_prefix("string\t")?.split_once('\t')?;
        Some((offset.parse().unwrap(), text.to_owned()))
    });
    let rows = text.split_inclusive('\n').filter(|line| !line.starts_with("string\t"));
    (rows.collect(), strings.collect())
}

#[track_caller]
fn compare(by: &Runtime, app: &Path, file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    let (expected, strings) = theirs(by, app, file);
    let ours = ours(&bytes);
    let mut lines = ours.lines();
    for expected in expected.split_terminator('\n') {
        assert_eq!(lines.next(), Some(expected), "{}", file.display());
    }
    assert_eq!(lines.next(), None, "{}", file.display());
    let md = super::metadata_of(&bytes).unwrap();
    for (offset, text) in strings {
        assert_eq!(md.user_string(offset), Some(text), "{} at {offset:#x}", file.display());
    }
}

#[test]
fn assemblies_of_every_runtime() {
    let Some(newest) = runtimes().pop() else { return };
    let app = xtask::apps::ensure(bench(), "Metadata").unwrap();
    for runtime in runtimes() {
        for name in
            ["System.Private.CoreLib", "System.Linq.Expressions", "System.Runtime", "System.Collections"]
        {
            let file = runtime.framework().join(format!("{name}.dll"));
            // Slimmed runtimes lack some.
            if file.is_file() {
                compare(&newest, &app, &file);
            }
        }
    }
    compare(&newest, &app, &app);
}

/// Whatever lies beside the ones above: all of one runtime can at least be read to the last row.
#[test]
fn all_assemblies_of_the_newest_runtime() {
    let Some(runtime) = runtimes().pop() else { return };
    let mut read = 0;
    let files: Vec<PathBuf> =
        std::fs::read_dir(runtime.framework()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "dll")) {
        let bytes = std::fs::read(path).unwrap();
        if super::metadata_of(&bytes).is_some() {
            assert!(ours(&bytes).starts_with("module\t"));
            read += 1;
        }
    }
    assert!(read > 50, "only {read} assemblies in {}", runtime.framework().display());
}

/// A portable PDB is read by the same code, with the row counts of its assembly.
#[test]
fn the_pdb_of_an_assembly() {
    if runtimes().is_empty() {
        return;
    }
    let dll = xtask::apps::ensure(bench(), "Metadata").unwrap();
    let file = std::fs::read(&dll).unwrap();
    let pe = Pe::parse(&file[..], Layout::File).unwrap();
    let md = super::metadata_of(&file).unwrap();
    let bytes = std::fs::read(dll.with_extension("pdb")).unwrap();
    let pdb = Metadata::parse(&bytes).unwrap();

    let id = pdb.pdb_id().unwrap();
    let entries = pe.debug_entries(&file[..]).unwrap();
    let entry = entries.iter().find(|entry| entry.kind == debug_kind::CODE_VIEW).unwrap();
    assert_eq!(id[..16], pe.code_view(&file[..]).unwrap().unwrap().guid.0);
    assert_eq!(id[16..], entry.time_date_stamp.to_le_bytes());
    assert_eq!(pdb.version(), "PDB v1.0");
    assert_eq!(md.pdb_id(), None);
    // One row for each method, whether it has lines or not; one source file.
    assert_eq!(pdb.rows(Table::MethodDebugInformation), md.rows(Table::MethodDef));
    assert_eq!((pdb.rows(Table::Document), pdb.rows(Table::TypeDef)), (1, 0));
    assert!(pdb.rows(Table::LocalScope) > 0 && pdb.module().is_none());
}
