//! Which modules' metadata can be read.

use dnd_clr::Runtime;
use serde::Serialize;

/// The managed modules.
#[derive(Debug, Serialize)]
pub struct Modules {
    /// Their number.
    pub count: usize,
    /// Those whose metadata can't be read; names of their types and methods are unknown.
    pub without_metadata: Vec<MissingMetadata>,
}

/// A module without metadata.
#[derive(Debug, Serialize)]
pub struct MissingMetadata {
    /// Its file, or its name when it has none.
    pub module: String,
    /// Why.
    pub reason: String,
}

pub(super) fn gather(runtime: &Runtime<'_>) -> Option<Modules> {
    let modules = runtime.modules().ok()?;
    let without_metadata = modules
        .iter()
        .filter(|module| module.metadata().is_none())
        .map(|module| MissingMetadata {
            module: if module.path.is_empty() { module.file_name() } else { module.path.clone() },
            reason: module.problem.clone().unwrap_or_else(|| "its metadata is damaged".to_owned()),
        })
        .collect();
    Some(Modules { count: modules.len(), without_metadata })
}
