//! `help`.

use serde::Serialize;

use crate::args::Value;
use crate::error::Error;
use crate::out::Out;
use crate::session::{Call, Facts, Flow};
use crate::table::{COMMANDS, Command, find};

pub(crate) static COMMAND: Command = Command {
    names: &["help", "soshelp"],
    operands: "[<command>]",
    max_operands: 1,
    options: &[],
    summary: "Lists the commands, or tells of one.",
    about: "",
    run,
};

/// Everything there is to know of commands.
#[derive(Debug, Serialize)]
struct Help {
    commands: Vec<Entry>,
    #[serde(skip)]
    detailed: bool,
}

#[derive(Debug, Serialize)]
struct Entry {
    names: &'static [&'static str],
    usage: String,
    summary: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    about: &'static str,
    options: Vec<OptionEntry>,
    #[serde(skip)]
    operands: &'static str,
}

#[derive(Debug, Serialize)]
struct OptionEntry {
    names: &'static [&'static str],
    value: Option<&'static str>,
    help: &'static str,
}

impl Entry {
    fn new(command: &Command) -> Self {
        let value = |value| match value {
            Value::None => None,
            Value::Word(what) => Some(what),
        };
        let option =
            |o: &crate::args::Opt| OptionEntry { names: o.names, value: value(o.value), help: o.help };
        Entry {
            names: command.names,
            usage: command.usage(),
            summary: command.summary,
            about: command.about,
            options: command.options.iter().map(option).collect(),
            operands: command.operands,
        }
    }
}

fn run(call: &mut Call<'_, '_>) -> Result<Flow, Error> {
    let one = call.args.operands().first().map(|name| find(name)).transpose()?;
    let detailed = one.is_some();
    let mut commands: Vec<Entry> = match one {
        Some(command) => vec![Entry::new(command)],
        None => COMMANDS.iter().map(|command| Entry::new(command)).collect(),
    };
    commands.sort_by_key(|entry| entry.names.first());
    call.emit("help", 1, &Help { commands, detailed })
}

impl Facts for Help {
    fn text(&self, out: &mut Out<'_>) {
        if self.detailed {
            self.commands.iter().for_each(|entry| entry.text(out));
            return;
        }
        let left =
            |entry: &Entry| format!("{} {}", entry.names.join(", "), entry.operands).trim_end().to_owned();
        let width = self.commands.iter().map(|entry| left(entry).len()).max().unwrap_or(0);
        for entry in &self.commands {
            out.left(&left(entry), width + 2);
            out.line(entry.summary);
        }
        out.end();
        out.line("`help <command>` tells of one. `<command> | <shell command>` pipes the output (`dumpheap -stat | tail`).");
    }
}

impl Entry {
    fn text(&self, out: &mut Out<'_>) {
        out.line(self.summary);
        out.end();
        out.field("Usage:", 10, &self.usage);
        if let [_, aliases @ ..] = self.names
            && !aliases.is_empty()
        {
            out.field("Aliases:", 10, &aliases.join(", "));
        }
        if !self.options.is_empty() {
            out.line("Options:");
        }
        let left = |option: &OptionEntry| {
            let names: Vec<String> = option.names.iter().map(|name| format!("-{name}")).collect();
            let value = option.value.map(|what| format!(" <{what}>")).unwrap_or_default();
            names.join(", ") + &value
        };
        let width = self.options.iter().map(|option| left(option).len()).max().unwrap_or(0);
        for option in &self.options {
            out.blanks(2);
            out.left(&left(option), width + 2);
            out.line(option.help);
        }
        if !self.about.is_empty() {
            out.end();
            out.line(self.about.trim_end());
        }
    }
}
