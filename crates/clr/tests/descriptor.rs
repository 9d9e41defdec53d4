//! The runtime's own descriptor against the tables of this program, on real cores; changed ones are followed, damaged
//! ones refused with a reason.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod support;

use dnd_clr::descriptor::DescriptorSource;
use dnd_clr::{Error, Progress, Runtime};
use dnd_memory::{Core, ElfImage, FileOptions, Memory, Target, WithFiles};
use dnd_testkit::{CoreSpec, Kind, core, runtimes, shared_cores, skip};
use support::Patched;

const NAME: &str = "DotNetRuntimeContractDescriptor";

fn leak(runtime: &dnd_testkit::Runtime, kind: Kind) -> std::path::PathBuf {
    core(runtime, "Leak", &CoreSpec { kind, ..CoreSpec::with_args(&["1000", "100"]) }).path()
}

fn alone() -> FileOptions {
    FileOptions { local: false, ..FileOptions::default() }
}

fn orders(runtime: &Runtime<'_>) -> u64 {
    let heap = runtime.objects_heap().unwrap();
    let counted = runtime.count(&heap.segments, 1, &Progress::new()).unwrap();
    counted
        .types
        .iter()
        .filter(|t| runtime.type_name(t.table, dnd_clr::NameStyle::Runtime) == "Shop.Order")
        .map(|t| t.count)
        .sum()
}

#[test]
fn the_runtimes_say_of_themselves_what_the_tables_say() {
    let mut compared = 0;
    for runtime in runtimes().into_iter().filter(|runtime| runtime.major() >= 9) {
        for kind in [Kind::Full, Kind::Heap] {
            let target = WithFiles::new(Core::open(&leak(&runtime, kind)).unwrap(), FileOptions::default());
            let opened = Runtime::open(&target).unwrap();
            let facts = opened.layout_facts();
            let what = format!("{} {kind:?}: {facts:?}", runtime.version);
            // No heap dump holds it, but the runtime's file does.
            let source = if kind == Kind::Full { DescriptorSource::Memory } else { DescriptorSource::File };
            assert_eq!(facts.descriptor, Some(source), "{what}");
            assert!(facts.described >= if runtime.major() == 9 { 60 } else { 100 }, "{what}");
            assert!(facts.differences.is_empty(), "{what}");
            assert!(facts.refused.is_none() && facts.unverified.is_none(), "{what}");
            compared += 1;
        }
        // Without the file the table does.
        let target = WithFiles::new(Core::open(&leak(&runtime, Kind::Heap)).unwrap(), alone());
        assert_eq!(Runtime::open(&target).unwrap().layout_facts().descriptor, None, "{}", runtime.version);
    }
    if compared == 0 {
        skip("descriptors of real runtimes: no runtime of 9 or 10 is here");
    }
}

#[test]
fn so_do_those_of_other_machines() {
    for shared in shared_cores().iter().filter(|shared| shared.name.contains("gcore")) {
        let target = WithFiles::new(Core::open(&shared.path).unwrap(), FileOptions::default());
        let opened = Runtime::open(&target).unwrap();
        let facts = opened.layout_facts();
        assert_eq!(facts.descriptor, Some(DescriptorSource::Memory), "{}: {facts:?}", shared.name);
        assert!(facts.differences.is_empty() && facts.refused.is_none(), "{}: {facts:?}", shared.name);
    }
}

/// A full core of the newest runtime, with what the descriptor's parts are at.
struct Victim {
    core: Core,
    descriptor: u64,
    json: u64,
    size: u32,
    text: String,
    elf: ElfImage,
}

