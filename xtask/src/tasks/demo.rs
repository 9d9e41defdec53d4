//! `cargo xtask demo`: the leak hunt on a real .NET process, with nothing prepared.
//!
//! It starts a service that leaks, and then only does what its owner would: look with `dnd` at a process that is known
//! by its pid alone, and follow the numbers.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use xtask::runtimes::Runtime;
use xtask::target::Started;
use xtask::{Result, apps, run};

use super::bench::fetched;
use super::dist;

/// How long the counters are watched.
const WATCH: Duration = Duration::from_secs(6);

struct Leaking {
    /// `3.1` or `8`.
    runtime: &'static str,
    version: &'static str,
    app: &'static str,
    what: &'static str,
    /// The type that is found to leak, and the one that does so through an event.
    leaked: [&'static str; 2],
}

const LEAKING: [Leaking; 2] = [
    Leaking {
        runtime: "3.1",
        version: "3.1.2",
        app: "LeakWeb",
        what: "an ASP.NET Core service; a client calls its endpoint /api/diagscenario/memleak/200 again and again",
        leaked: ["LeakWeb.Purchase", "LeakWeb.PriceWatcher"],
    },
    Leaking {
        runtime: "8",
        version: "8.0.4",
        app: "Leak",
        what: "a console program that leaks a thousand orders at a time",
        leaked: ["Shop.Order", "Shop.PriceListener"],
    },
];

/// Shows the hunt.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let wanted = match args {
        [] => "3.1",
        [flag, runtime] if flag == "--runtime" => runtime,
        _ => return Err("usage: cargo xtask demo [--runtime 3.1|8]".into()),
    };
    let leaking = LEAKING.iter().find(|l| l.runtime == wanted).ok_or("--runtime is 3.1 or 8")?;
    let (bench, _) = fetched()?;
    let dnd = dist::build("release")?;
    let runtime = Runtime::find(&bench, leaking.version).ok_or("the bench lacks that runtime")?;
    let dll = apps::ensure(&bench, leaking.app)?;
    // The dump stays for those who want to look further; the next demo replaces it.
    let folder = bench.path("demo");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let demo = Demo { dnd, folder };

    title(&format!("On .NET {}: {}", leaking.version, leaking.what));
    let mut target = Started::new(runtime.dotnet().arg(dll).current_dir(&demo.folder).stderr(Stdio::null()))?;
    let pid = target.pid().to_string();

    title("Which .NET processes are there?");
    demo.dnd(&["ps"])?;

    title("Does its memory grow? (6 seconds; you would press q)");
    let mut monitor = vec!["counters", "monitor", "-p", &pid, "--refresh-interval", "1"];
    if !std::io::stdout().is_terminal() {
        // Not a screen but a line for every value: these will do.
        monitor.extend(["--counters", "gc-heap-size,working-set"]);
    }
    let mut counters = demo.start(&monitor)?;
    let outcome = drive(&mut target, &mut counters);
    interrupt(&mut counters)?;
    outcome?;

    title("All that is in its memory, into a file:");
    demo.dnd(&["dump", "collect", "-p", &pid])?;
    drop(target);

    title("What fills the heap? (the biggest last)");
    let stat = demo.quiet(&["dump", "analyze", "-c", "dumpheap -stat"])?;
    println!("{}", last_lines(&stat, 15));

    let mut found = Vec::new();
    for (n, name) in leaking.leaked.iter().enumerate() {
        let row = stat.lines().find(|line| line.split_whitespace().last() == Some(name));
        let row = row.ok_or_else(|| format!("`dumpheap -stat` has no row of {name}"))?;
        let mut words = row.split_whitespace();
        let (mt, count) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let and = if n == 0 { "" } else { "And " };
        title(&format!("{and}{count} {name}, a type of the program. Where are they?"));
        let list = demo.quiet(&["dump", "analyze", "-c", &format!("dumpheap -mt {mt}")])?;
        println!("{}", last_lines(&list, 8));
        let short = demo.quiet_silently(&["dump", "analyze", "-c", &format!("dumpheap -mt {mt} -short")])?;
        let address = short.split_whitespace().last().unwrap_or_default();
        title("Who keeps one of them?");
        let root = demo.quiet(&["dump", "analyze", "-c", &format!("gcroot -all {address}")])?;
        println!("{}", last_lines(&root, 24));
        let variable = root.split_once("(static variable: ").and_then(|(_, rest)| rest.split(')').next());
        let variable =
            variable.ok_or_else(|| format!("`gcroot` names no static variable that keeps a {name}"))?;
        found.push(format!("{count} {name} are kept by the static variable {variable}"));
    }
    title("So this is what grows:");
    println!("{}", found.join("\n"));
    println!("\nLook further yourself:  cd {} && {} dump analyze", demo.folder.display(), demo.dnd.display());
    Ok(())
}

struct Demo {
    dnd: PathBuf,
    folder: PathBuf,
}

impl Demo {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.dnd);
        command.args(args).current_dir(&self.folder);
        command
    }

    fn show(args: &[&str]) {
        let shown = run::shown(Command::new("dnd").args(args));
        println!("$ {}", shown.replace('\'', "\""));
    }

    /// Runs `dnd` as it is.
    fn dnd(&self, args: &[&str]) -> Result<()> {
        Self::show(args);
        run::loudly(&mut self.command(args))
    }

    /// Runs `dnd` and returns what it prints.
    fn quiet(&self, args: &[&str]) -> Result<String> {
        Self::show(args);
        self.quiet_silently(args)
    }

    fn quiet_silently(&self, args: &[&str]) -> Result<String> {
        run::output(&mut self.command(args))
    }

    fn start(&self, args: &[&str]) -> Result<Child> {
        Self::show(args);
        Ok(self.command(args).spawn()?)
    }
}

/// Has the target leak for a while, as its users would.
fn drive(target: &mut Started, counters: &mut Child) -> Result<()> {
    let port = target.number("port");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clock = scope.spawn(|| {
            std::thread::sleep(WATCH);
            over.store(true, Ordering::Relaxed);
        });
        let mut outcome = Ok(());
        while outcome.is_ok() && !over.load(Ordering::Relaxed) {
            if let Some(status) = counters.try_wait()? {
                outcome = Err(format!("`dnd counters monitor` ended by itself ({status})").into());
                break;
            }
            outcome = match port {
                Some(port) => get(port, "/api/diagscenario/memleak/200"),
                None => target.say("leak"),
            };
            std::thread::sleep(Duration::from_millis(200));
        }
        let _ = clock.join();
        outcome
    })
}

/// An HTTP request whose answer matters only if it is not `200 OK`.
fn get(port: u64, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(format!("the service said: {answer}").into())
    }
}

/// Ctrl-C. (The shell's own `kill`: there need be no program of this name.)
fn interrupt(child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_none() {
        run::quietly(Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]))?;
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("`dnd counters monitor` ended with {status}").into()) }
}

fn title(text: &str) {
    println!("\n── {text}");
}

fn last_lines(text: &str, n: usize) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    let first = lines.len().saturating_sub(n);
    let left_out = if first == 0 { String::new() } else { format!("    ... {first} lines left out ...\n") };
    left_out + &lines.get(first..).unwrap_or_default().join("\n")
}
