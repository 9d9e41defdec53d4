//! Control groups, versions 1 and 2: what a container uses and may use.
//!
//! Layout: `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/` of Linux.

use std::path::{Path, PathBuf};

use super::text;

/// Limits from here on mean "none" in version 1 (the largest number of pages).
const NO_LIMIT: u64 = 1 << 62;

/// The cgroup of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Group {
    /// One folder, and those above it up to the root of the file system.
    V2 {
        /// The process's own first.
        folders: Vec<PathBuf>,
    },
    /// A folder for each controller.
    V1 {
        /// Of the memory controller.
        memory: Option<PathBuf>,
        /// Of the cpu controller, and cpuacct, which is mounted with it.
        cpu: Option<PathBuf>,
    },
}

/// Numbers of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) memory: Option<u64>,
    pub(super) inactive_file: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    pub(super) oom_kills: Option<u64>,
    pub(super) cpu_micros: Option<u64>,
    pub(super) cpu_limit: Option<f64>,
    pub(super) periods: Option<u64>,
    pub(super) throttled_periods: Option<u64>,
    pub(super) throttled_micros: Option<u64>,
}

impl Reading {
    pub(super) fn working_set(&self) -> Option<u64> {
        Some(self.memory?.saturating_sub(self.inactive_file.unwrap_or(0)))
    }
}

impl Group {
    /// Finds the cgroup of a process; `None` where none is in sight.
    pub(super) fn of(proc: &Path, cgroups: &Path, pid: u32) -> Option<Self> {
        let text = |who: &str| text(&proc.join(who).join("cgroup"));
        let (its, ours) = (text(&pid.to_string()), text("self"));
        let lines = |text: &str| -> Vec<(String, String)> {
            let line = |line: &str| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                Some((controllers.to_owned(), path.to_owned()))
            };
            text.lines().filter_map(line).collect()
        };
        let (its, ours) = (lines(&its), lines(&ours));
        // The path is as seen from our cgroup namespace. Three places where its files may be: below the mount; at the
        // mount itself, if the process is where we are and only our own cgroup is mounted; in the process's own mounts.
        let own_mounts = proc.join(pid.to_string()).join("root/sys/fs/cgroup");
        let place = |hierarchy: &str, controllers: &str, path: &str, file: &str| -> Option<PathBuf> {
            let relative = path.trim_start_matches('/');
            let same = ours.iter().any(|(c, p)| c == controllers && p == path);
            let mut places = Vec::new();
            if !relative.split('/').any(|part| part == "..") {
                places.push(cgroups.join(hierarchy).join(relative));
            }
            if same {
                places.push(cgroups.join(hierarchy));
            }
            places.push(own_mounts.join(hierarchy));
            places.into_iter().find(|place| place.join(file).is_file())
        };
        let with =
            |wanted: &str| its.iter().find(|(controllers, _)| controllers.split(',').any(|c| c == wanted));
        if let Some((controllers, path)) = its.iter().find(|(controllers, _)| controllers.is_empty())
            && let Some(own) = place("", controllers, path, "memory.current")
        {
            let above =
                own.ancestors().take_while(|folder| folder.starts_with(cgroups) && *folder != cgroups);
            let mut folders: Vec<PathBuf> = above.map(Path::to_path_buf).collect();
            if folders.is_empty() {
                folders.push(own);
            }
            return Some(Self::V2 { folders });
        }
        let find = |wanted: &str, file: &str| {
            let (controllers, path) = with(wanted)?;
            place(controllers, controllers, path, file).or_else(|| place(wanted, controllers, path, file))
        };
        let memory = find("memory", "memory.usage_in_bytes");
        let cpu = find("cpu", "cpu.stat");
        if memory.is_none() && cpu.is_none() { None } else { Some(Self::V1 { memory, cpu }) }
    }

    /// Reads its numbers.
    pub(super) fn read(&self) -> Reading {
        match self {
            Self::V2 { folders } => {
                let Some(own) = folders.first() else { return Reading::default() };
                let text = |file: &str| read(own, file);
                let cpu = text("cpu.stat");
                // Whichever limit of those above is the lowest counts.
                let limits = folders.iter().filter_map(|folder| number(&read(folder, "memory.max")));
                let cores = folders.iter().filter_map(|folder| cores(&read(folder, "cpu.max")));
                Reading {
                    memory: number(&text("memory.current")),
                    inactive_file: keyed(&text("memory.stat"), "inactive_file"),
                    memory_limit: limits.min(),
                    oom_kills: keyed(&text("memory.events"), "oom_kill"),
                    cpu_micros: keyed(&cpu, "usage_usec"),
                    cpu_limit: cores.min_by(f64::total_cmp),
                    periods: keyed(&cpu, "nr_periods"),
                    throttled_periods: keyed(&cpu, "nr_throttled"),
                    throttled_micros: keyed(&cpu, "throttled_usec"),
                }
            }
            Self::V1 { memory, cpu } => {
                let mut reading = Reading::default();
                if let Some(folder) = memory {
                    let stat = read(folder, "memory.stat");
                    let limits = [
                        number(&read(folder, "memory.limit_in_bytes")),
                        keyed(&stat, "hierarchical_memory_limit"),
                    ];
                    reading.memory = number(&read(folder, "memory.usage_in_bytes"));
                    reading.inactive_file = keyed(&stat, "total_inactive_file");
                    reading.memory_limit =
                        limits.into_iter().flatten().min().filter(|&limit| limit < NO_LIMIT);
                    reading.oom_kills = keyed(&read(folder, "memory.oom_control"), "oom_kill");
                }
                if let Some(folder) = cpu {
                    let stat = read(folder, "cpu.stat");
                    let quota = format!(
                        "{} {}",
                        read(folder, "cpu.cfs_quota_us").trim(),
                        read(folder, "cpu.cfs_period_us")
                    );
                    reading.cpu_micros = number(&read(folder, "cpuacct.usage")).map(|nanos| nanos / 1000);
                    reading.cpu_limit = cores(&quota);
                    reading.periods = keyed(&stat, "nr_periods");
                    reading.throttled_periods = keyed(&stat, "nr_throttled");
                    reading.throttled_micros = keyed(&stat, "throttled_time").map(|nanos| nanos / 1000);
                }
                reading
            }
        }
    }
}

fn read(folder: &Path, file: &str) -> String {
    text(&folder.join(file))
}

/// A file with one number; `max` is none.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A file with a name and a number in each line.
fn keyed(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name))
        .and_then(|(_, n)| number(n))
}

/// Quota and period, both in µs; a quota of `max` or -1 is none.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a scheduling period")]
fn cores(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.trim().parse().ok()?);
    if period == 0 { None } else { Some(quota as f64 / period as f64) }
}