fn victim() -> Option<Victim> {
    let Some(runtime) = runtimes().into_iter().rfind(|runtime| runtime.major() >= 10) else {
        skip("changed descriptors: no runtime of 10 is here");
        return None;
    };
    let core = Core::open(&leak(&runtime, Kind::Full)).unwrap();
    let base =
        core.mappings().iter().find(|m| m.offset == 0 && m.file_name() == "libcoreclr.so").unwrap().start;
    let elf = ElfImage::at(&core, base).unwrap();
    let descriptor = elf.symbol(&core, NAME).unwrap().unwrap().address;
    let size = core.u32(descriptor + 12).unwrap();
    let json = core.u64(descriptor + 16).unwrap();
    let mut bytes = vec![0; size as usize];
    core.read(json, &mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    Some(Victim { core, descriptor, json, size, text, elf })
}

impl Victim {
    /// The same core with another text in the descriptor.
    fn with_text(&self, text: &str) -> Patched<'_> {
        let mut patched = Patched::new(&self.core);
        self.put_text(&mut patched, text);
        patched
    }

    fn put_text(&self, patched: &mut Patched<'_>, text: &str) {
        assert!(text.len() <= self.size as usize, "no room");
        patched.write(self.json, text.as_bytes());
        patched.write(self.descriptor + 12, &(text.len() as u32).to_le_bytes());
    }

    /// Writes the size of a symbol into the image's table of symbols.
    fn resize(&self, patched: &mut Patched<'_>, name: &str, size: u64) {
        let symbol = self.elf.symbol(&self.core, name).unwrap().unwrap();
        let start = self.elf.base();
        let entry = (start..self.elf.range().end)
            .step_by(8)
            .find(|&at| {
                self.core.u64(at) == Ok(symbol.address - self.elf.bias())
                    && self.core.u64(at + 8) == Ok(symbol.size)
            })
            .expect("the symbol's entry");
        patched.write(entry + 8, &size.to_le_bytes());
    }
}

#[test]
fn a_moved_field_is_followed() {
    let Some(victim) = victim() else { return };
    // As a runtime would have it whose threads keep their ids four bytes further.
    assert!(victim.text.contains("\"OSId\":296"), "{}", victim.text);
    let mut moved = victim.with_text(&victim.text.replace("\"OSId\":296", "\"OSId\":300"));
    let plain = Runtime::open(&victim.core).unwrap();
    let threads = plain.threads().unwrap().threads.clone();
    for thread in &threads {
        let at = thread.address + 296;
        moved.write(at, &0u32.to_le_bytes());
        moved.write(at + 4, &thread.os_id.to_le_bytes());
    }
    let runtime = Runtime::open(&moved).unwrap();
    let facts = runtime.layout_facts();
    let told: Vec<_> =
        facts.differences.iter().map(|d| (d.place.as_str(), d.embedded, d.described)).collect();
    assert_eq!(told, [("Thread.OSId", 296, 300)], "{facts:?}");
    let ids = |runtime: &Runtime<'_>| -> Vec<u32> {
        runtime.threads().unwrap().threads.iter().map(|t| t.os_id).collect()
    };
    assert_eq!(ids(&runtime), ids(&plain));
    assert_eq!(orders(&runtime), 1000);
}

#[test]
fn a_descriptor_that_is_wrong_is_refused_and_the_table_serves() {
    let Some(victim) = victim() else { return };
    let replace = |from: &str, to: &str| {
        assert!(victim.text.contains(from), "{from} is not in the text");
        victim.text.replace(from, to)
    };
    let cases = [
        (replace("\"OSId\":296", "\"OSId\":288"), "managed threads"),
        (replace("\"DomainAssemblyList\":576", "\"DomainAssemblyList\":584"), "assembl"),
        (replace("\"BaseSize\":4", "\"BaseSize\":5"), "MethodTable.BaseSize"),
        (replace("\"version\":0", "\"version\":7"), "version is 7"),
        (victim.text[..100].to_owned(), "JSON"),
        ("garbage".to_owned(), "JSON"),
        (String::new(), "JSON"),
    ];
    for (text, why) in cases {
        let target = victim.with_text(&text);
        let runtime = Runtime::open(&target).unwrap();
        let facts = runtime.layout_facts();
        let refused = facts.refused.as_ref().unwrap_or_else(|| panic!("{why}: {facts:?}"));
        assert!(refused.contains(why), "{why}: {refused}");
        assert!(facts.descriptor.is_none() && facts.differences.is_empty(), "{facts:?}");
        assert_eq!(orders(&runtime), 1000, "{why}");
    }
    // Its header: magic, flags, sizes.
    for (at, bytes, why) in [
        (0, &b"ELF"[..], "does not begin"),
        (8, &[0, 0, 0, 0], "flags 0x0"),
        (8, &[3, 0, 0, 0], "flags 0x3"),
        (12, &[0xff, 0xff, 0xff, 0xff], "4294967295 bytes"),
        (24, &[0xff, 0xff, 0xff, 0x7f], "2147483647 pointers"),
        (24, &[1, 0, 0, 0], "has no address"),
    ] {
        let mut target = Patched::new(&victim.core);
        target.write(victim.descriptor + at, bytes);
        let runtime = Runtime::open(&target).unwrap();
        let refused = runtime.layout_facts().refused.clone().unwrap_or_default();
        assert!(refused.contains(why), "{why}: {refused}");
        assert_eq!(orders(&runtime), 1000, "{why}");
    }
}

