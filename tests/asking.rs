//! What tests of `dnd dump analyze` share: asking a core, and reading the answers.

use dnd_testkit::{Core, Dnd, must};
use serde_json::Value;

use super::DND;

/// The answers to some commands, as JSON.
pub(super) fn ask_all(core: &Core, commands: &[String]) -> Vec<Value> {
    let dnd = Dnd::new(DND).args(["dump", "analyze", "--json"]).arg(core.path());
    let output = dnd.stdin(commands.join("\n") + "\n").run();
    let answers: Vec<Value> =
        output.stdout.lines().map(|line| must(serde_json::from_str(line), line)).collect();
    assert_eq!(answers.len(), commands.len(), "{}", output.stderr);
    answers
}

/// The answer to a command, as JSON.
pub(super) fn ask(core: &Core, command: &str) -> Value {
    let output =
        Dnd::new(DND).args(["dump", "analyze", "--json", "-c", command]).arg(core.path()).run().success();
    must(serde_json::from_str(&output), output)
}

/// The answer to a command, as text.
pub(super) fn show(core: &Core, command: &str) -> String {
    Dnd::new(DND).args(["dump", "analyze", "-c", command]).arg(core.path()).run().success()
}

/// Code and error text of a command.
pub(super) fn refused(core: &Core, command: &str) -> (Option<i32>, String) {
    let output = Dnd::new(DND).args(["dump", "analyze"]).arg(core.path()).args(["-c", command]).run();
    (output.code, output.stderr)
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_else(|| panic!("no list: {value}"))
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}
