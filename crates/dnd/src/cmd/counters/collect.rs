//! `dnd counters collect`.

use std::io;
use std::path::{Path, PathBuf};

use dnd_contract::{Kind, escape};
use dnd_counters::text::{CSV_HEADER, peer_rows};
use dnd_counters::{Source, Update, rfc3339};
use serde_json::json;

use super::action::OutputTo;
use super::hub::watch;
use super::json::Documents;
use super::lines::Said;
use super::monitor::{finish, say_ends};
use super::output::Output;
use super::sink::{Sink, Target};
use super::writer;
use super::{CountersArgs, WatchArgs, unix_nanos_now};
use crate::error::CliError;
use crate::target::block_on;

/// Arguments of `dnd counters collect`.
///
/// Values are written as they come, so that a file is whole up to the last interval whatever happens. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    counters: CountersArgs,

    #[command(flatten)]
    watch: WatchArgs,

    /// Form of the file
    #[arg(long, value_enum, default_value = "csv", ignore_case = true)]
    format: Format,

    /// File to write, `-` for standard output [default: counters_DATE_TIME in the current folder]
    ///
    /// Its extension is added if it has none. A file that exists is never overwritten.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write csv exactly as dotnet-counters does: local time, nothing quoted, nothing of the operating system
    #[arg(long)]
    compat: bool,
}

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The columns of dotnet-counters, quoted where needed; times are UTC
    Csv,
    /// The document of dotnet-counters; the file is a whole document at any time
    Json,
    /// A document a line for each process and interval (docs/json/counters.md)
    Ndjson,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
        }
    }
}

/// Collects until the user, the duration or the process ends it.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if args.compat && args.format != Format::Csv {
        return Err(CliError::new(Kind::Usage, "--compat is for csv"));
    }
    let request = args.watch.request(args.counters.counters.clone());
    block_on(async {
        let (arrivals, started) = args.watch.targets.resolve(&args.watch.port).await?;
        if args.compat && !arrivals.single {
            return Err(CliError::new(
                Kind::Usage,
                "--compat is for one process: its rows don't say which one they are of",
            ));
        }
        let output = match args.output.as_deref() {
            Some(path) if path == Path::new("-") => Output::stdout(),
            path => Output::create(&file_name(path, args.format))?,
        };
        if let Some(path) = output.path() {
            writer::say(&format!("writing to {}; Ctrl-C ends it", escape(&path.to_string_lossy())));
        }
        let several = !arrivals.single;
        let mut sink: Box<dyn Sink> = match args.format {
            Format::Csv => {
                Box::new(Csv { output, several, compat: args.compat, started: false, said: Said::default() })
            }
            Format::Json => {
                Box::new(Json { output, several, started: false, events: false, said: Said::default() })
            }
            Format::Ndjson => Box::new(Documents::new(request.interval, output)),
        };
        let alerts = args.watch.alerts.start(request.interval, OutputTo::Stderr);
        let watched = watch(arrivals, request, args.watch.duration, None, alerts, sink.as_mut()).await?;
        say_ends(&watched, started.as_ref());
        finish(started.as_ref())
    })
}

/// The file to write, with its extension.
fn file_name(given: Option<&Path>, format: Format) -> PathBuf {
    let Some(path) = given else {
        let time = jiff::Timestamp::now().strftime("%Y%m%d_%H%M%S");
        return PathBuf::from(format!("counters_{time}.{}", format.extension()));
    };
    let mut path = path.to_owned();
    if path.extension().is_none() {
        path.set_extension(format.extension());
    }
    path
}

/// Rows.
struct Csv {
    output: Output,
    several: bool,
    compat: bool,
    started: bool,
    said: Said,
}

impl Csv {
    fn start(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        let more = if self.several { ",Process ID,Process Name" } else { "" };
        // RFC 4180 ends rows with CR LF; readers take both, and the peers write LF.
        self.output.write_always(format!("{CSV_HEADER}{more}\n").into_bytes())
    }
}

