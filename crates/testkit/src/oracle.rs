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

fn ask(script: &Path, core: &Path, dac: Option<&Path>, whats: &[&str]) -> Result<Value> {
    let answers = core.with_file_name(format!("oracle-{}.json", whats.join("-")));
    let lock = core.to_string_lossy().replace('/', "+");
    let _lock =
        bench().lock(&format!("oracle{}", lock.get(lock.len().saturating_sub(200)..).unwrap_or(&lock)))?;
    if let Ok(text) = fs::read_to_string(&answers) {
        return Ok(serde_json::from_str(&text)?);
    }
    let mut python = Command::new("python3");
    python.arg(script).arg("--fast");
    if let Some(dac) = dac {
        python.arg("--dac").arg(dac);
    }
    let text = run::output(python.arg(core).args(whats))?;
    let value = serde_json::from_str(&text)?;
    let half = answers.with_extension("half");
    fs::write(&half, text)?;
    fs::rename(half, answers)?;
    Ok(value)
}
