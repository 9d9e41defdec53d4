//! Files behind a core: only the right ones, and only the parts that can't have changed.

use dnd_memory::{FileOptions, Memory, Target, Verdict, WithFiles};

use crate::writer::{CONSTANTS, CoreWriter, Hash, PAGE, Scratch, library, pattern, x64};

const BASE: u64 = 0x7f12_3400_0000;

/// A core with the library's first page, as kernels write it, and nothing else of it.
fn core_of(build_id: &[u8], path: &str) -> CoreWriter {
    let library = library(build_id, Hash::Gnu);
    let mut writer = x64().files(&library.mappings(BASE, path));
    let mut first = library.loaded(BASE, true).remove(0);
    first.data.truncate(PAGE as usize);
    writer.segments.push(first);
    writer
}

fn only(uses: &[dnd_memory::FileUse]) -> &Verdict {
    assert_eq!(uses.len(), 1, "{uses:?}");
    &uses[0].verdict
}

#[test]
fn the_same_file_is_read_where_it_cannot_have_changed() {
    let scratch = Scratch::new();
    let path = scratch.write("app/lib.so", &library(&[7; 20], Hash::Gnu).file);
    let text = path.to_str().unwrap();
    let core = scratch.core(&core_of(&[7; 20], text).build()).unwrap();
    let target = WithFiles::new(core, FileOptions::default());
    assert!(target.uses().is_empty(), "nothing is opened before it is asked for");
    assert_eq!(target.u8(BASE).ok(), Some(0x7f));
    assert!(target.uses().is_empty(), "the core has this byte");

    // Up to the end of the mapping, which begins in the core.
    assert_eq!(target.run(BASE + CONSTANTS), pattern(CONSTANTS, 0x1000));
    let mut both = vec![0; 0x1100];
    target.read(BASE + PAGE - 0x80, &mut both).unwrap();
    assert!(both[..0x80].iter().all(|&b| b == 0));
    // Data is never taken from a file, whatever it holds.
    assert!(target.u64(BASE + 0x5100).is_err());
    assert!(target.u64(BASE + 0x3000).is_err() && target.u64(BASE - 8).is_err());
    assert_eq!(*only(&target.uses()), Verdict::Used(format!("same build-id {}", "07".repeat(20))));
    let (used, map) = target.file_at(BASE).unwrap();
    assert_eq!((used, map.bytes().len()), (path.as_path(), 0x5000));
    assert!(target.file_at(BASE + PAGE).is_none());
    assert_eq!(target.ranges().len(), 1);
}

#[test]
fn another_file_is_refused() {
    let scratch = Scratch::new();
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("another build", library(&[8; 20], Hash::Gnu).file, "it has build-id 0808"),
        ("no library", b"just text".to_vec(), "neither an ELF nor a PE image"),
        ("nothing", Vec::new(), "neither an ELF nor a PE image"),
        ("cut", library(&[7; 20], Hash::Gnu).file[..100].to_vec(), "incomplete"),
    ];
    for (name, bytes, why) in cases {
        let path = scratch.write("app/lib.so", &bytes);
        // Not even when unchecked files are allowed: this one was checked.
        for unchecked in [false, true] {
            let core = scratch.core(&core_of(&[7; 20], path.to_str().unwrap()).build()).unwrap();
            let target = WithFiles::new(core, FileOptions { unchecked, ..FileOptions::default() });
            assert!(target.u8(BASE + CONSTANTS).is_err(), "{name}");
            let uses = target.uses();
            let Verdict::Refused(reason) = only(&uses) else { panic!("{name}: {uses:?}") };
            assert!(reason.contains(why), "{name}: {reason}");
        }
    }
    let core = scratch.core(&core_of(&[7; 20], "/nowhere/lib.so").build()).unwrap();
    let target = WithFiles::new(core, FileOptions::default());
    assert!(target.u8(BASE + CONSTANTS).is_err());
    assert_eq!(*only(&target.uses()), Verdict::NotFound);
}

#[test]
fn without_proof_no_library_is_used() {
    let scratch = Scratch::new();
    let path = scratch.write("app/lib.so", &library(&[7; 20], Hash::Gnu).file);
    let text = path.to_str().unwrap();
    for unchecked in [false, true] {
        let mut writer = core_of(&[7; 20], text);
        writer.segments[0] = crate::writer::Segment::new(0x1000, vec![1]);
        let core = scratch.core(&writer.build()).unwrap();
        let target = WithFiles::new(core, FileOptions { unchecked, ..FileOptions::default() });
        assert!(target.u8(BASE + CONSTANTS).is_err());
        let uses = target.uses();
        let Verdict::Refused(why) = only(&uses) else { panic!("{uses:?}") };
        assert!(why.contains("lacks the image's headers"), "{why}");
    }
}

#[test]
fn folders_come_first_and_a_dump_cannot_lead_out_of_them() {
    let scratch = Scratch::new();
    let right = library(&[7; 20], Hash::Gnu).file;
    let open = |target_path: &str, folder: &str, local: bool| {
        let core = scratch.core(&core_of(&[7; 20], target_path).build()).unwrap();
        let folders = vec![scratch.path(folder)];
        let target = WithFiles::new(core, FileOptions { folders, local, unchecked: false });
        let there = target.u8(BASE + CONSTANTS).is_ok();
        (there, target.uses().remove(0).file)
    };
    // A copy of the target's root, and a folder of modules.
    let below = scratch.write("root/app/lib.so", &right);
    assert_eq!(open("/app/lib.so", "root", false), (true, Some(below.clone())));
    assert_eq!(open("/app/lib.so (deleted)", "root", false), (true, Some(below)));
    let flat = scratch.write("modules/lib.so", &right);
    assert_eq!(open("/app/lib.so", "modules", false), (true, Some(flat)));
    // The wrong file in the folder doesn't hide the right one at its place.
    let local = scratch.write("here/lib.so", &right);
    scratch.write("wrong/lib.so", &library(&[9; 20], Hash::Gnu).file);
    assert_eq!(open(local.to_str().unwrap(), "wrong", true), (true, Some(local.clone())));
    assert_eq!(open(local.to_str().unwrap(), "wrong", false), (false, None));
    scratch.write("outside.so", &right);
    assert_eq!(open("/../outside.so", "empty", false), (false, None));
}

#[test]
fn a_file_that_was_only_named() {
    let scratch = Scratch::new();
    let core = scratch.core(&core_of(&[7; 20], "/nowhere/lib.so").build()).unwrap();
    scratch.write("modules/a.dll", b"wrong");
    let right = scratch.write("app/a.dll", b"right");
    let target = WithFiles::new(
        core,
        FileOptions { folders: vec![scratch.path("modules")], ..FileOptions::default() },
    );
    let accept = |bytes: &[u8]| if bytes == b"right" { Ok(()) } else { Err("another MVID".to_owned()) };
    assert_eq!(target.find_file(&right, accept).unwrap().bytes(), b"right");
    assert!(target.find_file(std::path::Path::new("/x/a.dll"), accept).is_none());
    assert!(target.find_file(std::path::Path::new("/x/b.dll"), accept).is_none());
    let verdicts: Vec<_> = target.uses().into_iter().map(|used| used.verdict).collect();
    let expected = [
        Verdict::Used("asked for by path".to_owned()),
        Verdict::Refused("another MVID".to_owned()),
        Verdict::NotFound,
    ];
    assert_eq!(verdicts, expected);
}
