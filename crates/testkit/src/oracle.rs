//! What Microsoft's own data access library says of a core: ../shared/oracle, which shares no code with `dnd`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use xtask::runtimes::shared_folder;
use xtask::{Result, run};

use crate::{Core, bench, must, skip};

/// The oracle's answers about a core of the bench, by WHAT (`info heap stat objects handles threads stacks roots
/// exceptions syncblocks finalizer`; its README tells the keys). Asked once, kept beside the core.
/// `None`, with a visible skip, where ../shared/oracle is absent.
#[track_caller]
pub fn oracle(core: &Core, whats: &[&str]) -> Option<Value> {
    oracle_for(&core.path(), None, whats)
}

/// The same for any core. `dac` is the libmscordaccore.so to use; by default it is found beside the libcoreclr.so
/// that the core names.
#[track_caller]
pub fn oracle_for(core: &Path, dac: Option<&Path>, whats: &[&str]) -> Option<Value> {
    let script = shared_folder().join("oracle/dac_oracle.py");
    if !script.is_file() {
        skip("comparison with Microsoft's DAC: there is no ../shared/oracle beside this checkout");
        return None;
    }
    match ask(&script, core, dac, whats) {
        // Microsoft's library has mistakes of its own, on threads that run and on ones that died.
        Err(error) if error.to_string().contains("the DAC crashed") => {
            skip(format_args!("comparison with Microsoft's DAC, which crashes on {}", core.display()));
            None
        }
        answer => Some(must(answer, format_args!("the oracle fails on {}", core.display()))),
    }
}

/// The loader's heaps as the same library gives them (`loader_heaps.py` beside this file tells the keys). Asked once, kept
/// beside the core. `None`, with a visible skip, where ../shared/oracle is absent.
#[track_caller]
pub fn loader_oracle(core: &Core) -> Option<Value> {
    more(core, "loader-heaps", "loader_heaps.py", &[])
}

/// Entries of the methods of the types of a core's objects, as the same library gives them (`method_entries.py`).
#[track_caller]
pub fn entries_oracle(core: &Core) -> Option<Value> {
    let stat = oracle(core, &["stat"])?;
    let types = stat["stat"]["types"].as_array().map(Vec::as_slice).unwrap_or_default();
    let tables =
        types.iter().filter(|t| t["name"] != "Free").filter_map(|t| t["mt"].as_str()).collect::<Vec<_>>();
    more(core, "method-entries", "method_entries.py", &tables)
}

/// What the oracle has no word for: a script of this folder that hosts the library with its help.
#[track_caller]
fn more(core: &Core, name: &str, script: &str, arguments: &[&str]) -> Option<Value> {
    let folder = shared_folder().join("oracle");
    if !folder.is_dir() {
        skip("comparison with Microsoft's DAC: there is no ../shared/oracle beside this checkout");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(script);
    let path = core.path();
    let mut python = Command::new("python3");
    let answer = kept(&path, name, python.arg(script).arg(folder).arg(&path).args(arguments));
    Some(must(answer, format_args!("the oracle fails on {}", path.display())))
}

fn ask(script: &Path, core: &Path, dac: Option<&Path>, whats: &[&str]) -> Result<Value> {
    let mut python = Command::new("python3");
    python.arg(script).arg("--fast");
    if let Some(dac) = dac {
        python.arg("--dac").arg(dac);
    }
    kept(core, &whats.join("-"), python.arg(core).args(whats))
}

/// What a command says of a core: kept beside it under `name`, and asked once.
fn kept(core: &Path, name: &str, command: &mut Command) -> Result<Value> {
    let answers = core.with_file_name(format!("oracle-{name}.json"));
    let lock = core.to_string_lossy().replace('/', "+");
    let _lock =
        bench().lock(&format!("oracle{}", lock.get(lock.len().saturating_sub(200)..).unwrap_or(&lock)))?;
    if let Ok(text) = fs::read_to_string(&answers) {
        return Ok(serde_json::from_str(&text)?);
    }
    let text = run::output(command)?;
    let value = serde_json::from_str(&text)?;
    let half = answers.with_extension("half");
    fs::write(&half, text)?;
    fs::rename(half, answers)?;
    Ok(value)
}
