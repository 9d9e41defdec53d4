//! From a request to a file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dnd_ipc::procfs::{ProcFs, Root};
use dnd_ipc::{DumpFlags, DumpRequest, DumpType, Error as IpcError, generate_core_dump};
use dnd_memory::{Core, MappedFile};
use dnd_ps::Chosen;

use crate::error::Error;
use crate::explain::{Place, causes};
use crate::facts::{DumpFacts, type_name};
use crate::preflight::{check, check_createdump, check_space};
use crate::staging::{Directory, Staging, held_open};

/// The dump's name while it is being written. Short and without `%`, which `createdump` would replace.
const FILE: &str = "core";
/// What `createdump` appends for the crash report.
const REPORT: &str = ".crashreport.json";

/// How often the size is looked at.
const TICK: Duration = Duration::from_millis(100);

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// The file to be made, as the target sees it; must not exist. Absolute, unless both see the same file system.
    pub output: PathBuf,
    /// What it holds.
    pub dump_type: DumpType,
    /// The runtime logs to the target's console.
    pub diag: bool,
    /// A crash report (JSON: threads, stacks, modules) beside it.
    pub crash_report: bool,
    /// Try even what is known to fail, or to harm the target later.
    pub force: bool,
    /// When the name is taken, append the first number that is free: `core_2`. Otherwise a taken name is an error.
    pub numbered: bool,
}

/// Everything checked; the private directory exists, the target was not asked yet. Dropping it, also in the middle of
/// [`Prepared::run`], removes what was written so far.
#[derive(Debug)]
pub struct Prepared {
    target: Chosen,
    request: Request,
    root: Option<Root>,
    dir: PathBuf,
    /// The name wanted.
    name: String,
    /// The same with a number when it was taken.
    planned: String,
    staging: Staging,
    warnings: Vec<String>,
}

/// Checks all that can be known before the target is asked. `cwd` is where a relative path starts.
///
/// # Errors
/// When the dump can't be written, would not fit, or would harm the target.
pub fn prepare(target: &Chosen, request: Request, cwd: &Path) -> Result<Prepared, Error> {
    let pid = target.process.pid;
    let elsewhere = target.process.other_root == Some(true);
    let shown = || request.output.display().to_string();
    if elsewhere && !request.output.is_absolute() {
        return Err(Error::Relative { path: shown(), pid });
    }
    let path = cwd.join(&request.output);
    let ends_in_slash = request.output.as_os_str().as_encoded_bytes().ends_with(b"/");
    let (Some(dir), Some(name), Some(_)) =
        (path.parent(), path.file_name().and_then(|n| n.to_str()), path.to_str())
    else {
        return Err(Error::BadPath { path: shown() });
    };
    if ends_in_slash {
        return Err(Error::BadPath { path: shown() });
    }
    let warnings = check(target, request.dump_type, request.force)?;

    let proc = ProcFs::default();
    check_createdump(&proc, target)?;
    let root = elsewhere.then(|| proc.root(pid));
    let here = |path: &Path| root.as_ref().map_or_else(|| path.to_owned(), |root| root.display(path));
    let unusable =
        |source: io::Error| Error::Directory { path: here(dir).display().to_string(), elsewhere, source };
    let directory = Directory::open(root.as_ref(), dir).map_err(unusable)?;
    let mut taken = None;
    let mut planned = name.to_owned();
    for candidate in names(name, request.numbered) {
        taken = taken_by(&directory, &candidate, request.crash_report).map_err(unusable)?;
        if taken.is_none() {
            planned = candidate;
            break;
        }
    }
    if let Some((name, what)) = taken {
        return Err(Error::Exists { path: here(&dir.join(name)).display().to_string(), what });
    }
    let staging = directory.stage(target.process.uid).map_err(unusable)?;
    check_space(proc.status(pid).as_ref(), staging.available(), request.dump_type, request.force)?;
    Ok(Prepared {
        target: target.clone(),
        root,
        dir: dir.to_owned(),
        name: name.to_owned(),
        planned,
        staging,
        warnings,
        request,
    })
}

/// The names to try, in order.
fn names(name: &str, numbered: bool) -> impl Iterator<Item = String> {
    let more = if numbered { 2..100 } else { 0..0 };
    std::iter::once(name.to_owned()).chain(more.map(move |n| format!("{name}_{n}")))
}

/// The file that is in the way of a dump of this name or of its crash report, and what it is.
fn taken_by(
    directory: &Directory,
    name: &str,
    crash_report: bool,
) -> io::Result<Option<(String, &'static str)>> {
    let report = crash_report.then(|| format!("{name}{REPORT}"));
    for name in std::iter::once(name.to_owned()).chain(report) {
        if let Some(what) = directory.holds(&name)? {
            return Ok(Some((name, what)));
        }
    }
    Ok(None)
}

impl Prepared {
    /// What to keep in mind, known before the target is asked.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A line for the user: what is going to be written where.
    #[must_use]
    pub fn announcement(&self) -> String {
        let path = self.dir.join(&self.planned);
        let path = dnd_contract::escape(&path.to_string_lossy()).into_owned();
        match self.request.dump_type {
            DumpType::Full => format!("Writing full to {path}"),
            DumpType::Heap => format!("Writing dump with heap to {path}"),
            DumpType::Mini => format!("Writing dump to {path}"),
            DumpType::Triage => format!("Writing triage dump to {path}"),
        }
    }

