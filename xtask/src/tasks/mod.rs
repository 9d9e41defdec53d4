//! One file per task or two.

pub(crate) mod bench;
pub(crate) mod demo;
pub(crate) mod dist;
pub(crate) mod fuzz;
pub(crate) mod measure;
pub(crate) mod measure_counters;
pub(crate) mod process;
pub(crate) mod test;

/// Progress of a task: on stderr.
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
