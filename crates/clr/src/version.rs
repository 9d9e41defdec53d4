//! Which build a runtime is.

use dnd_memory::{ElfImage, Memory, Target};

use crate::locate::RuntimeImage;

/// How the version was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionSource {
    /// The text `@(#)Version … @Commit: …` in the runtime's image.
    Image,
    /// `DotNetRuntimeInfo`, which single-file programs export.
    RuntimeInfo,
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

impl Version {
    /// The number under which it was released, for example `8.0.4`; `None` when the build number doesn't tell (3.1).
    #[must_use]
    pub fn release(&self) -> Option<String> {
        if self.source == VersionSource::Path {
            return Some(self.text.clone());
        }
        // Since 5 the third number is 100 times the patch level plus the year of the build.
        let mut numbers = self.text.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
        let (major, minor, build) = (numbers.next()?, numbers.next()?, numbers.next()?);
        (major >= 5 && build < 100_000).then(|| format!("{major}.{minor}.{}", build / 100))
    }

    /// Its major version; .NET Core 3.1, whose builds are numbered 4.700, is 3.
    pub(crate) fn major(&self) -> Option<u8> {
        let major = self.text.split('.').next()?.parse().ok()?;
        Some(if major == 4 { 3 } else { major })
    }
}

/// What every build of CoreCLR carries in its read-only data, from `eng/native/version` (`sccsid`).
const MARK: &[u8] = b"@(#)Version ";

/// No image is larger; a larger one is damage, and would take long to search.
pub(crate) const MAX_IMAGE: u64 = 1 << 30;

/// Looks for the version in the image, then in its path.
pub(crate) fn find(target: &dyn Target, image: &RuntimeImage) -> Option<Version> {
    in_image(target, image.base, image.end).or_else(|| cheap(target, image))
}

/// The same without a search through the whole image.
pub(crate) fn cheap(target: &dyn Target, image: &RuntimeImage) -> Option<Version> {
    in_path(&image.path.to_string_lossy()).or_else(|| in_runtime_info(target, image.base))
}

/// Source: `RuntimeInfo` in `src/coreclr/inc/runtimeinfo.h`: signature, version of the structure, build-ids of the
/// runtime, the DAC and the DBI (24 bytes each), then the version in four numbers, since structure version 2.
fn in_runtime_info(memory: &dyn Memory, base: u64) -> Option<Version> {
    let elf = ElfImage::at(memory, base).ok()?;
    let at = elf.symbol(memory, "DotNetRuntimeInfo").ok().flatten()?.address;
    if !memory.c_string(at, 20).eq(b"DotNetRuntimeInfo") || memory.u32(at.wrapping_add(20)).ok()? < 2 {
        return None;
    }
    let number = |i: u64| memory.u32(at.wrapping_add(96 + 4 * i)).ok();
    let numbers = [number(0)?, number(1)?, number(2)?, number(3)?];
    let text = numbers.map(|n| n.to_string()).join(".");
    Some(Version { text, commit: None, source: VersionSource::RuntimeInfo })
}

fn in_image(memory: &dyn Memory, base: u64, end: u64) -> Option<Version> {
    let end = end.min(base.saturating_add(MAX_IMAGE));
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

/// The release in the name of the folder of a shared framework.
pub(crate) fn in_path(path: &str) -> Option<Version> {
    let (_, rest) = path.split_once("/Microsoft.NETCore.App/")?;
    let version = rest.split('/').next()?;
    let text = version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())?;
    Some(Version { text, commit: None, source: VersionSource::Path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_number_tells_the_release() {
        let version =
            |text: &str| Version { text: text.to_owned(), commit: None, source: VersionSource::Image };
        for (build, release, major) in [
            ("8.0.424.16909", Some("8.0.4"), 8),
            ("8.0.23.53103", Some("8.0.0"), 8),
            ("10.0.1126.37416", Some("10.0.11"), 10),
            ("4.700.22.11601", None, 3),
        ] {
            assert_eq!(version(build).release().as_deref(), release, "{build}");
            assert_eq!(version(build).major(), Some(major), "{build}");
        }
        assert_eq!(version("next").release(), None);
    }

    #[test]
    fn a_path_tells_the_version() {
        let found = in_path("/usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.4/libcoreclr.so");
        assert_eq!(found.map(|v| v.text).as_deref(), Some("8.0.4"));
        assert_eq!(in_path("/app/libcoreclr.so"), None);
    }
}
