//! What the tests of `dnd` are made of: real .NET runtimes, real processes on them, real core dumps of these, an
//! independent oracle, the `dnd` binary as a user runs it, and a terminal to run it in.
//!
//! ```no_run
//! use dnd_testkit::{CoreSpec, Dnd, Target, core, runtimes};
//!
//! for runtime in runtimes() {
//!     // A live process, known by construction: `truth` is what the app itself printed.
//!     let target = Target::spawn(&runtime, "Leak", &["1000", "100"]);
//!     let pid = target.pid().to_string();
//!     let orders = target.truth()["orders"].as_u64();
//!     let ps = Dnd::new("path/of/dnd").args(["ps"]).run().success();
//!     assert!(ps.contains(&pid) && orders == Some(1000));
//!
//!     // A core of such a process, made once and kept in the bench.
//!     let core = core(&runtime, "Leak", &CoreSpec::default());
//!     Dnd::new("path/of/dnd").args(["dump", "analyze"]).arg(core.path()).args(["-c", "eeversion"]).run().success();
//! }
//! ```
//!
//! Everything here fails by panicking with a sentence: it runs in tests only. What is not on this machine (the folder
//! `../shared` beside the checkout, for example) is skipped through [`skip`], which `cargo xtask test` sums up at its
//! end; the runtimes of the public registries are never skipped there.
//!
//! No function waits by sleeping for a guessed time: they wait for a line, an end or a screen, with a deadline that
//! only a broken test reaches.
#![expect(clippy::print_stderr, reason = "tests say on stderr what they skip")]

mod bench;
mod command;
mod cores;
mod lines;
pub mod nettrace;
mod oracle;
mod pty;
mod redact;
mod single_file;
mod target;
mod transcript;

pub use bench::{app, bench, must, one_per_major, python_packages, runtime, runtimes, skip};
pub use command::{Dnd, Output, Running};
pub use cores::{
    By, Core, CoreSpec, Kind, SharedCore, core, crash_core, kernel_cores, shared_core, shared_cores,
    single_file_core,
};
pub use oracle::{entries_oracle, loader_oracle, oracle, oracle_for};
pub use pty::{Key, Screen};
pub use redact::Redactor;
pub use single_file::{SingleFile, single_file_cores, single_files};
pub use target::{Target, TargetBuilder};
pub use transcript::{Step, Transcript};
pub use xtask::bench::{Bench, Scratch};
pub use xtask::runtimes::Runtime;

use std::time::Duration;

/// How long anything may take before a test gives up. Only a broken test waits that long, so it is generous.
pub const DEADLINE: Duration = Duration::from_secs(60);
