//! Cores of real processes.

use std::path::Path;
use std::process::Command;

use dnd_memory::{Arch, Core, ElfImage, FileOptions, Maker, Memory, Target as _, Verdict, WithFiles};
use dnd_testkit::{By, CoreSpec, Kind, Target, core, one_per_major, runtimes, shared_cores};

use crate::writer::{PAGE, Scratch};

fn open(path: &Path) -> Core {
    Core::open(path).unwrap_or_else(|e| panic!("{e}"))
}

fn runtime_image(core: &Core) -> ElfImage {
    let of_runtime = |m: &&dnd_memory::FileMapping| m.offset == 0 && m.file_name() == "libcoreclr.so";
    let base = core.mappings().iter().find(of_runtime).expect("no libcoreclr.so").start;
    ElfImage::at(core, base).unwrap()
}

#[test]
fn heap_dumps_of_every_runtime() {
    for runtime in runtimes() {
        let made = core(&runtime, "Leak", &CoreSpec::with_args(&["1000", "100"]));
        let core = open(&made.path());
        let version = &runtime.version;
        assert_eq!(core.arch(), Arch::X64);
        assert_eq!((core.truncation(), core.overlaps()), (None, 0), "{version}");
        assert_eq!(core.process().map(|p| p.pid), Some(made.pid), "{version}");
        assert!(core.threads().iter().any(|t| t.tid == made.pid), "{version}");
        assert!(
            core.threads().iter().all(|t| core.u64(t.registers.sp()).is_ok()),
            "{version}: a stack is missing"
        );

        let image = runtime_image(&core);
        let loaded = image.build_id(&core).unwrap().expect("no build-id");
        let file =
            dnd_memory::ElfFile::open(&runtime.framework().join("libcoreclr.so"), image.base()).unwrap();
        assert_eq!(file.image().build_id(&file).unwrap(), Some(loaded), "{version}");
        let table = file.image().symbol(&file, "g_dacTable").unwrap();
        assert_eq!(table.is_some(), runtime.major() >= 8, "{version}");
        // The runtime's debugger interface looks the table up while the dump is made: so its tables are in it.
        if runtime.major() >= 8 {
            assert_eq!(image.symbol(&core, "g_dacTable").unwrap(), table, "{version}");
        }
        // Its first version, up to 8.0.0 at least, doesn't tell the base.
        if let Some(base) = core.createdump().and_then(|made_by| made_by.runtime_base) {
            assert_eq!(base, image.base(), "{version}");
        }
        assert_eq!(core.createdump().is_some(), runtime.major() >= 6, "{version}");
        assert_eq!(core.maker(), Some(Maker::Createdump), "{version}");
    }
}

/// Two dumps of one process, one after the other: what files stand for in the small one, the full one has itself.
#[test]
fn files_hold_what_memory_held() {
    for runtime in one_per_major() {
        let target = Target::spawn(&runtime, "Leak", &["1000", "100"]);
        let scratch = Scratch::new();
        let pid = target.pid().to_string();
        let dump = |flag: &str, name: &str| {
            let path = scratch.path(name);
            let out =
                Command::new(runtime.createdump()).arg(flag).arg("-f").arg(&path).arg(&pid).output().unwrap();
            assert!(out.status.success(), "{out:?}");
            path
        };
        let full = open(&dump("--full", "full"));
        let gcore = Command::new("gcore").arg("-o").arg(scratch.path("gcore")).arg(&pid).output().unwrap();
        assert!(gcore.status.success(), "{gcore:?}");
        for path in
            [dump("--withheap", "heap"), dump("--normal", "mini"), scratch.path(&format!("gcore.{pid}"))]
        {
            let small = WithFiles::new(open(&path), FileOptions::default());
            let (mut from_files, mut missing_code) = (0u64, 0u64);
            for mapping in small.mappings() {
                for addr in (mapping.start..mapping.end).step_by(PAGE as usize) {
                    if !small.core().run(addr).is_empty() {
                        continue;
                    }
                    let Some(page) = small.run(addr).get(..PAGE as usize) else {
                        missing_code += u64::from(mapping.file_name() == "libcoreclr.so");
                        continue;
                    };
                    from_files += 1;
                    let Some(held) = full.slice(addr, PAGE as usize) else { continue };
                    assert!(
                        page == held,
                        "{} differs at {addr:#x} from {}",
                        mapping.path.display(),
                        path.display()
                    );
                }
            }
            assert!(from_files > 1000, "{}: only {from_files} pages from files", path.display());
            // What is left is data: .data.rel.ro and the like.
            assert!(missing_code < 200, "{}: {missing_code} pages", path.display());
            let core_library =
                |used: &&dnd_memory::FileUse| used.target_path.ends_with("System.Private.CoreLib.dll");
            let uses = small.uses();
            for used in uses.iter().filter(core_library) {
                assert!(matches!(used.verdict, Verdict::Used(_)), "{}: {used:?}", path.display());
            }
            assert!(uses.iter().filter(core_library).count() > 0);
        }
    }
}

