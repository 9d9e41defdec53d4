//! `cargo xtask bench counters`: what watching counters costs, the target and the watcher.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use xtask::bench::Bench;
use xtask::runtimes::Runtime;
use xtask::target::Started;
use xtask::{Result, apps, run};

use super::bench::fetched;
use super::{dist, process, say};

/// How long targets are measured.
const TARGET_WINDOW: Duration = Duration::from_secs(15);
/// How long they are watched before: after 30 calls of a method a runtime compiles it again, and better.
const WARM_UP: Duration = Duration::from_secs(35);
/// How long the watcher is measured: one reading of PSS, which comes every 10 s, is in it.
const OWN_WINDOW: Duration = Duration::from_secs(10);
/// What comes before a window, and is not in it: the first compilations, the first values.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the start of 50 sessions may take.
const START: Duration = Duration::from_secs(60);
/// So many intervals pass before the cost to a target is measured.
const DOCUMENTS: usize = 4;

/// For each version the runtimes to take, the first that the bench has.
const RUNTIMES: [&[&str]; 4] =
    [&["3.1.23", "3.1.2"], &["8.0.33", "8.0.4"], &["9.0.22", "9.0.5"], &["10.0.14"]];

/// How targets are watched.
const WATCHED: [&str; 3] = ["no", "by default", "and a provider of its own"];

/// Prints two tables.
pub(crate) fn run() -> Result<()> {
    let (bench, _) = fetched()?;
    let dnd = dist::build("dist")?;
    let runtimes: Vec<Runtime> = RUNTIMES
        .iter()
        .filter_map(|versions| versions.iter().find_map(|version| Runtime::find(&bench, version)))
        .collect();
    costs_of_targets(&bench, &dnd, &runtimes)?;
    println!();
    own_costs(&bench, &dnd, runtimes.last().ok_or("the bench has no runtime")?)
}

/// What a target has cost so far.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    cpu_nanos: f64,
    bytes: f64,
}

impl Cost {
    /// The target tells it itself.
    fn of(target: &mut Started) -> Result<Self> {
        let answer = target.ask("cost")?;
        let mut numbers = answer.split(' ').filter_map(|word| word.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(cpu_nanos), Some(bytes)) => Ok(Self { cpu_nanos, bytes }),
            _ => Err(format!("a target answered `cost` with {answer:?}").into()),
        }
    }

    fn since(self, before: Self) -> Self {
        Self { cpu_nanos: self.cpu_nanos - before.cpu_nanos, bytes: self.bytes - before.bytes }
    }

    fn times(self, factor: f64) -> Self {
        Self { cpu_nanos: self.cpu_nanos * factor, bytes: self.bytes * factor }
    }
}

/// A target and its row in the table.
struct Subject<'a> {
    runtime: &'a Runtime,
    target: Started,
    /// What it has besides `System.Runtime`.
    provider: &'static str,
}

