//! The outermost shape of every JSON document that `dnd` prints.

use serde::Serialize;

/// `{"schema": "dnd.ps", "version": 1, ...facts}`.
///
/// `version` grows when a field is removed or changes its meaning; new fields do not change it. Readers must
/// ignore fields they don't know and expect any field to be absent or null.
#[derive(Debug, Serialize)]
pub struct Envelope<'a, T: Serialize> {
    /// Name of the schema: `dnd.` and the command, as in `docs/json`.
    pub schema: &'a str,
    /// Version of that schema.
    pub version: u32,
    /// The facts, at the top level of the document; a struct or a map.
    #[serde(flatten)]
    pub facts: T,
}