    /// Has the runtime write the dump, checks it, and gives it its name. `progress` gets the size so far, several times
    /// a second.
    ///
    /// # Errors
    /// When there is no complete dump; then nothing is left of it.
    pub async fn run(self, mut progress: impl FnMut(u64)) -> Result<DumpFacts, Error> {
        let started = Instant::now();
        let answer = self.ask(&mut progress).await;
        let elapsed = started.elapsed();
        if let Err(source) = answer {
            let hints = match &source {
                IpcError::Refused { message, .. } => self.causes(message.as_deref()),
                // It was not asked for any.
                IpcError::Encode(_) => Vec::new(),
                _ => self.causes(None),
            };
            return Err(Error::Runtime { source, hints });
        }
        let (file, bytes) = self.checked()?;
        let (name, report) = self.publish(&file)?;
        let path = self.dir.join(&name);
        let here = |path: &Path| self.here(path).to_string_lossy().into_owned();
        let mut warnings = self.warnings.clone();
        if self.request.crash_report && report.is_none() {
            warnings.push("the runtime wrote no crash report".to_owned());
        }
        Ok(DumpFacts {
            pid: self.target.process.pid,
            name: self.target.facts.name.clone(),
            runtime_version: self.target.facts.runtime_version.clone(),
            dump_type: type_name(self.request.dump_type),
            path: here(&path),
            path_in_target: path.to_string_lossy().into_owned(),
            size: bytes,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            crash_report: report.map(|name| here(&self.dir.join(name))),
            warnings,
        })
    }

    /// Asks, and watches the file grow until the answer is there.
    async fn ask(&self, progress: &mut impl FnMut(u64)) -> Result<(), IpcError> {
        let path = self.dir.join(self.staging.name()).join(FILE);
        let dump = DumpRequest {
            // createdump replaces %p and the like; %% is a plain one (printf in .NET Core 3, FormatDumpName since).
            path: path.to_string_lossy().replace('%', "%%"),
            dump_type: self.request.dump_type,
            flags: DumpFlags {
                log: self.request.diag,
                verbose: false,
                crash_report: self.request.crash_report,
            },
        };
        let mut answer = std::pin::pin!(generate_core_dump(&self.target.endpoint, &dump));
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = tick.tick() => progress(self.staging.size(FILE).unwrap_or(0)),
            }
        }
    }

    /// The file, if it is there and a complete core dump; and its size.
    fn checked(&self) -> Result<(File, u64), Error> {
        let failed = |source| Error::Publish { path: self.shown(), source };
        let Some(file) = self.staging.take(FILE).map_err(failed)? else {
            return Err(Error::NothingWritten { hints: self.causes(None) });
        };
        let path = self.here(&self.dir.join(&self.name));
        let map = MappedFile::open(&held_open(&file)).map_err(failed)?;
        let core = match Core::from_map(map, &path) {
            Ok(core) => core,
            Err(dnd_memory::Error::Empty { .. }) => {
                return Err(Error::NothingWritten { hints: self.causes(None) });
            }
            Err(source) => return Err(Error::NotACore { source, hints: self.causes(None) }),
        };
        if let Some(cut) = core.truncation() {
            let present = core.file_size();
            return Err(Error::Truncated { expected: cut.expected, present, hints: self.causes(None) });
        }
        let bytes = core.file_size();
        Ok((file, bytes))
    }

    /// Names the files; returns their names.
    fn publish(&self, dump: &File) -> Result<(String, Option<String>), Error> {
        let failed = |source| Error::Publish { path: self.shown(), source };
        let inside = format!("{FILE}{REPORT}");
        let report =
            if self.request.crash_report { self.staging.take(&inside).map_err(failed)? } else { None };
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for name in names(&self.name, self.request.numbered) {
            match self.publish_as(&name, dump, report.as_ref()) {
                Ok(report) => return Ok((name, report)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = e,
                Err(e) => return Err(failed(e)),
            }
        }
        Err(failed(last))
    }

    /// Both files or none.
    fn publish_as(&self, name: &str, dump: &File, report: Option<&File>) -> io::Result<Option<String>> {
        self.staging.publish(FILE, dump, name)?;
        let Some(report) = report else { return Ok(None) };
        let outside = format!("{name}{REPORT}");
        match self.staging.publish(&format!("{FILE}{REPORT}"), report, &outside) {
            Ok(()) => Ok(Some(outside)),
            Err(e) => {
                self.staging.unpublish(name);
                Err(e)
            }
        }
    }

    fn here(&self, path: &Path) -> PathBuf {
        self.root.as_ref().map_or_else(|| path.to_owned(), |root| root.display(path))
    }

    fn shown(&self) -> String {
        self.here(&self.dir.join(&self.name)).display().to_string()
    }

    fn causes(&self, said: Option<&str>) -> Vec<String> {
        let place = Place {
            dir: &self.dir,
            root: self.root.as_ref(),
            dump_type: self.request.dump_type,
            available: self.staging.available(),
        };
        causes(&ProcFs::default(), &self.target, &place, said)
    }
}