#[test]
fn a_runtime_with_an_unknown_table_is_read_by_its_descriptor() {
    let Some(victim) = victim() else { return };
    let mut longer = Patched::new(&victim.core);
    victim.resize(&mut longer, "g_dacTable", 1048);
    let runtime = Runtime::open(&longer).unwrap();
    let facts = runtime.layout_facts();
    let unverified = facts.unverified.clone().unwrap_or_default();
    assert!(unverified.contains("newer than the tables"), "{facts:?}");
    assert_eq!(facts.descriptor, Some(DescriptorSource::Memory));
    assert_eq!(runtime.table_shape().entries, 131);
    assert_eq!(runtime.globals(), Runtime::open(&victim.core).unwrap().globals());
    assert_eq!(orders(&runtime), 1000);

    // With an entry more in the middle, too: everything behind it is found by what the descriptor names.
    let mut inserted = Patched::new(&victim.core);
    victim.resize(&mut inserted, "g_dacTable", 1040);
    let table = victim.elf.symbol(&victim.core, "g_dacTable").unwrap().unwrap().address;
    let entries: Vec<u64> = (0..129).map(|i| victim.core.u64(table + 8 * i).unwrap()).collect();
    for (i, entry) in entries.iter().enumerate().skip(60) {
        inserted.write(table + 8 * (i as u64 + 1), &entry.to_le_bytes());
    }
    let runtime = Runtime::open(&inserted).unwrap();
    assert_eq!(runtime.table_shape().globals.sync_table, 79);
    assert_eq!(runtime.globals(), Runtime::open(&victim.core).unwrap().globals());
    assert_eq!(orders(&runtime), 1000);
}

#[test]
fn without_a_descriptor_it_is_refused_with_what_was_found() {
    let Some(victim) = victim() else { return };
    let mut unknown = Patched::new(&victim.core);
    victim.resize(&mut unknown, "g_dacTable", 2048);
    unknown.cut(victim.json);
    let Err(Error::UnknownRuntime { table_bytes, version, descriptor, .. }) = Runtime::open(&unknown) else {
        panic!("it was opened");
    };
    assert_eq!(table_bytes, 2048);
    assert!(version.is_some_and(|version| version.starts_with("10.")));
    assert!(descriptor.contains("not at hand"), "{descriptor}");

    let mut garbage = victim.with_text("garbage");
    victim.resize(&mut garbage, "g_dacTable", 1048);
    let Err(error) = Runtime::open(&garbage) else { panic!("it was opened") };
    let text = error.to_string();
    assert!(text.contains("1048 bytes") && text.contains("JSON"), "{text}");

    // Entries that can't be told apart: one more between the heap's type and the table of the GC.
    let mut unsure = Patched::new(&victim.core);
    victim.resize(&mut unsure, "g_dacTable", 1040);
    let table = victim.elf.symbol(&victim.core, "g_dacTable").unwrap().unwrap().address;
    let entries: Vec<u64> = (0..129).map(|i| victim.core.u64(table + 8 * i).unwrap()).collect();
    for (i, entry) in entries.iter().enumerate().skip(19) {
        unsure.write(table + 8 * (i as u64 + 1), &entry.to_le_bytes());
    }
    let Err(error) = Runtime::open(&unsure) else { panic!("it was opened") };
    assert!(error.to_string().contains("can't be found for sure"), "{error}");
}
