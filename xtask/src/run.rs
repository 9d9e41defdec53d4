//! Running other programs, with errors that name the command and show what it said.

use std::process::{Command, Stdio};

use crate::Result;

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quote = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,*~".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    words.map(quote).collect::<Vec<_>>().join(" ")
}

/// Runs a command whose output matters only when it fails.
///
/// # Errors
/// The command can't be started, or ends with another status than 0: then its whole output is in the text.
pub fn quietly(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command and returns what it printed on stdout.
///
/// # Errors
/// As [`quietly`].
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("can't run `{}`: {e}", command.get_program().to_string_lossy()))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&out.stderr);
    Err(format!("`{}` failed ({}):\n{stdout}{stderr}", shown(command), out.status).into())
}

/// Runs a command whose output the user sees.
///
/// # Errors
/// The command can't be started, or ends with another status than 0.
pub fn loudly(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .map_err(|e| format!("can't run `{}`: {e}", command.get_program().to_string_lossy()))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", shown(command)).into()) }
}

/// Whether a program of this name is in the PATH.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
