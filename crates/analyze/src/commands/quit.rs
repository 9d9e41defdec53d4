//! `quit`.

use crate::session::Flow;
use crate::table::Command;

pub(crate) static COMMAND: Command = Command {
    names: &["exit", "quit", "q"],
    operands: "",
    max_operands: 0,
    options: &[],
    summary: "Ends the session.",
    about: "",
    run: |_| Ok(Flow::Quit),
};
