//! What the kernel counts of a running process. Layout: proc(5).

use std::fs;

use xtask::Result;

/// The number in a line of `/proc/PID/status`, such as `VmHWM:    100 kB`; 0 where there is none.
pub(crate) fn kilobytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// CPU time of all threads that a process has now, in nanoseconds (`stat` only knows ticks of 10 ms). What threads that
/// have ended used is not in it.
pub(crate) fn cpu_nanos(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// How many of its file descriptors are sockets.
pub(crate) fn sockets(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let target = |file: fs::DirEntry| fs::read_link(file.path()).ok();
    files.filter_map(target).filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The process of this name that another one has started.
pub(crate) fn child_of(parent: u32, name: &str) -> Option<u32> {
    let parent = parent.to_string();
    fs::read_dir("/proc").into_iter().flatten().flatten().find_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // `PID (NAME) STATE PPID`, where the name may hold anything.
        let (_, after) = stat.split_once('(')?;
        let (found, rest) = after.rsplit_once(')')?;
        let is_it = found == name && rest.split_whitespace().nth(1) == Some(parent.as_str());
        if is_it { entry.file_name().to_str()?.parse().ok() } else { None }
    })
}
