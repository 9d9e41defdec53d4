//! The commands of `dnd dump analyze`.
//!
//! You supply a [`dnd_clr::Runtime`]; a [`Session`] runs command lines such as `dumpheap -stat` and writes each one's
//! answer, as text in dotnet-dump's words or as a JSON document, to whatever [`std::io::Write`] it is given. Both come
//! from the same facts. A command is one row of [`COMMANDS`]: names, options, help, and the function that answers.
//!
//! Long listings are written row by row through [`Out`], which formats numbers by hand; nothing is kept of a row.
//! The crate never prints, asks no terminal and ends no process: that is the binary's part.

mod args;
mod collections;
mod commands;
mod complete;
mod delegates;
mod error;
pub mod info;
mod inspect;
mod managed;
mod out;
mod pool;
mod session;
mod similar;
mod statics;
mod statistics;
mod table;
mod tasks;

pub use args::{Args, Opt, Value, split_pipe, words};
pub use error::Error;
pub use out::Out;
pub use session::{Answer, Flow, Format, Session};
pub use statistics::{TypeLine, TypeLines};
pub use table::{COMMANDS, Command, find};
