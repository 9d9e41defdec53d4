//! PE headers: layouts, missing bytes, errors.

use std::cell::Cell;

use dnd_metadata::{Directory, Error, Layout, Metadata, Pe, Source, directory};

/// A PE32+ file with one section at RVA 0x2000 (file offset 0x400) that holds a CLI header and metadata.
fn image(metadata: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x400 + 0x100 + metadata.len()];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(60, &0x80u32.to_le_bytes());
    put(0x80, b"PE\0\0");
    put(0x84, &0x8664u16.to_le_bytes());
    put(0x86, &1u16.to_le_bytes());
    put(0x88, &0x1234_5678u32.to_le_bytes());
    put(0x94, &240u16.to_le_bytes());
    put(0x98, &0x20bu16.to_le_bytes());
    put(0x98 + 24, &0x1_8000_0000u64.to_le_bytes());
    put(0x98 + 56, &0x4000u32.to_le_bytes());
    put(0x98 + 60, &0x400u32.to_le_bytes());
    put(0x98 + 108, &16u32.to_le_bytes());
    put(0x98 + 112 + 8 * 14, &0x2000u32.to_le_bytes());
    put(0x98 + 112 + 8 * 14 + 4, &72u32.to_le_bytes());
    let section = 0x98 + 240;
    put(section, b".text\0\0\0");
    let size = 0x100 + metadata.len() as u32;
    for (i, value) in [size, 0x2000, size, 0x400].into_iter().enumerate() {
        put(section + 8 + 4 * i, &value.to_le_bytes());
    }
    put(0x400 + 8, &0x2100u32.to_le_bytes());
    put(0x400 + 12, &(metadata.len() as u32).to_le_bytes());
    put(0x400 + 16, &1u32.to_le_bytes());
    put(0x500, metadata);
    file
}

/// The image as a loader lays it out.
fn mapped(file: &[u8]) -> Vec<u8> {
    let mut memory = vec![0; 0x4000];
    memory[..0x400].copy_from_slice(&file[..0x400]);
    memory[0x2000..0x2000 + file.len() - 0x400].copy_from_slice(&file[0x400..]);
    memory
}

#[test]
fn both_layouts_lead_to_the_metadata() {
    let file = image(b"BSJB and more");
    let memory = mapped(&file);
    for (bytes, layout, offset) in [(&file, Layout::File, 0x500), (&memory, Layout::Mapped, 0x2100)] {
        let pe = Pe::parse(&bytes[..], layout).unwrap();
        assert_eq!(
            (pe.time_date_stamp, pe.size_of_image, pe.image_base),
            (0x1234_5678, 0x4000, 0x1_8000_0000)
        );
        assert!(pe.is_64_bit);
        assert_eq!((pe.sections.len(), pe.sections[0].is_writable()), (1, false));
        assert_eq!(pe.directory(directory::CLI), Some(Directory { rva: 0x2000, size: 72 }));
        assert_eq!(pe.directory(directory::DEBUG), None);
        assert_eq!(pe.cli_header(&bytes[..]).unwrap().flags, 1);
        assert_eq!(pe.metadata_range(&bytes[..]), Ok((offset, 13)));
        assert_eq!(pe.code_view(&bytes[..]), Ok(None));
    }
}

#[test]
fn only_what_is_needed_is_read() {
    let file = image(b"BSJB");
    let furthest = Cell::new(0);
    let source = |offset: u64, buf: &mut [u8]| {
        furthest.set(furthest.get().max(offset as usize + buf.len()));
        Source::read(&file[..], offset, buf)
    };
    let pe = Pe::parse(&source, Layout::File).unwrap();
    assert!(furthest.get() <= 0x400, "the headers end at 0x400, it read up to {:#x}", furthest.get());
    // A page that isn't there is told by its offset.
    let headers_only = |offset: u64, buf: &mut [u8]| Source::read(&file[..0x400], offset, buf);
    assert_eq!(pe.cli_header(&headers_only), Err(Error::Missing { offset: 0x400, len: 72 }));
}

#[test]
fn errors_say_what_is_wrong() {
    let good = image(b"BSJB");
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let parse = |file: &[u8]| Pe::parse(file, Layout::File).map(|_| ()).unwrap_err().to_string();
    assert_eq!(parse(b""), "64 bytes at offset 0x0 of the image are missing");
    assert_eq!(parse(&with(0, b"ZM")), "there is no PE image: it doesn't begin with MZ");
    assert!(parse(&with(0x80, b"NE")).contains("signature PE"));
    assert!(parse(&with(60, &[0xff; 4])).contains("offset 0xffffffff"));
    assert!(parse(&with(0x86, &[0xff; 2])).contains("96 sections"));
    assert!(parse(&with(0x98, &[0; 2])).contains("unknown kind"));
    let native = with(0x98 + 112 + 8 * 14, &[0; 8]);
    let pe = Pe::parse(&native[..], Layout::File).unwrap();
    assert_eq!(pe.metadata_range(&native[..]), Err(Error::NotCli));

    let metadata = |bytes: &[u8]| Metadata::parse(bytes).map(|_| ()).unwrap_err().to_string();
    assert_eq!(metadata(b"MZ"), "there is no ECMA-335 metadata: the signature BSJB is not there");
    assert_eq!(metadata(b"BSJB"), "the metadata is damaged: it ends inside its root");
}