impl Sink for Csv {
    fn updates(&mut self, targets: &[Target], index: usize, updates: &[Update]) -> io::Result<()> {
        self.start()?;
        let Some(target) = targets.get(index) else { return Ok(()) };
        let subject = &target.subject;
        let more =
            if self.several { vec![subject.pid.to_string(), subject.name.clone()] } else { Vec::new() };
        let mut text = String::new();
        for update in updates {
            let Update::Sample(sample) = update else { continue };
            if self.compat && sample.series.source == Source::Os {
                continue;
            }
            for row in peer_rows(sample) {
                if self.compat {
                    text.push_str(&row.csv_compat(local_time(row.unix_nanos)));
                } else {
                    text.push_str(&row.csv(&more));
                }
                text.push('\n');
            }
        }
        self.said.notices(targets, index, updates);
        self.output.write(text.into_bytes())
    }

    fn tick(&mut self, targets: &[Target]) -> io::Result<()> {
        self.said.trouble(targets);
        self.start()
    }

    fn end(&mut self, _targets: &[Target]) -> io::Result<()> {
        self.start()
    }

    fn failed(&self, error: io::Error) -> CliError {
        self.output.failed(error)
    }
}

/// As .NET writes a date with its invariant culture.
fn local_time(unix_nanos: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(unix_nanos)).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%m/%d/%Y %H:%M:%S").to_string()
}

/// One document, whose end is written anew after each batch of events.
struct Json {
    output: Output,
    several: bool,
    started: bool,
    /// Whether an event was written: the next one needs a comma.
    events: bool,
    said: Said,
}

/// The end of the document.
const CLOSE: &str = "]}\n";

impl Json {
    /// Writes events behind those that are there.
    fn append(&mut self, targets: &[Target], events: &str) -> io::Result<()> {
        let mut text = String::new();
        let first = !std::mem::replace(&mut self.started, true);
        if first {
            let name = targets.first().map(|target| target.subject.name.as_str()).unwrap_or_default();
            let (name, time) = (json!(name), json!(rfc3339(unix_nanos_now())));
            text.push_str(&format!("{{\"TargetProcess\":{name},\"StartTime\":{time},\"Events\":["));
        }
        if let Some(separated) = events.strip_prefix(',') {
            // The comma before the first event of all is left out.
            text.push_str(if std::mem::replace(&mut self.events, true) { events } else { separated });
        }
        if first && self.output.is_stdout() {
            // Its beginning must be there.
            return self.output.write_always(text.into_bytes());
        }
        self.output.write_closed(text.into_bytes(), CLOSE.as_bytes())
    }
}

impl Sink for Json {
    fn updates(&mut self, targets: &[Target], index: usize, updates: &[Update]) -> io::Result<()> {
        let pid = targets.get(index).filter(|_| self.several).map(|target| target.subject.pid);
        let mut events = String::new();
        for update in updates {
            let Update::Sample(sample) = update else { continue };
            for row in peer_rows(sample) {
                events.push_str(",\n");
                events.push_str(&serde_json::to_string(&row.json(pid))?);
            }
        }
        self.said.notices(targets, index, updates);
        if events.is_empty() && self.started { Ok(()) } else { self.append(targets, &events) }
    }

    fn tick(&mut self, targets: &[Target]) -> io::Result<()> {
        self.said.trouble(targets);
        // Not before it is known whose document it is: one that is started here is yet to come.
        if self.started || targets.is_empty() { Ok(()) } else { self.append(targets, "") }
    }

    fn end(&mut self, targets: &[Target]) -> io::Result<()> {
        if !self.started {
            self.append(targets, "")?;
        }
        if self.output.is_stdout() {
            self.output.write_always(CLOSE.as_bytes().to_vec())?;
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> CliError {
        self.output.failed(error)
    }
}
