//! `cargo xtask bench`: how fast the shipped binary is, and how much memory it takes, on a real heap of 30 million
//! objects. Figures worth keeping go by hand, with machine and date, into docs/benchmarks.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xtask::bench::Bench;
use xtask::runtimes::Runtime;
use xtask::target::Started;
use xtask::{Result, apps, run};

use super::bench::fetched;
use super::{dist, process, say};

const RUNS: usize = 5;

/// Prints a table.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if args == ["counters"] {
        return super::measure_counters::run();
    }
    let (bench, _) = fetched()?;
    let version = ["8.0.33", "8.0.4"].into_iter().find_map(|version| Runtime::find(&bench, version));
    let runtime = version.ok_or("the bench has no .NET 8")?;
    let big = core(&bench, &runtime, "BigHeap", &[])?;
    let small = core(&bench, &runtime, "Leak", &[])?;
    let threads = core(&bench, &runtime, "Threads", &["14"])?;
    let crowd = core(&bench, &runtime, "Threads", &["500"])?;
    let dnd = dist::build("dist")?;

    let read = median((0..RUNS).map(|_| plain_read(&big.path)).collect::<Result<_>>()?);
    let bytes = fs::metadata(&big.path)?.len();
    println!(
        "Core: {bytes} bytes, {} objects, .NET {}. Median of {RUNS}, whole process, file in the page cache.",
        big.objects, runtime.version
    );
    println!(
        "Plain read of the same bytes: {:.3} s, {:.1} GB/s.\n",
        read.as_secs_f64(),
        gigabytes(bytes, read)
    );
    println!("| command | cores | wall | least | user+sys | peak RSS | anonymous | objects/s |");
    println!("|---|---|---|---|---|---|---|---|");

    let line_mt = method_table(&dnd, &big.path, "Big.Line")?;
    let middle_of = |core: &Path, name: &str| -> Result<String> {
        let mt = method_table(&dnd, core, name)?;
        middle_address(&dnd, core, &format!("dumpheap -mt {mt} -short"))
    };
    let line = middle_of(&big.path, "Big.Line")?;
    let order = middle_of(&big.path, "Big.Order")?;
    let leaf = middle_of(&big.path, "Big.Tree")?;
    let leaked = middle_of(&small.path, "Shop.Order")?;
    let dead = middle_address(&dnd, &big.path, "dumpheap -dead -short -type System.String")?;
    let root = format!("gcroot {order}");
    let deep_root = format!("gcroot {leaf}");
    let no_root = format!("gcroot {dead}");
    let small_root = format!("gcroot {leaked}");
    let small_exact = format!("gcroot -nostacks {leaked}");
    let rows = format!("dumpheap -mt {line_mt}");
    let object = format!("dumpobj {line}");
    let measured: [(&Path, &str, &str, u64); 15] = [
        (&big.path, "dumpheap -stat", "", big.objects),
        (&big.path, &root, " (an order in the middle)", 0),
        (&big.path, &deep_root, " (deep in a tree)", big.objects),
        (&big.path, &no_root, " (dead)", big.objects),
        (&big.path, "dumpheap -live -stat", " (marking)", big.objects),
        (&big.path, &rows, "", big.objects),
        (&big.path, "dumpheap -strings", "", big.objects),
        (&big.path, &object, "", 0),
        (&small.path, "dumpheap -stat", " (a small core)", 0),
        (&small.path, "eeversion", " (a small core)", 0),
        (&small.path, &small_root, " (a small core)", 0),
        (&small.path, &small_exact, " (a small core, without stacks)", 0),
        (&threads.path, "clrstack -all", " (14 threads)", 0),
        (&crowd.path, "clrstack -all", " (500 threads)", 0),
        (Path::new(""), "ps", " (live)", 0),
    ];
    let one_core = run::exists("taskset");
    for (core, what, note, objects) in measured {
        if !args.iter().all(|part| what.contains(part.as_str())) {
            continue;
        }
        for cores in if one_core { &["1", "all"][..] } else { &["all"] } {
            let mut words =
                if *cores == "1" { vec!["taskset".into(), "-c".into(), "0".into()] } else { Vec::new() };
            words.push(dnd.clone().into_os_string());
            if core.as_os_str().is_empty() {
                words.push(what.into());
            } else {
                words.extend([
                    "dump".into(),
                    "analyze".into(),
                    core.as_os_str().to_owned(),
                    "-c".into(),
                    what.into(),
                ]);
            }
            let command = || {
                let mut command = Command::new(words.first().cloned().unwrap_or_default());
                command
                    .args(words.iter().skip(1))
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                command
            };
            let once = measure(command())?;
            let mut walls: Vec<Duration> = (0..RUNS).map(|_| timed(command())).collect::<Result<_>>()?;
            walls.sort();
            let least = walls.first().copied().unwrap_or_default();
            let wall = median(walls);
            let rate = if objects == 0 {
                String::new()
            } else {
                format!("{:.1} M", per_second(objects, wall) / 1e6)
            };
            println!(
                "| `{what}`{note} | {cores} | {:.3} s | {:.3} s | {:.2} s | {} MB | {} MB | {rate} |",
                wall.as_secs_f64(),
                least.as_secs_f64(),
                once.cpu.as_secs_f64(),
                once.peak_kb / 1000,
                once.anonymous_kb / 1000,
            );
        }
    }
    Ok(())
}