#[test]
fn a_module_that_was_replaced_is_refused() {
    let Some(runtime) = one_per_major().into_iter().find(|r| r.major() == 8) else { return };
    let made =
        core(&runtime, "Leak", &CoreSpec { kind: Kind::Heap, ..CoreSpec::with_args(&["1000", "100"]) });
    let scratch = Scratch::new();
    let name = "System.Private.CoreLib.dll";
    let mut bytes = std::fs::read(runtime.framework().join(name)).unwrap();
    let in_folder = |bytes: &[u8]| {
        scratch.write(&format!("modules/{name}"), bytes);
        let options = FileOptions { folders: vec![scratch.path("modules")], local: false, unchecked: true };
        let target = WithFiles::new(open(&made.path()), options);
        let missing = |addr: &u64| target.core().run(*addr).is_empty();
        let mapping = target.mappings().iter().find(|m| m.file_name() == name).unwrap();
        let addr = (mapping.start..mapping.end).step_by(PAGE as usize).find(missing).unwrap();
        let there = !target.run(addr).is_empty();
        (there, target.uses().remove(0).verdict)
    };
    assert!(matches!(in_folder(&bytes), (true, Verdict::Used(_))));
    let stamp = u32::from_le_bytes(bytes[60..64].try_into().unwrap()) as usize + 8;
    bytes[stamp] ^= 1;
    let (there, verdict) = in_folder(&bytes);
    assert!(!there && matches!(&verdict, Verdict::Refused(why) if why.contains("time stamp")), "{verdict:?}");
}

#[test]
fn cores_of_other_machines() {
    for shared in shared_cores() {
        let core = open(&shared.path);
        let arm = shared.name.contains("arm64");
        assert_eq!(core.arch(), if arm { Arch::Arm64 } else { Arch::X64 }, "{}", shared.name);
        assert_eq!((core.truncation(), core.overlaps()), (None, 0), "{}", shared.name);
        assert!(core.threads().iter().all(|t| core.u64(t.registers.sp()).is_ok()), "{}", shared.name);
        if !core.mappings().iter().any(|m| m.file_name() == "libcoreclr.so") {
            // A program in a single file.
            continue;
        }
        let image = runtime_image(&core);
        let table = image.symbol(&core, "g_dacTable").unwrap();
        // 3.1 exports none.
        assert_eq!(table.is_none(), shared.name.contains("-3.1."), "{}", shared.name);
        let Some(table) = table else { continue };
        let newest = shared.name.contains("-10.0.");
        assert!(if newest { table.size == 1032 } else { table.size >= 1240 }, "{}: {table:?}", shared.name);
        assert!(image.data_ranges().any(|range| range.contains(&table.address)), "{}", shared.name);
        // The first entries are addresses of globals of the runtime.
        for i in 0..8 {
            let global = core.u64(table.address + 8 * i).unwrap();
            assert!(image.range().contains(&global), "{}: entry {i} is {global:#x}", shared.name);
        }
    }
}

#[test]
fn a_core_of_gdb() {
    for runtime in one_per_major() {
        let spec = CoreSpec { by: By::Gcore, ..CoreSpec::with_args(&["1000", "100"]) };
        let made = core(&runtime, "Leak", &spec);
        let core = open(&made.path());
        assert_eq!(core.process().map(|p| p.pid), Some(made.pid));
        assert_eq!((core.createdump(), core.maker()), (None, Some(Maker::Gcore)));
        assert!(core.threads().len() > 4);
        assert!(runtime_image(&core).build_id(&core).unwrap().is_some());
    }
}
