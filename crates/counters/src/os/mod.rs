//! The operating system's view of a process, beside the runtime's: it is there while the process is stopped, starved or
//! in a garbage collection, and it knows what a container's limits are.
//!
//! [`Probe`] reads a few files of `/proc` and of the cgroup file system, which costs the target nothing (but for PSS,
//! which is read rarely). Two providers come of it, `OS` and `cgroup`, with the counters of [`COUNTERS`].

mod cgroup;
mod process;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use crate::sample::{Sample, Series, SeriesKind, Source, Update, Value};
use crate::selection::Selection;
use crate::tags::Tags;

/// The providers that are read from the operating system.
pub const PROVIDERS: [&str; 2] = [OS, CGROUP];
const OS: &str = "OS";
const CGROUP: &str = "cgroup";

/// All counters: provider, name, unit, kind, and what it is.
pub const COUNTERS: [(&str, &str, &str, SeriesKind, &str); 17] = [
    (OS, "rss", "By", SeriesKind::Gauge, "memory that is resident, shared pages counted fully"),
    (OS, "rss-anonymous", "By", SeriesKind::Gauge, "memory that is resident and not of a file"),
    (
        OS,
        "pss",
        "By",
        SeriesKind::Gauge,
        "memory that is resident, shared pages counted by their share; every 10 s",
    ),
    (OS, "swap", "By", SeriesKind::Gauge, "memory that is swapped out"),
    (OS, "cpu", "%", SeriesKind::Gauge, "CPU time, of one core"),
    (OS, "threads", "", SeriesKind::Gauge, "threads"),
    (OS, "fds", "", SeriesKind::Gauge, "open file descriptors"),
    (OS, "major-faults", "", SeriesKind::Rate, "page faults that had to read from a disk"),
    (
        CGROUP,
        "memory",
        "By",
        SeriesKind::Gauge,
        "memory of all processes of the container, file cache included",
    ),
    (
        CGROUP,
        "memory-working-set",
        "By",
        SeriesKind::Gauge,
        "memory of the container without file cache that is not in use",
    ),
    (CGROUP, "memory-limit", "By", SeriesKind::Gauge, "what the container may use"),
    (CGROUP, "memory-used", "%", SeriesKind::Gauge, "working set, of the limit"),
    (
        CGROUP,
        "oom-kills",
        "",
        SeriesKind::Rate,
        "processes of the container that were killed for lack of memory",
    ),
    (CGROUP, "cpu", "%", SeriesKind::Gauge, "CPU time of the container, of one core"),
    (CGROUP, "cpu-limit", "", SeriesKind::Gauge, "cores that the container may use"),
    (CGROUP, "cpu-throttled", "ms", SeriesKind::Rate, "time for which the container was not let run"),
    (
        CGROUP,
        "cpu-throttled-periods",
        "%",
        SeriesKind::Gauge,
        "scheduling periods in which the container was not let run",
    ),
];

/// PSS walks all pages of the target under a lock that the target may want: rarely, and more rarely if it takes long.
const PSS_EVERY: Duration = Duration::from_secs(10);
const PSS_SLOW: Duration = Duration::from_millis(20);
const PSS_SLOW_EVERY: Duration = Duration::from_secs(120);

/// Numbers of one moment. What can't be read is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
struct Reading {
    process: Option<process::Reading>,
    cgroup: cgroup::Reading,
    fds: Option<u64>,
    pss: Option<u64>,
}

/// Reads the operating system's counters of one process.
#[derive(Debug)]
pub struct Probe {
    proc: PathBuf,
    cgroup: Option<cgroup::Group>,
    /// The series that were asked for, by their place in [`COUNTERS`].
    series: Vec<(usize, Arc<Series>)>,
    interval: f64,
    before: Option<(Instant, Reading)>,
    pss_due: Instant,
    /// When the process started: another one may get its id.
    started: Option<u64>,
}

impl Probe {
    /// A probe for process `pid`; `None` if nothing of the operating system is selected.
    #[must_use]
    pub fn new(pid: u32, selection: &Selection, interval: Duration, now: Instant) -> Option<Self> {
        Self::at(Path::new("/proc"), Path::new("/sys/fs/cgroup"), pid, selection, interval, now)
    }

