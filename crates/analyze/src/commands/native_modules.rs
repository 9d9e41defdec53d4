//! `modules`: the files that the process has mapped.

use std::collections::BTreeMap;
use std::path::Path;

use dnd_contract::Addr;
use dnd_memory::{ElfImage, FileMapping, Target};
use serde::Serialize;

use crate::args::Opt;
use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["modules", "lm"],
    operands: "",
    max_operands: 0,
    options: &[
        Opt::word(&["name", "n"], "text", "Only files whose name holds this text (case does not matter)."),
        Opt::word(&["address", "a"], "address", "Only the file around this address."),
        Opt::flag(&["verbose", "v"], "With build ids, where the dump has them."),
    ],
    summary: "Lists the files mapped into the process: native libraries, assemblies.",
    about: "Columns: first address, bytes from there to the end of the last part, file. A file that is mapped several times \
            is listed several times. clrmodules lists the managed assemblies.",
    run,
};

/// No image is larger; a larger number is damage.
const MAX_IMAGE: u64 = 1 << 32;

#[derive(Debug, Serialize)]
struct Modules {
    modules: Vec<Line>,
    #[serde(skip)]
    verbose: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    base: Addr,
    size: u64,
    path: String,
    /// Null for what is no ELF image, or when the dump does not have it.
    build_id: Option<String>,
    /// Up to the end of its last part.
    #[serde(skip)]
    extent: u64,
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let name = call.args.word("name").map(str::to_lowercase);
    let address = call.args.addr("address")?;
    let target = call.runtime().target();
    let mut lines = images(target);
    lines.retain(|line| {
        let file = line.path.rsplit('/').next().unwrap_or_default().to_lowercase();
        name.as_ref().is_none_or(|name| file.contains(name))
            && address.is_none_or(|at| line.base.0 <= at && at - line.base.0 < line.size)
    });
    if let Some(at) = address.filter(|_| lines.is_empty()) {
        return Err(Error::NotFound(format!("no file is mapped at {at:x}")));
    }
    call.emit("modules", 1, &Modules { modules: lines, verbose: call.args.flag("verbose") })
}

/// The mapped files: parts of one file that lie in one image are one line.
fn images(target: &dyn Target) -> Vec<Line> {
    let mut mappings: Vec<&FileMapping> = target.mappings().iter().collect();
    mappings.sort_by_key(|mapping| mapping.start);
    let mut lines: Vec<Line> = Vec::new();
    // File → the place of its last image.
    let mut last: BTreeMap<&Path, usize> = BTreeMap::new();
    for mapping in mappings {
        let known = last.get(mapping.path.as_path()).and_then(|&place| lines.get_mut(place));
        let inside = |line: &Line| {
            let offset = mapping.start.wrapping_sub(line.base.0);
            // What begins where the file does is another image, unless it lies within the one before.
            offset < line.size.max(line.extent) || mapping.offset != 0
        };
        match known {
            Some(line) if inside(line) => {
                line.extent = line.extent.max(mapping.end.saturating_sub(line.base.0));
            }
            _ => {
                last.insert(mapping.path.as_path(), lines.len());
                lines.push(image(target, mapping));
            }
        }
    }
    // A file that is mapped as it is takes less room than its sections would.
    let starts: Vec<u64> = lines.iter().skip(1).map(|line| line.base.0).chain([u64::MAX]).collect();
    for (line, next) in lines.iter_mut().zip(starts) {
        let size = if line.size == 0 { line.extent } else { line.size };
        line.size = size.min(next.saturating_sub(line.base.0));
    }
    lines
}

/// The image that begins with a mapping.
fn image(target: &dyn Target, mapping: &FileMapping) -> Line {
    let mapped = mapping.end.saturating_sub(mapping.start);
    let elf = ElfImage::at(target, mapping.start).ok();
    let build_id = elf.as_ref().and_then(|image| image.build_id(target).ok().flatten());
    let size = match &elf {
        Some(image) => Some(image.range().end.saturating_sub(mapping.start)),
        None => size_of_pe(target, mapping.start),
    };
    Line {
        base: Addr(mapping.start),
        size: size.filter(|&size| size < MAX_IMAGE).unwrap_or(0),
        path: mapping.path.display().to_string(),
        build_id: build_id.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        extent: mapped,
    }
}

/// `SizeOfImage` of the PE image at an address.
fn size_of_pe(target: &dyn Target, base: u64) -> Option<u64> {
    const MZ: u16 = 0x5a4d;
    const PE: u32 = 0x4550;
    if target.u16(base).ok()? != MZ {
        return None;
    }
    let header = base.wrapping_add(target.u32(base.wrapping_add(0x3c)).ok()?.into());
    if target.u32(header).ok()? != PE {
        return None;
    }
    target.u32(header.wrapping_add(24 + 56)).ok().map(u64::from)
}

impl Facts for Modules {
    fn text(&self, out: &mut Out<'_>) {
        for line in &self.modules {
            out.fmt(format_args!("{:016X} {:08X} ", line.base.0, line.size));
            out.name(&line.path);
            out.end();
            if self.verbose
                && let Some(id) = &line.build_id
            {
                out.field("    BuildId:", 16, id);
            }
        }
        let total: u64 = self.modules.iter().map(|line| line.size).sum();
        out.fmt(format_args!("Total image size: {total}\n"));
    }
}
