//! `dnd dump info`.

use std::fs;
use std::path::Path;

use dnd_analyze::info::{self, Taken, TakenFrom};
use dnd_clr::Runtime;
use dnd_contract::Explain;
use jiff::Timestamp;

use super::open::CoreArgs;
use crate::error::CliError;
use crate::output;

/// Arguments of `dnd dump info`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    core: CoreArgs,
    /// Print one JSON document (docs/json/dump-info.md)
    #[arg(long)]
    json: bool,
}

/// Tells what a dump is. What is known is printed even when its runtime can't be read; the exit code then tells why.
pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    let path = args.core.path()?;
    let target = args.core.open(&path)?;
    let runtime = Runtime::open(&target);
    let facts = info::gather(&target, runtime.as_ref(), taken(&path));
    if args.json {
        output::json("dnd.dump.info", 1, &facts)?;
    } else {
        output::text(|out| info::write_text(out, &facts))?;
    }
    match &runtime {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::Quiet(error.kind())),
    }
}

/// When the dump was taken: no core says it itself.
fn taken(path: &Path) -> Option<Taken> {
    let named = path.file_name().and_then(|name| named_by_systemd(&name.to_string_lossy()));
    if let Some(at) = named {
        return Some(Taken { at: at.to_string(), from: TakenFrom::FileName });
    }
    let modified = fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
    let at = Timestamp::try_from(modified).ok()?.round(jiff::Unit::Second).ok()?;
    Some(Taken { at: at.to_string(), from: TakenFrom::FileModified })
}

/// `core.COMM.UID.BOOT-ID.PID.MICROSECONDS`, perhaps with `.zst` or the like behind it: systemd-coredump(8).
fn named_by_systemd(name: &str) -> Option<Timestamp> {
    let name = name.strip_prefix("core.")?;
    let name = [".zst", ".lz4", ".xz", ".gz"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let mut parts = name.rsplit('.');
    let (time, pid, boot) = (parts.next()?, parts.next()?, parts.next()?);
    let is_boot_id = boot.len() == 32 && boot.bytes().all(|b| b.is_ascii_hexdigit());
    pid.parse::<u32>().ok().filter(|_| is_boot_id)?;
    Timestamp::from_microsecond(time.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_tells_the_time_in_the_name() {
        let name = "core.Shop\\x20Api.1000.0123456789abcdef0123456789abcdef.4711.1763835000000000";
        let expected = Some("2025-11-22T18:10:00Z".to_owned());
        assert_eq!(named_by_systemd(name).map(|t| t.to_string()), expected);
        assert_eq!(named_by_systemd(&format!("{name}.zst")).map(|t| t.to_string()), expected);
        for other in ["core", "core.4711", "core_20261122_173000", "core.a.b.c.d"] {
            assert_eq!(named_by_systemd(other), None, "{other}");
        }
    }
}
