//! Portable PDBs of the debuggees against System.Reflection.Metadata (tests/apps/Metadata.cs), and damaged ones.

use std::path::Path;

use dnd_metadata::{Layout, Pdb, Pe, debug_kind, embedded_pdb};
use dnd_testkit::{bench, runtimes};
use proptest::prelude::*;
use xtask::runtimes::Runtime;

/// What the oracle says of the PDB of an assembly: lines of fields.
fn theirs(by: &Runtime, dll: &Path) -> Vec<Vec<String>> {
    let app = xtask::apps::ensure(bench(), "Metadata").unwrap();
    let out = by.dotnet().arg(app).arg("pdb").arg(dll).output().unwrap();
    assert!(out.status.success(), "{}: {}", dll.display(), String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// The PDB inside the assembly, or beside it.
fn pdb_of(dll: &Path) -> Vec<u8> {
    let file = std::fs::read(dll).unwrap();
    let pe = Pe::parse(&file[..], Layout::File).unwrap();
    let entries = pe.debug_entries(&file[..]).unwrap();
    match entries.iter().find(|entry| entry.kind == debug_kind::EMBEDDED_PORTABLE_PDB) {
        Some(entry) => embedded_pdb(&pe.debug_data(&file[..], entry, 1 << 24).unwrap()).unwrap(),
        None => std::fs::read(dll.with_extension("pdb")).unwrap(),
    }
}

#[test]
fn lines_and_names_of_every_method() {
    let Some(newest) = runtimes().pop() else { return };
    let (mut points, mut hidden, mut locals, mut files) = (0, 0, 0, 0);
    for name in ["Lines", "Metadata", "Shapes", "Stacks"] {
        let dll = xtask::apps::ensure(bench(), name).unwrap();
        let bytes = pdb_of(&dll);
        let pdb = Pdb::parse(&bytes).unwrap();
        let mut ours = Vec::new();
        let expected = theirs(&newest, &dll);
        let number = |line: &[String], field: usize| -> u32 { line[field].parse().unwrap() };
        let methods: Vec<u32> =
            expected.iter().filter(|line| line[0] == "point").map(|line| number(line, 1)).collect();
        let mut rows = methods.clone();
        rows.dedup();
        for row in rows {
            for point in pdb.sequence_points(row) {
                let at = if point.is_hidden() {
                    "hidden".to_owned()
                } else {
                    format!("{},{}", point.line, point.column)
                };
                hidden += u32::from(point.is_hidden());
                let file = pdb.document(point.document).unwrap();
                ours.push(["point".to_owned(), row.to_string(), point.offset.to_string(), file, at].to_vec());
            }
        }
        let wanted: Vec<_> = expected.iter().filter(|line| line[0] == "point").cloned().collect();
        assert_eq!(ours, wanted, "{name}");
        points += ours.len();
        let id: String = pdb.id().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(expected[0], ["id".to_owned(), id]);
        for line in expected.iter().filter(|line| line[0] == "local") {
            let (row, start, len, index) =
                (number(line, 1), number(line, 2), number(line, 3), number(line, 4) as usize);
            // Compilers give a number to one variable at a time.
            let names = pdb.local_names(row, Some(start));
            assert_eq!(names[index].as_deref(), Some(&line[5][..]), "{name}: method {row} at {start}");
            if len > 0 {
                assert_eq!(pdb.local_names(row, Some(start + len - 1))[index].as_deref(), Some(&line[5][..]));
            }
            locals += 1;
        }
        // A line out of the middle of what it holds for.
        for pair in wanted.windows(2).filter(|pair| pair[0][1] == pair[1][1] && pair[0][4] != "hidden") {
            let between = (number(&pair[0], 2) + number(&pair[1], 2)) / 2;
            let point = pdb.line_at(number(&pair[0], 1), between).unwrap();
            assert_eq!(format!("{},{}", point.line, point.column), pair[0][4]);
        }
        let mut names: Vec<_> = wanted.iter().map(|line| line[3].clone()).collect();
        names.sort();
        names.dedup();
        files += names.len();
    }
    assert!(
        points > 1000 && hidden > 100 && locals > 100,
        "{points} points, {hidden} hidden, {locals} locals"
    );
    assert_eq!(files, 5, "one of each, and one that a line of Lines.cs names");
}

/// Asks for everything there is; how much that was.
fn ask(bytes: &[u8]) -> usize {
    let Ok(pdb) = Pdb::parse(bytes) else { return 0 };
    let mut work = 0;
    for row in 0..300 {
        let points: Vec<_> = pdb.sequence_points(row).collect();
        work += points.len() + usize::from(pdb.line_at(row, 10).is_some());
        work += points
            .iter()
            .filter_map(|point| pdb.document(point.document))
            .map(|name| name.len())
            .sum::<usize>();
        work += pdb.local_names(row, Some(3)).len() + pdb.local_names(row, None).len();
    }
    work
}

#[test]
fn changed_bytes_of_a_pdb() {
    if runtimes().is_empty() {
        return;
    }
    let good = pdb_of(&xtask::apps::ensure(bench(), "Lines").unwrap());
    let work = ask(&good);
    assert!(work > 1000);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3000));
    let place = prop_oneof![0usize..0x400, 0..good.len()];
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
            // A number of a local can be any of 16 bits.
            prop_assert!(ask(&bytes) < 600 * 65536 + 2000 * work);
            Ok(())
        })
        .unwrap();
}