    fn at(
        proc: &Path,
        cgroups: &Path,
        pid: u32,
        selection: &Selection,
        interval: Duration,
        now: Instant,
    ) -> Option<Self> {
        let series = |&(provider, name, unit, kind, what): &(&str, &str, &str, SeriesKind, &str)| Series {
            source: Source::Os,
            provider: provider.to_owned(),
            name: name.to_owned(),
            display_name: name.to_owned(),
            description: what.to_owned(),
            unit: unit.to_owned(),
            kind,
            tags: Tags::default(),
            meter_version: String::new(),
            meter_tags: Tags::default(),
            instrument_tags: Tags::default(),
            instrument_id: None,
        };
        let wanted = COUNTERS.iter().enumerate().filter(|(_, c)| selection.includes_system(c.0, c.1));
        let series: Vec<_> = wanted.map(|(place, counter)| (place, Arc::new(series(counter)))).collect();
        if series.is_empty() {
            return None;
        }
        let process = proc.join(pid.to_string());
        let cgroup = cgroup::Group::of(proc, cgroups, pid);
        Some(Self {
            proc: process,
            cgroup,
            series,
            interval: interval.as_secs_f64(),
            before: None,
            pss_due: now,
            started: None,
        })
    }

    /// Reads, and appends a sample for each counter that could be read.
    pub fn read(&mut self, now: Instant, unix_nanos: i64, updates: &mut Vec<Update>) {
        let reading = self.reading(now);
        for (place, series) in &self.series {
            let Some(value) = value(*place, &reading, self.before.as_ref(), now) else { continue };
            let value = match series.kind {
                SeriesKind::Rate => Value::Change { increment: Some(value), total: None },
                _ => Value::Gauge(value),
            };
            let series = Arc::clone(series);
            // It is not late before it is read again.
            let next = self.pss_due.saturating_duration_since(now).as_secs_f64();
            let interval = if series.name == "pss" { self.interval.max(next) } else { self.interval };
            updates.push(Update::Sample(Sample { series, unix_nanos, interval, value }));
        }
        self.before = Some((now, reading));
    }

    fn reading(&mut self, now: Instant) -> Reading {
        let text = |file: &str| text(&self.proc.join(file));
        let wants = |name: &str| self.series.iter().any(|(_, s)| s.provider == OS && s.name == name);
        let Some(process) = process::Reading::parse(&text("stat"), &text("status")) else {
            return Reading::default();
        };
        if *self.started.get_or_insert(process.started) != process.started {
            return Reading::default();
        }
        let mut reading = Reading {
            process: Some(process),
            cgroup: self.cgroup.as_ref().map(cgroup::Group::read).unwrap_or_default(),
            fds: if wants("fds") { process::fds(&self.proc) } else { None },
            pss: None,
        };
        if wants("pss") && now >= self.pss_due {
            let started = Instant::now();
            reading.pss = process::pss(&text("smaps_rollup"));
            let slow = started.elapsed() > PSS_SLOW;
            self.pss_due = now + if slow { PSS_SLOW_EVERY } else { PSS_EVERY };
        }
        reading
    }
}

