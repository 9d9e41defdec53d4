//! `cargo xtask dist`: the one static file that is shipped.

use std::fs;
use std::path::PathBuf;

use xtask::{Result, run, workspace};

use super::say;
use super::test::cargo;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const LIMIT: usize = 8_000_000;

/// Builds it, and checks that it is static and small.
pub(crate) fn run(_: &[String]) -> Result<()> {
    let path = build("dist")?;
    let file = fs::read(&path)?;
    if has_interpreter(&file).ok_or("the built file is no 64-bit ELF program")? {
        return Err(format!(
            "{} needs a dynamic loader: it would not run in every container",
            path.display()
        )
        .into());
    }
    println!("{} {} bytes, static", path.display(), file.len());
    if file.len() > LIMIT {
        return Err(format!("the binary has {} bytes; the limit is {LIMIT}", file.len()).into());
    }
    Ok(())
}

/// Builds the static `dnd` with a cargo profile.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--profile", profile, "--target", TARGET, "--package", "dnd"]);
    say(&format!("$ RUSTFLAGS='-C target-feature=+crt-static' {}", run::shown(&command)));
    run::loudly(command.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    Ok(target.join(TARGET).join(profile).join("dnd"))
}

/// Whether an ELF program has a segment PT_INTERP (elf.h: program header table at e_phoff, e_phnum entries of
/// e_phentsize bytes, each beginning with p_type).
fn has_interpreter(file: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| Some(usize::from(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?)));
    file.get(..5)?.eq(b"\x7fELF\x02").then_some(())?;
    let start = usize::try_from(u64::from_le_bytes(file.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (u16_at(54)?, u16_at(56)?);
    for n in 0..count {
        let at = start.checked_add(n * size)?;
        if u32::from_le_bytes(file.get(at..at.checked_add(4)?)?.try_into().ok()?) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_others() {
        // The test itself is linked dynamically.
        assert_eq!(has_interpreter(&fs::read("/proc/self/exe").unwrap()), Some(true));
        assert_eq!(has_interpreter(b"#!/bin/sh"), None);
    }
}
