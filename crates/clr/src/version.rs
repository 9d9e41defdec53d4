//! Which build a runtime is.

use dnd_memory::{Memory, Target};

use crate::locate::RuntimeImage;

/// How the version was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionSource {
    /// The text `@(#)Version … @Commit: …` in the runtime's image.
    Image,
    /// The folder that the runtime was loaded from (`Microsoft.NETCore.App/8.0.4`).
    Path,
}

/// A runtime's version.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Version {
    /// For example `8.0.424.16909` (from the image) or `8.0.4` (from the path).
    pub text: String,
    /// Commit of dotnet/runtime that it was built from.
    pub commit: Option<String>,
    /// How it was found.
    pub source: VersionSource,
}

/// What every build of CoreCLR carries in its read-only data, from `eng/native/version` (`sccsid`).
const MARK: &[u8] = b"@(#)Version ";

/// Looks for the version in the image, then in its path.
pub(crate) fn find(target: &dyn Target, image: &RuntimeImage) -> Option<Version> {
    in_image(target, image.base, image.end).or_else(|| in_path(&image.path.to_string_lossy()))
}

fn in_image(memory: &dyn Memory, base: u64, end: u64) -> Option<Version> {
    let mut at = base;
    while at < end {
        let run = memory.run(at);
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let run = run.get(..left).unwrap_or(run);
        if run.is_empty() {
            at = (at & !4095) + 4096;
            continue;
        }
        if let Some(found) = memchr::memmem::find(run, MARK) {
            let text = run.get(found + MARK.len()..)?;
            let text = text.get(..text.len().min(128))?;
            let text = text.split(|&b| b == 0).next()?;
            let text = String::from_utf8_lossy(text);
            let (version, commit) = match text.split_once(" @Commit: ") {
                Some((version, commit)) => (version.trim(), Some(commit.trim().to_owned())),
                None => (text.trim(), None),
            };
            return Some(Version { text: version.to_owned(), commit, source: VersionSource::Image });
        }
        at += run.len() as u64;
    }
    None
}

fn in_path(path: &str) -> Option<Version> {
    let (_, rest) = path.split_once("/Microsoft.NETCore.App/")?;
    let version = rest.split('/').next()?;
    let text = version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())?;
    Some(Version { text, commit: None, source: VersionSource::Path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_version() {
        let found = in_path("/usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.4/libcoreclr.so");
        assert_eq!(found.map(|v| v.text).as_deref(), Some("8.0.4"));
        assert_eq!(in_path("/app/libcoreclr.so"), None);
    }
}