/// What is in a file; nothing if it can't be read. A process's name, which need not be UTF-8, stands in some of them. And
/// some are looked for below the root of the process, where anything may be: a pipe that nobody writes to, a device.
fn text(path: &Path) -> String {
    const LONGEST: u64 = 1 << 20;
    let read = || -> io::Result<Vec<u8>> {
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(LONGEST).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The value of a counter of [`COUNTERS`]; amounts need a reading before.
#[expect(clippy::cast_precision_loss, reason = "bytes and counts")]
fn value(place: usize, now: &Reading, before: Option<&(Instant, Reading)>, time: Instant) -> Option<f64> {
    let (provider, name, ..) = COUNTERS.get(place)?;
    let number = |value: Option<u64>| value.map(|value| value as f64);
    // A counter that went back belongs to another process or cgroup.
    let grown = |get: &dyn Fn(&Reading) -> Option<u64>| {
        let (when, before) = before?;
        let seconds = time.saturating_duration_since(*when).as_secs_f64();
        Some((get(now)?.checked_sub(get(before)?)? as f64, seconds)).filter(|(_, seconds)| *seconds > 0.0)
    };
    let process = now.process.as_ref();
    let group = &now.cgroup;
    match (*provider, *name) {
        (OS, "rss") => number(process?.rss),
        (OS, "rss-anonymous") => number(process?.rss_anonymous),
        (OS, "pss") => number(now.pss),
        (OS, "swap") => number(process?.swap),
        (OS, "threads") => number(Some(process?.threads)),
        (OS, "fds") => number(now.fds),
        (OS, "cpu") => {
            let (micros, seconds) = grown(&|r| Some(r.process.as_ref()?.cpu_micros))?;
            Some(micros / 1e4 / seconds)
        }
        (OS, "major-faults") => grown(&|r| Some(r.process.as_ref()?.major_faults)).map(|(count, _)| count),
        (CGROUP, "memory") => number(group.memory),
        (CGROUP, "memory-working-set") => number(group.working_set()),
        (CGROUP, "memory-limit") => number(group.memory_limit),
        (CGROUP, "memory-used") => Some(number(group.working_set())? / number(group.memory_limit)? * 100.0),
        (CGROUP, "oom-kills") => grown(&|r| r.cgroup.oom_kills).map(|(count, _)| count),
        (CGROUP, "cpu") => {
            let (micros, seconds) = grown(&|r| r.cgroup.cpu_micros)?;
            Some(micros / 1e4 / seconds)
        }
        (CGROUP, "cpu-limit") => group.cpu_limit,
        (CGROUP, "cpu-throttled") => grown(&|r| r.cgroup.throttled_micros).map(|(micros, _)| micros / 1e3),
        (CGROUP, "cpu-throttled-periods") => {
            let (periods, _) = grown(&|r| r.cgroup.periods)?;
            let (throttled, _) = grown(&|r| r.cgroup.throttled_periods)?;
            if periods > 0.0 { Some(throttled / periods * 100.0) } else { Some(0.0) }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes files of a made-up machine.
    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn stat(cpu: u64, faults: u64) -> String {
        format!("7 (a) b) S 1 1 1 0 -1 0 0 0 {faults} 0 {cpu} {cpu} 0 0 20 0 23 0 100 0 0 0 0 0\n")
    }

    fn values(updates: &[Update]) -> Vec<(String, f64)> {
        let mut values = Vec::new();
        for update in updates {
            let Update::Sample(sample) = update else { panic!("{update:?}") };
            let name = format!("{} {}", sample.series.provider, sample.series.name);
            values.push((name, sample.value.headline().unwrap()));
        }
        values
    }

    #[test]
    fn a_container_with_cgroup_v2() {
        let (_scratch, root) = dnd_testkit::Dnd::scratch();
        let status = "Name:\ta\nVmRSS:\t  100 kB\nRssAnon:\t 60 kB\nVmSwap:\t 1 kB\nThreads:\t23\n";
        write(
            &root,
            &[
                ("proc/7/stat", &stat(100, 5)),
                ("proc/7/status", status),
                (
                    "proc/7/smaps_rollup",
                    "00-ff ---p\nRss: 100 kB\nPss:                  42 kB\nPss_Dirty: 1 kB\n",
                ),
                ("proc/7/fd/0", ""),
                ("proc/7/fd/1", ""),
                ("proc/7/cgroup", "0::/pod/app\n"),
                ("cg/cgroup.controllers", "cpu memory\n"),
                ("cg/pod/memory.max", "1000000\n"),
                ("cg/pod/cpu.max", "150000 100000\n"),
                ("cg/pod/app/memory.max", "max\n"),
                ("cg/pod/app/cpu.max", "max 100000\n"),
                ("cg/pod/app/memory.current", "600000\n"),
                ("cg/pod/app/memory.stat", "anon 1\ninactive_file 100000\nactive_file 5\n"),
                ("cg/pod/app/memory.events", "low 0\noom 1\noom_kill 1\n"),
                (
                    "cg/pod/app/cpu.stat",
                    "usage_usec 1000000\nnr_periods 10\nnr_throttled 5\nthrottled_usec 7000\n",
                ),
            ],
        );
        let selection = Selection::parse("OS,cgroup").unwrap();
        let (proc, cgroups) = (root.join("proc"), root.join("cg"));
        let start = Instant::now();
        let mut probe = Probe::at(&proc, &cgroups, 7, &selection, Duration::from_secs(2), start).unwrap();
        let mut updates = Vec::new();
        probe.read(start, 0, &mut updates);
        let own = |values: &[(&str, f64)]| -> Vec<(String, f64)> {
            values.iter().map(|&(name, value)| (name.to_owned(), value)).collect()
        };
        let first = values(&updates);
        let expected = [
            ("OS rss", 102_400.0),
            ("OS rss-anonymous", 61_440.0),
            ("OS pss", 43_008.0),
            ("OS swap", 1024.0),
            ("OS threads", 23.0),
            ("OS fds", 2.0),
            ("cgroup memory", 600_000.0),
            ("cgroup memory-working-set", 500_000.0),
            ("cgroup memory-limit", 1_000_000.0),
            ("cgroup memory-used", 50.0),
            ("cgroup cpu-limit", 1.5),
        ];
        assert_eq!(first, own(&expected));

        write(
            &root,
            &[
                ("proc/7/stat", &stat(150, 8)),
                (
                    "cg/pod/app/cpu.stat",
                    "usage_usec 2000000\nnr_periods 30\nnr_throttled 10\nthrottled_usec 9500\n",
                ),
                ("cg/pod/app/memory.events", "oom_kill 3\n"),
            ],
        );
        updates.clear();
        probe.read(start + Duration::from_secs(2), 0, &mut updates);
        let second = values(&updates);
        let changed: Vec<_> = second.into_iter().filter(|value| !first.contains(value)).collect();
        let expected = [
            // 50 + 50 ticks of 10 ms in 2 s.
            ("OS cpu", 50.0),
            ("OS major-faults", 3.0),
            ("cgroup oom-kills", 2.0),
            ("cgroup cpu", 50.0),
            ("cgroup cpu-throttled", 2.5),
            ("cgroup cpu-throttled-periods", 25.0),
        ];
        assert_eq!(changed, own(&expected));

        // Another process has got its id.
        write(&root, &[("proc/7/stat", &stat(150, 8).replace(" 100 ", " 101 "))]);
        updates.clear();
        probe.read(start + Duration::from_secs(4), 0, &mut updates);
        assert_eq!(updates, []);
    }

    #[test]
    fn a_container_with_cgroup_v1() {
        let (_scratch, root) = dnd_testkit::Dnd::scratch();
        let cgroup = "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n";
        write(
            &root,
            &[
                ("proc/7/stat", &stat(0, 0)),
                ("proc/7/cgroup", cgroup),
                // What a container sees: its own cgroup is mounted as the root of each hierarchy.
                ("proc/self/cgroup", cgroup),
                ("cg/memory/memory.usage_in_bytes", "3000\n"),
                ("cg/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("cg/memory/memory.stat", "total_inactive_file 1000\nhierarchical_memory_limit 4000\n"),
                ("cg/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
                ("cg/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
                ("cg/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ("cg/cpu,cpuacct/cpu.stat", "nr_periods 4\nnr_throttled 1\nthrottled_time 5000000\n"),
                ("cg/cpu,cpuacct/cpuacct.usage", "7000000\n"),
            ],
        );
        let group = cgroup::Group::of(&root.join("proc"), &root.join("cg"), 7).unwrap();
        let reading = group.read();
        let expected = cgroup::Reading {
            memory: Some(3000),
            inactive_file: Some(1000),
            memory_limit: Some(4000),
            oom_kills: Some(2),
            cpu_micros: Some(7000),
            cpu_limit: Some(0.5),
            periods: Some(4),
            throttled_periods: Some(1),
            throttled_micros: Some(5000),
        };
        assert_eq!(reading, expected);
    }

    #[test]
    fn files_that_are_none() {
        let (_scratch, root) = dnd_testkit::Dnd::scratch();
        let process = root.join("proc/7");
        let groups = process.join("root/sys/fs/cgroup");
        // As another container's, where the process can put there what it likes.
        write(
            &root,
            &[
                ("proc/7/status", "Name:\ta\nVmRSS:\t 100 kB\n"),
                ("proc/7/cgroup", "0::/../other\n"),
                ("proc/7/root/sys/fs/cgroup/memory.current", "600000\n"),
            ],
        );
        // Half of a letter, where the kernel cut the name.
        let half = [&b"7 (dienst \xc3) S"[..], stat(100, 5).split_once(" S").unwrap().1.as_bytes()].concat();
        fs::write(process.join("stat"), half).unwrap();
        let made = std::process::Command::new("mkfifo").arg(groups.join("memory.max")).status();
        assert!(made.unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", groups.join("cpu.max")).unwrap();
        let selection = Selection::parse("OS[rss],cgroup").unwrap();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut probe =
            Probe::at(&root.join("proc"), &root.join("cg"), 7, &selection, second, start).unwrap();
        let mut updates = Vec::new();
        probe.read(start, 0, &mut updates);
        let expected =
            [("OS rss", 102_400.0), ("cgroup memory", 600_000.0), ("cgroup memory-working-set", 600_000.0)];
        let expected: Vec<_> = expected.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(values(&updates), expected);
    }

    #[test]
    fn our_own_process() {
        let selection = Selection::parse("OS").unwrap();
        let now = Instant::now();
        let mut probe = Probe::new(std::process::id(), &selection, Duration::from_secs(1), now).unwrap();
        let mut updates = Vec::new();
        probe.read(now, 0, &mut updates);
        let values = values(&updates);
        let get = |name: &str| values.iter().find(|(n, _)| n == name).map(|&(_, value)| value).unwrap();
        assert!(get("OS rss") > 500_000.0 && get("OS rss-anonymous") <= get("OS rss"));
        assert!(get("OS threads") >= 1.0 && get("OS fds") >= 3.0);
        assert!(Probe::new(1, &Selection::parse("A").unwrap(), Duration::from_secs(1), now).is_none());
    }
}
