//! The module files of this machine behind a dump that lacks their pages.

mod bundle;
mod identity;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::Serialize;

use self::identity::Checked;
use crate::corefile::{Core, read_by_runs};
use crate::elf::ElfFile;
use crate::map::MappedFile;
use crate::runs::Run;
use crate::target::{Arch, FileMapping, Memory, Missing, Range, Target, Thread};

/// Which files may be used.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// Folders that are searched first, in order: for each the path that the dump names below it (a copy of the
    /// target's root), then its file name in it (a folder of modules).
    pub folders: Vec<PathBuf>,
    /// Whether the path that the dump names is tried on this machine.
    pub local: bool,
    /// Whether a PE file (a DLL) is used also when the dump has nothing that it could be held against: kernel dumps
    /// of the default filter hold no page of one. Its size must still fit. ELF files always need their build-id.
    pub unchecked: bool,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { folders: Vec::new(), local: true, unchecked: false }
    }
}

/// What became of a module file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "detail")]
pub enum Verdict {
    /// It is the file that was loaded; by what that was seen.
    Used(String),
    /// It was used although nothing in the dump could be compared; why.
    Unchecked(String),
    /// It was not used; why.
    Refused(String),
    /// It isn't on this machine.
    NotFound,
}

/// One module file that was looked for because the dump lacks bytes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileUse {
    /// Its path in the target.
    pub target_path: PathBuf,
    /// The file on this machine that the verdict is about.
    pub file: Option<PathBuf>,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// An image: a file mapped at an address, and all mappings of it that belong together.
struct Image {
    base: u64,
    path: PathBuf,
    state: OnceLock<Loaded>,
}

/// What was found behind an image.
struct Loaded {
    file: Option<(PathBuf, MappedFile)>,
    verdict: Verdict,
    /// The same as an ELF image, once it was asked for.
    elf: OnceLock<Option<ElfFile>>,
    /// Which bytes of the file may stand for which addresses, sorted.
    ranges: Vec<Run>,
}

/// A core with the module files of this machine behind it: read-only pages that the dump left out are taken from
/// the file that the target had mapped there, if it is the same file. ELF images are compared by build-id (single-file
/// apps also by where their bundle is), PE images by time stamp and size of image, or, when the dump lacks their
/// headers, by their relocated words. Writable and relocated parts never come from a file.
///
/// One thing can't be seen: constants that the process made writable, changed and made read-only again, when the
/// dump's maker left the page out (the kernel and gdb don't, createdump does). Small pieces of a segment that are
/// mapped apart are therefore left out here, too.
///
/// A file is opened when the first byte of it is asked for. [`WithFiles::uses`] tells what was used and refused.
pub struct WithFiles {
    core: Core,
    options: FileOptions,
    images: Vec<Image>,
    /// For each of the core's mappings the image it belongs to.
    owners: Vec<Option<usize>>,
    /// Files that callers asked for by path.
    asked: Mutex<Vec<FileUse>>,
}

impl WithFiles {
    /// Puts files behind `core`. Nothing is opened yet.
    #[must_use]
    pub fn new(core: Core, options: FileOptions) -> Self {
        let mut images: Vec<Image> = Vec::new();
        let mut first: HashMap<&Path, usize> = HashMap::new();
        let mut newest: HashMap<&Path, usize> = HashMap::new();
        let mut owners = Vec::new();
        for mapping in core.mappings() {
            // An image begins where the file's first byte is mapped; what follows of the same file belongs to it.
            // The first section of a loaded PE image may be mapped from the file's start, too, behind the headers.
            let before = newest.get(mapping.path.as_path()).and_then(|&image| images.get(image));
            let behind_headers = before.is_some_and(|before| mapping.start - before.base <= MAX_HEADERS);
            if mapping.offset == 0 && !behind_headers && is_module(&mapping.path) {
                first.entry(&mapping.path).or_insert(images.len());
                newest.insert(&mapping.path, images.len());
                images.push(Image {
                    base: mapping.start,
                    path: mapping.path.clone(),
                    state: OnceLock::new(),
                });
            }
            owners.push(newest.get(mapping.path.as_path()).copied());
        }
        // Parts of a single-file app may be mapped below its first byte.
        for (owner, mapping) in owners.iter_mut().zip(core.mappings()) {
            *owner = owner.or_else(|| first.get(mapping.path.as_path()).copied());
        }
        Self { core, options, images, owners, asked: Mutex::default() }
    }

