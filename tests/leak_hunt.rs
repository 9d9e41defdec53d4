//! docs/leak-hunt.md says what `dnd` really prints.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use dnd_testkit::{Dnd, Output, Redactor, Scratch, Screen, Step, Target, Transcript, must, runtime};
use nix::sys::signal::Signal;

use super::DND;
use super::ps::cmdline;

/// Rows and columns of the terminal in the document.
const TERMINAL: (u16, u16) = (50, 76);

/// Megabytes that the objects leaked take in each of the document's processes, at least.
const LEAKED: f64 = 40.0;

/// Numbers in lines with these are the runtime's business, not the program's.
const VARYING: [&str; 9] = [
    " System.String",
    " System.Byte[]",
    "Complete: ",
    "\tgc-heap-size\t",
    " (MB) ",
    " (B) ",
    " (%) ",
    " / 1 sec) ",
    // ... of active timers, of assemblies; ThreadPool ... count.
    "    Number of ",
];

#[test]
fn the_document_is_true() {
    let mut document = Transcript::open("docs/leak-hunt.md", Redactor::new(&VARYING));
    let mut walk: Option<Walk> = None;
    while let Some(step) = document.next_step() {
        let printed = if let Some(app) = step.command.strip_prefix("dotnet /app/") {
            document.forget();
            drop(walk.take());
            let Some(started) = Walk::start(app) else { return };
            walk.insert(started).target.stdout()
        } else {
            walk.as_mut().expect("a process").run(&step, &document)
        };
        document.printed(&step, &printed);
    }
    document.close();
}

/// A process that leaks, and the folder where its owner works.
struct Walk {
    target: Target,
    folder: PathBuf,
    /// Removes it.
    _scratch: Scratch,
    /// What stands here, and what stands for it in the document.
    paths: Vec<(String, &'static str)>,
    monitor: Option<Screen>,
}

impl Walk {
    /// `NAME.dll ARGUMENTS`
    fn start(app: &str) -> Option<Self> {
        let (name, arguments) = app.split_once(".dll").expect("an app");
        let runtime = runtime(if name == "LeakWeb" { "3.1.2" } else { "8.0.4" })?;
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        let target = Target::spawn(&runtime, name, &arguments);
        let (scratch, folder) = Dnd::scratch();
        let dll = cmdline(target.pid()).swap_remove(1);
        let paths = vec![
            (runtime.host().display().to_string(), "/usr/share/dotnet/dotnet"),
            (dll.trim_end_matches(&format!("{name}.dll")).to_owned(), "/app/"),
            (format!("{}/", folder.display()), "/dumps/"),
        ];
        Some(Self { target, folder, _scratch: scratch, paths, monitor: None })
    }

    fn dnd(&self) -> Dnd {
        Dnd::new(DND).dir(&self.folder)
    }

    /// What a command of the document prints.
    fn run(&mut self, step: &Step, document: &Transcript) -> String {
        let printed = match step.command.as_str() {
            "quit" => String::new(),
            // As a prompt prints it. (At a real one it could not be told where the answer ends.)
            command if step.at_prompt => answer(self.dnd().args(["dump", "analyze", "-c", command]).run()),
            "dnd ps" => self.only_row(&self.dnd().arg("ps").run().success()),
            "dnd dump analyze" => self.dnd().args(["dump", "analyze"]).run().stderr,
            command if command.starts_with("for i in $(seq ") => self.visit(command),
            "screen" => {
                let mut monitor = self.monitor.take().expect("a monitor");
                let text = monitor
                    .wait_until(|text| text.lines().any(|l| heap(l) >= LEAKED) && document.shows(step, text));
                monitor.keys("q");
                assert!(monitor.wait_end().success());
                text
            }
            command => {
                let arguments = words(command.strip_prefix("dnd ").unwrap_or_else(|| panic!("`{command}`?")));
                let dnd = self.dnd().args(&arguments);
                match arguments[1].as_str() {
                    "monitor" if arguments.iter().any(|a| a == "--counters") => self.watch(dnd),
                    "monitor" => {
                        let monitor = dnd.pty(TERMINAL.0, TERMINAL.1);
                        let all = |text: &str| text.contains("GC Heap Size") && document.shows(step, text);
                        let text = monitor.wait_until(all);
                        self.monitor = Some(monitor);
                        text
                    }
                    _ => answer(dnd.run()),
                }
            }
        };
        self.paths.iter().fold(printed, |text, (here, there)| text.replace(here, there))
    }

    /// The target's row of `dnd ps`, as it is when there is no other process.
    fn only_row(&self, table: &str) -> String {
        let pid = self.target.pid().to_string();
        let row = table.lines().find(|line| line.split_whitespace().next() == Some(&pid)).expect("its row");
        let cells = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        format!(" {}", cells.collect::<Vec<_>>().join("  "))
    }

    /// The loop of the document.
    fn visit(&self, command: &str) -> String {
        let number = |before: &str, after| {
            let rest = command.split_once(before).expect(before).1;
            rest.split_once(after).expect(command).0
        };
        let count: u32 = must(number("seq ", ')').parse(), command);
        let port: u16 = must(number("127.0.0.1:", '/').parse(), command);
        let path = number(&port.to_string(), ';');
        for _ in 0..count {
            let mut stream = must(TcpStream::connect(("127.0.0.1", port)), command);
            must(write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), path);
            let mut answer = String::new();
            must(stream.read_to_string(&mut answer), path);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        String::new()
    }

    /// Two samples: before and after more has leaked.
    fn watch(&mut self, dnd: Dnd) -> String {
        let monitor = dnd.spawn();
        let sample = |from: f64| {
            let lines = |text: &str| {
                text.split_inclusive('\n')
                    .filter(|l| l.ends_with('\n'))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            monitor.wait_stdout(|text| lines(text).into_iter().find(|line| heap(line) >= from))
        };
        let first = sample(0.1);
        self.target.ask("leak", "leaked ");
        let second = sample(LEAKED);
        monitor.signal(Signal::SIGINT);
        monitor.wait().success();
        first + &second
    }
}

/// What it printed: its error too if it failed, for the comparison to fail with it.
fn answer(output: Output) -> String {
    if output.code == Some(0) { output.stdout } else { output.stdout + &output.stderr }
}

/// The size of the heap, if the line is of that.
fn heap(line: &str) -> f64 {
    let value = line.split_once("gc-heap-size").or_else(|| line.split_once("GC Heap Size (MB)"));
    let number = value.and_then(|(_, rest)| rest.split_whitespace().next()?.replace(',', "").parse().ok());
    number.unwrap_or(0.0)
}

/// A command line in words; quotes keep them together.
fn words(line: &str) -> Vec<String> {
    let pieces = line.split('"').enumerate();
    pieces
        .flat_map(|(n, piece)| if n % 2 == 1 { vec![piece] } else { piece.split_whitespace().collect() })
        .map(str::to_owned)
        .collect()
}
