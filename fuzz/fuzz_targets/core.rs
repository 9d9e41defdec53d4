//! A core, and the ELF images that it says are in it.
#![no_main]

use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Mutex;

use dnd_memory::{Core, ElfFile, ElfImage, FileOptions, MappedFile, Memory, Target, WithFiles};
use libfuzzer_sys::fuzz_target;

/// One temporary file, written again for every input.
static FILE: Mutex<Option<File>> = Mutex::new(None);

fn mapped(bytes: &[u8]) -> MappedFile {
    let mut slot = FILE.lock().unwrap();
    let file = slot.get_or_insert_with(|| {
        let path = std::env::temp_dir().join(format!("dnd-fuzz-{}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    });
    file.set_len(0).unwrap();
    file.rewind().unwrap();
    file.write_all(bytes).unwrap();
    MappedFile::new(file).unwrap()
}

fuzz_target!(|data: &[u8]| {
    // As it is, and with a sound ELF header in front so that the fuzzer needn't find one.
    let mut with_header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
    with_header.extend([0; 8]);
    with_header.extend(64u64.to_le_bytes());
    with_header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 56, 0]);
    with_header.extend(u16::from(data.first().copied().unwrap_or(0) % 8 + 1).to_le_bytes());
    with_header.extend([0; 6]);
    with_header.extend(data.get(1..).unwrap_or_default());
    for bytes in [data, &with_header] {
        if let Ok(file) = ElfFile::new(mapped(bytes), 0x10_0000) {
            let _ = file.image().symbol(&file, "g_dacTable");
            for header in file.image().headers() {
                let _ = file.u64(file.image().bias().wrapping_add(header.vaddr));
            }
        }
        let Ok(core) = Core::from_map(mapped(bytes), Path::new("core")) else { continue };
        for range in core.ranges().to_vec() {
            assert!(core.u8(range.start).is_ok() && core.u8(range.end - 1).is_ok());
            if let Ok(image) = ElfImage::at(&core, range.start) {
                let _ =
                    (image.symbol(&core, "g_dacTable"), image.build_id(&core), image.range(), image.relro());
            }
        }
        let _ = (core.threads().len(), core.process(), core.signal(), core.createdump(), core.truncation());
        // No file may be read that the input names.
        let target = WithFiles::new(core, FileOptions { local: false, ..FileOptions::default() });
        for mapping in target.mappings().to_vec() {
            let _ = target.u64(mapping.start);
        }
    }
});