fn costs_of_targets(bench: &Bench, dnd: &Path, runtimes: &[Runtime]) -> Result<()> {
    println!(
        "What it costs an idle target to be watched every second; its CPU time and allocations in {} s, a minute's worth.\n",
        TARGET_WINDOW.as_secs()
    );
    println!(
        "| runtime | watched | CPU a minute | of a core | allocated a minute | once, at the start | a measurement |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut subjects = Vec::new();
    for runtime in runtimes {
        // Meters of one's own are from .NET 8 on, without packages.
        let (app, provider) =
            if runtime.major() < 8 { ("Counters", "Bench-Counters") } else { ("Meters", "Bench.Meter") };
        let target = Started::new(runtime.dotnet().arg(apps::ensure(bench, app)?))?;
        subjects.push(Subject { runtime, target, provider });
    }
    let mut rows = vec![String::new(); subjects.len()];
    let mut first = Vec::new();
    for watched in WATCHED {
        say(&format!("watched: {watched}"));
        thread::sleep(SETTLE);
        if watched == WATCHED[1] {
            let before = costs(&mut subjects)?;
            let watchers = watch(dnd, &subjects, watched)?;
            thread::sleep(WARM_UP);
            first = since(&costs(&mut subjects)?, &before);
            watchers.into_iter().try_for_each(Watcher::end)?;
        }
        let watchers = if watched == WATCHED[0] { Vec::new() } else { watch(dnd, &subjects, watched)? };
        let start = costs(&mut subjects)?;
        thread::sleep(TARGET_WINDOW);
        let spent = since(&costs(&mut subjects)?, &start);
        for ((subject, spent), (index, rows)) in
            subjects.iter_mut().zip(spent).zip(rows.iter_mut().enumerate())
        {
            let minute = spent.times(60.0 / TARGET_WINDOW.as_secs_f64());
            let once = match first.get(index).filter(|_| watched == WATCHED[1]) {
                Some(first) => {
                    let usual = spent.times(WARM_UP.as_secs_f64() / TARGET_WINDOW.as_secs_f64());
                    let once = first.since(usual);
                    format!("{:.0} ms, {:.0} KB", once.cpu_nanos / 1e6, once.bytes / 1e3)
                }
                None => String::new(),
            };
            // The first times are for compiling it.
            subject.target.ask("time")?;
            subject.target.ask("time")?;
            rows.push_str(&format!(
                "| {} | {watched} | {:.0} ms | {:.2} % | {:.0} KB | {once} | {} ns |\n",
                subject.runtime.version,
                minute.cpu_nanos / 1e6,
                minute.cpu_nanos / 6e8,
                minute.bytes / 1e3,
                subject.target.ask("time")?,
            ));
        }
        watchers.into_iter().try_for_each(Watcher::end)?;
    }
    print!("{}", rows.concat());
    Ok(())
}

/// Watches all of them, each with a `dnd` of its own; some intervals have passed when this returns.
fn watch(dnd: &Path, subjects: &[Subject<'_>], how: &str) -> Result<Vec<Watcher>> {
    let start = |subject: &Subject<'_>| {
        let mut command = Command::new(dnd);
        command.args(["counters", "monitor", "--json", "-p", &subject.target.pid().to_string()]);
        if how == WATCHED[2] {
            command.args(["--counters", &format!("System.Runtime,OS,cgroup,{}", subject.provider)]);
        }
        Watcher::start(command)
    };
    let mut watchers = subjects.iter().map(start).collect::<Result<Vec<_>>>()?;
    watchers.iter_mut().try_for_each(|watcher| watcher.read(DOCUMENTS))?;
    Ok(watchers)
}

fn costs(subjects: &mut [Subject<'_>]) -> Result<Vec<Cost>> {
    subjects.iter_mut().map(|subject| Cost::of(&mut subject.target)).collect()
}

fn since(now: &[Cost], before: &[Cost]) -> Vec<Cost> {
    now.iter().zip(before).map(|(now, before)| now.since(*before)).collect()
}

/// The ways to watch that are measured.
const WAYS: [(&str, &[&str]); 4] = [
    ("monitor", &["counters", "monitor"]),
    ("monitor, on a terminal", &["counters", "monitor"]),
    ("collect --format ndjson", &["counters", "collect", "--format", "ndjson", "-o", "-"]),
    ("export, asked every 5 s", &["counters", "export", "--prometheus"]),
];
const ON_TERMINAL: &str = WAYS[1].0;
const EXPORT: &str = WAYS[3].0;

fn own_costs(bench: &Bench, dnd: &Path, runtime: &Runtime) -> Result<()> {
    println!(
        "What it costs `dnd` to watch processes of .NET {} every second, with the default counters; {} s.\n",
        runtime.version,
        OWN_WINDOW.as_secs()
    );
    println!("| command | processes | CPU, of a core | peak RSS | anonymous |");
    println!("|---|---|---|---|---|");
    let app = apps::ensure(bench, "Counters")?;
    let mut targets = Vec::new();
    for count in [1, 10, 50] {
        while targets.len() < count {
            targets.push(Started::new(runtime.dotnet().arg(&app).env("DOTNET_gcServer", "0"))?);
        }
        say(&format!("{count} processes"));
        let pids: Vec<String> = targets.iter().map(|target| target.pid().to_string()).collect();
        for (name, words) in WAYS {
            if name == ON_TERMINAL && !run::exists("script") {
                say("skipped: a terminal, which needs the program `script`");
                continue;
            }
            let own = own_cost(dnd, name, words, &pids)?;
            println!(
                "| {name} | {count} | {:.2} % | {:.1} MB | {:.1} MB |",
                own.share * 100.0,
                own.peak_mb,
                own.anonymous_mb
            );
        }
    }
    Ok(())
}

struct Own {
    /// CPU time by time.
    share: f64,
    peak_mb: f64,
    anonymous_mb: f64,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn own_cost(dnd: &Path, name: &str, words: &[&str], pids: &[String]) -> Result<Own> {
    let mut arguments: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let port = if name == EXPORT { Some(free_port()?) } else { None };
    arguments.extend(port.map(|port| format!("127.0.0.1:{port}")));
    arguments.extend(["-p".to_owned(), pids.join(",")]);
    let mut watcher = if name == ON_TERMINAL {
        let line = format!("stty rows 50 cols 160; exec '{}' {}", dnd.display(), arguments.join(" "));
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("TERM", "xterm-256color");
        Watcher::start(command)?
    } else {
        let mut command = Command::new(dnd);
        command.args(&arguments);
        Watcher::start(command)?
    };
    watcher.drain();
    let started = Instant::now();
    loop {
        // Two sessions for each process.
        if process::sockets(watcher.dnd()) >= 2 * pids.len() {
            break;
        }
        if let Some(status) = watcher.child.try_wait()? {
            return Err(format!("dnd {} ended ({status})", arguments.join(" ")).into());
        }
        if started.elapsed() > START {
            return Err(format!("dnd {} did not start its sessions", arguments.join(" ")).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let pid = watcher.dnd();
    thread::sleep(SETTLE);
    let (cpu, start) = (process::cpu_nanos(pid)?, Instant::now());
    for half in 1..=2 {
        if let Some(port) = port {
            scrape(port)?;
        }
        thread::sleep((OWN_WINDOW * half / 2).saturating_sub(start.elapsed()));
    }
    let (cpu, time) = (process::cpu_nanos(pid)?.saturating_sub(cpu), start.elapsed());
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let own = Own {
        share: cpu as f64 / 1e9 / time.as_secs_f64(),
        peak_mb: process::kilobytes(&status, "VmHWM:") as f64 * 1.024 / 1e3,
        anonymous_mb: process::kilobytes(&status, "RssAnon:") as f64 * 1.024 / 1e3,
    };
    watcher.end()?;
    Ok(own)
}

/// A port that nobody listens on.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn scrape(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200 ") && answer.contains("\nOS_rss_bytes") {
        return Ok(());
    }
    Err(format!("a scrape was answered with {:?}", answer.lines().next()).into())
}

/// A `dnd` that watches.
struct Watcher {
    child: Child,
    shown: String,
    stdout: Option<BufReader<std::process::ChildStdout>>,
    draining: Option<thread::JoinHandle<()>>,
    in_terminal: bool,
}

impl Watcher {
    fn start(mut command: Command) -> Result<Self> {
        let shown = run::shown(&command);
        let in_terminal = command.get_program() == "script";
        let mut child = command
            // Kept open: `script` would pass its end on.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("can't run `{shown}`: {e}"))?;
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self { child, shown, stdout, draining: None, in_terminal })
    }

    /// The process id of `dnd`; while `script` is starting it, that of `script`.
    fn dnd(&self) -> u32 {
        let own = self.child.id();
        if self.in_terminal { process::child_of(own, "dnd").unwrap_or(own) } else { own }
    }

    /// Reads so many lines; the others are read by nobody's hand.
    fn read(&mut self, lines: usize) -> Result<()> {
        let mut line = String::new();
        for _ in 0..lines {
            line.clear();
            if let Some(stdout) = &mut self.stdout {
                stdout.read_line(&mut line)?;
            }
            if line.is_empty() {
                return Err(format!("`{}` ended", self.shown).into());
            }
        }
        self.drain();
        Ok(())
    }

    fn drain(&mut self) {
        self.draining = self.stdout.take().map(|mut stdout| {
            thread::spawn(move || {
                // Whatever ends it, its process is waited for.
                let _ = std::io::copy(&mut stdout, &mut std::io::sink());
            })
        });
    }

    fn end(mut self) -> Result<()> {
        run::quietly(Command::new("kill").arg(self.dnd().to_string()))?;
        let status = self.child.wait()?;
        if let Some(draining) = self.draining.take() {
            let _ = draining.join();
        }
        if status.success() { Ok(()) } else { Err(format!("`{}` ended ({status})", self.shown).into()) }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // After an error; one that has ended is left alone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
