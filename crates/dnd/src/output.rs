//! Printing facts on standard output: JSON or text.

use std::io::{self, BufWriter, Write};

use dnd_contract::Envelope;
use serde::Serialize;

use crate::error::{CliError, stdout_failed};

/// Prints `facts` as one JSON document of `schema`, ended by a newline.
pub(crate) fn json<T: Serialize>(schema: &str, version: u32, facts: &T) -> Result<(), CliError> {
    text(|out| {
        serde_json::to_writer_pretty(&mut *out, &Envelope { schema, version, facts })?;
        writeln!(out)
    })
}

/// Runs `print` on a buffered standard output; a closed pipe is success.
pub(crate) fn text(print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), CliError> {
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    print(&mut out).and_then(|()| out.flush()).map_err(stdout_failed)
}