    /// The core itself.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// What was used and refused so far, in the order of addresses, then files that were asked for by path.
    #[must_use]
    pub fn uses(&self) -> Vec<FileUse> {
        let images = self.images.iter().filter_map(|image| {
            let loaded = image.state.get()?;
            Some(FileUse {
                target_path: image.path.clone(),
                file: loaded.file.as_ref().map(|(path, _)| path.clone()),
                verdict: loaded.verdict.clone(),
            })
        });
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut uses: Vec<FileUse> = Vec::new();
        // A DLL can be mapped twice: as a file and loaded.
        for used in images.chain(asked.iter().cloned()) {
            if !uses.contains(&used) {
                uses.push(used);
            }
        }
        uses
    }

    /// The file on this machine of the image that begins at `base`, when it is the one that was loaded: for
    /// questions to the whole file, such as symbols or metadata. Bytes of it are *not* those of memory where the
    /// image was relocated or written to.
    #[must_use]
    pub fn file_at(&self, base: u64) -> Option<(&Path, &MappedFile)> {
        let image = self.images.iter().position(|image| image.base == base)?;
        let (path, map) = self.loaded(image)?.file.as_ref()?;
        Some((path, map))
    }

    /// Looks for a file that the dump names but needn't have mapped, such as an assembly that was read into
    /// memory. `accept` decides by its bytes whether it is the right one and says why not; it may be called for
    /// several candidates.
    pub fn find_file(
        &self,
        target_path: &Path,
        mut accept: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Option<MappedFile> {
        let mut outcome = (None, Verdict::NotFound);
        let mut found = None;
        for path in candidates(&self.options, target_path) {
            let Ok(map) = MappedFile::open(&path) else { continue };
            match accept(map.bytes()) {
                Ok(()) => {
                    outcome = (Some(path), Verdict::Used("asked for by path".to_owned()));
                    found = Some(map);
                    break;
                }
                Err(reason) => outcome = (Some(path), Verdict::Refused(reason)),
            }
        }
        let (file, verdict) = outcome;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let used = FileUse { target_path: target_path.to_owned(), file, verdict };
        if !asked.contains(&used) {
            asked.push(used);
        }
        found
    }

    fn loaded(&self, image: usize) -> Option<&Loaded> {
        let image = self.images.get(image)?;
        Some(image.state.get_or_init(|| self.load(image)))
    }

    fn mappings_of(&self, image: &Image) -> Vec<&FileMapping> {
        let index = self.images.iter().position(|other| other.base == image.base);
        let pairs = self.core.mappings().iter().zip(&self.owners);
        pairs.filter(|(_, owner)| **owner == index).map(|(mapping, _)| mapping).collect()
    }

    fn load(&self, image: &Image) -> Loaded {
        let mut result =
            Loaded { file: None, verdict: Verdict::NotFound, elf: OnceLock::new(), ranges: Vec::new() };
        for path in candidates(&self.options, &image.path) {
            let map = match MappedFile::open(&path) {
                Ok(map) => map,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => {
                    result.verdict = Verdict::Refused(format!("{} can't be read: {e}", path.display()));
                    continue;
                }
            };
            match self.check(image, &map) {
                Ok(Checked { verdict, ranges }) => {
                    return Loaded { file: Some((path, map)), verdict, elf: OnceLock::new(), ranges };
                }
                Err(reason) => result.verdict = Verdict::Refused(format!("{}: {reason}", path.display())),
            }
        }
        result
    }

    fn check(&self, image: &Image, map: &MappedFile) -> Result<Checked, String> {
        let check = |image: &Image, unchecked| {
            identity::check(&self.core, image.base, &self.mappings_of(image), map, unchecked)
        };
        let refused = match check(image, false) {
            Err(reason) => reason,
            checked => return checked,
        };
        // The runtime maps a ReadyToRun assembly twice, as a file and loaded; what proves one proves the other.
        let others = self.images.iter().filter(|other| other.path == image.path && other.base != image.base);
        let proof = others.filter_map(|other| check(other, false).ok()).map(|checked| checked.verdict).next();
        if proof.is_none() && !self.options.unchecked {
            return Err(refused);
        }
        let checked = check(image, true)?;
        Ok(Checked { verdict: proof.unwrap_or(checked.verdict), ranges: checked.ranges })
    }

    /// The bytes of a file that stand for `addr`, up to where the dump has bytes again.
    fn file_run(&self, addr: u64) -> &[u8] {
        let find = || {
            let mappings = self.core.mappings();
            let index = mappings.partition_point(|m| m.start <= addr).checked_sub(1)?;
            if mappings.get(index)?.end <= addr {
                return None;
            }
            let loaded = self.loaded((*self.owners.get(index)?)?)?;
            let range = loaded.ranges.partition_point(|r| r.start <= addr).checked_sub(1)?;
            let range = loaded.ranges.get(range).filter(|r| addr < r.end)?;
            let end = range.end.min(self.core.next_start(addr).unwrap_or(u64::MAX));
            let from = usize::try_from(range.offset.checked_add(addr - range.start)?).ok()?;
            let bytes = loaded.file.as_ref()?.1.bytes().get(from..)?;
            let len = usize::try_from(end - addr).unwrap_or(usize::MAX).min(bytes.len());
            bytes.get(..len)
        };
        find().unwrap_or_default()
    }
}

/// How far behind an image's base its first section is mapped: sections of ReadyToRun images are aligned to 64 KB.
const MAX_HEADERS: u64 = 0x1_0000;

/// Whether a path can be that of a module: no device, no anonymous file.
fn is_module(path: &Path) -> bool {
    path.is_absolute() && !["/memfd:", "/dev/", "/SYSV"].iter().any(|p| path.to_string_lossy().starts_with(p))
}

/// Where the file that the target knew as `path` may be.
fn candidates(options: &FileOptions, path: &Path) -> Vec<PathBuf> {
    let text = path.to_string_lossy();
    let path = text.strip_suffix(" (deleted)").map_or(path, Path::new);
    let mut out = Vec::new();
    for folder in &options.folders {
        if let Ok(below) = path.strip_prefix("/") {
            // A dump must not lead out of the folder.
            if below.components().all(|c| matches!(c, std::path::Component::Normal(_))) {
                out.push(folder.join(below));
            }
        }
        out.extend(path.file_name().map(|name| folder.join(name)));
    }
    if options.local && path.is_absolute() {
        out.push(path.to_owned());
    }
    out
}

impl Memory for WithFiles {
    #[inline]
    fn run(&self, addr: u64) -> &[u8] {
        let bytes = self.core.run(addr);
        if bytes.is_empty() { self.file_run(addr) } else { bytes }
    }

    #[inline]
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Missing> {
        if let Some(bytes) = self.core.run(addr).get(..buf.len()) {
            buf.copy_from_slice(bytes);
            return Ok(());
        }
        read_by_runs(|at| self.run(at), addr, buf)
    }
}

impl Target for WithFiles {
    fn arch(&self) -> Arch {
        self.core.arch()
    }

    fn mappings(&self) -> &[FileMapping] {
        self.core.mappings()
    }

    fn threads(&self) -> &[Thread] {
        self.core.threads()
    }

    /// What the core itself holds.
    fn ranges(&self) -> &[Range] {
        self.core.ranges()
    }

    fn file_image(&self, base: u64) -> Option<&dyn Memory> {
        let image = self.images.iter().position(|image| image.base == base)?;
        let loaded = self.loaded(image)?;
        let (_, map) = loaded.file.as_ref()?;
        let elf = loaded.elf.get_or_init(|| ElfFile::new(map.clone(), base).ok());
        elf.as_ref().map(|elf| elf as &dyn Memory)
    }
    fn find_file(
        &self,
        path: &Path,
        accept: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Option<MappedFile> {
        WithFiles::find_file(self, path, accept)
    }
}