struct Core {
    path: PathBuf,
    objects: u64,
}

/// The core of an app, made once by the runtime's own createdump (`--withheap`).
fn core(bench: &Bench, runtime: &Runtime, app: &str, args: &[&str]) -> Result<Core> {
    let dll = apps::ensure(bench, app)?;
    let name = dll.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let with: String = args.iter().map(|arg| format!("-{arg}")).collect();
    let dir = bench.path("bench-cores").join(format!("{name}{with}-{}", runtime.version));
    bench.install(&dir, |to| {
        say(&format!("making the core of {app} on {}", runtime.version));
        let target = Started::new(runtime.dotnet().arg(&dll).args(args))?;
        fs::write(to.join("truth.json"), &target.truth)?;
        let mut createdump = Command::new(runtime.createdump());
        run::quietly(
            createdump.arg("--withheap").arg("--name").arg(to.join("core")).arg(target.pid().to_string()),
        )
    })?;
    // All objects of BigHeap but some thousands: an order is itself, its list, the list's array and a boxed number.
    let truth = fs::read_to_string(dir.join("truth.json"))?;
    let number = |key: &str| -> u64 {
        let rest = truth.split_once(&format!("\"{key}\":")).map_or("", |(_, rest)| rest);
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let objects = match app {
        "BigHeap" => {
            4 * number("Big.Order")
                + number("Big.Line")
                + number("Big.Tag")
                + number("Big.Tree")
                + number("notes")
        }
        "Leak" => 3 * number("orders") + 3 * number("listeners"),
        _ => 0,
    };
    Ok(Core { path: dir.join("core"), objects })
}

fn plain_read(path: &Path) -> Result<Duration> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let start = Instant::now();
    while file.read(&mut buffer)? > 0 {}
    Ok(start.elapsed())
}

fn timed(mut command: Command) -> Result<Duration> {
    let start = Instant::now();
    run::loudly(&mut command)?;
    Ok(start.elapsed())
}

struct Once {
    cpu: Duration,
    peak_kb: u64,
    anonymous_kb: u64,
}

/// One run, watched through /proc: what the kernel counts of a process is there until it is reaped.
fn measure(mut command: Command) -> Result<Once> {
    let mut child = command.spawn()?;
    let (status, stat) = (format!("/proc/{}/status", child.id()), format!("/proc/{}/stat", child.id()));
    let (mut peak_kb, mut anonymous_kb) = (0, 0);
    let cpu = loop {
        let text = fs::read_to_string(&status)?;
        peak_kb = peak_kb.max(process::kilobytes(&text, "VmHWM:"));
        anonymous_kb = anonymous_kb.max(process::kilobytes(&text, "RssAnon:"));
        if text.contains("State:\tZ") {
            // Field 14 and 15 of stat (man proc): user and system time in ticks of 10 ms.
            let text = fs::read_to_string(&stat)?;
            let after_name = text.rsplit(')').next().unwrap_or_default();
            let ticks: u64 =
                after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
            break Duration::from_millis(ticks * 10);
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let status = child.wait()?;
    if status.success() {
        Ok(Once { cpu, peak_kb, anonymous_kb })
    } else {
        Err(format!("a run failed: {status}").into())
    }
}

/// The address in the middle of the list that `dnd` prints for a command.
fn middle_address(dnd: &Path, core: &Path, what: &str) -> Result<String> {
    let text = run::output(Command::new(dnd).args(["dump", "analyze"]).arg(core).args(["-c", what]))?;
    let address = |word: &&str| word.len() >= 8 && word.chars().all(|c| c.is_ascii_hexdigit());
    let all: Vec<&str> = text.split_whitespace().filter(address).collect();
    let middle = all.get(all.len() / 2).ok_or_else(|| format!("`{what}` lists no address"))?;
    Ok((*middle).to_owned())
}

/// The MT column of a type's row in `dumpheap -stat`.
fn method_table(dnd: &Path, core: &Path, name: &str) -> Result<String> {
    let text =
        run::output(Command::new(dnd).args(["dump", "analyze"]).arg(core).args(["-c", "dumpheap -stat"]))?;
    let row = text.lines().find(|line| line.split_whitespace().last() == Some(name));
    let mt = row.and_then(|row| row.split_whitespace().next());
    mt.map(Into::into).ok_or_else(|| format!("`dumpheap -stat` has no row of {name}").into())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn gigabytes(bytes: u64, time: Duration) -> f64 {
    per_second(bytes, time) / 1e9
}
