//! A command that an alert runs.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use dnd_contract::escape;
use dnd_counters::alerts::{Fired, Outcome};

use super::targets::Subject;

/// This program, even when its file was replaced or removed.
const OURSELVES: &str = "/proc/self/exe";

/// How much of what a command printed is kept: its end.
const OUTPUT: usize = 4096;
/// How long the output may take to end once the command has: what it left running may keep it open.
const OUTPUT_WITHIN: Duration = Duration::from_millis(500);
/// The longest value of an environment variable: the system refuses to start programs with too much of it.
const VALUE: usize = 4096;

/// A command with its placeholders.
#[derive(Debug, Clone)]
pub(super) struct Action {
    words: Vec<String>,
    /// Whether it is this program.
    ourselves: bool,
}

/// What is known of an alert when its action starts.
#[derive(Debug, Clone)]
pub(super) struct Alarm {
    pid: String,
    counter: String,
    value: String,
    environment: [(&'static str, String); 7],
}

/// Where commands may print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputTo {
    /// Our standard error: standard output is data.
    Stderr,
    /// Nowhere: the terminal is ours. What they print last is kept and told.
    Kept,
}

impl Alarm {
    pub(super) fn new(subject: &Subject, fired: &Fired) -> Self {
        let (pid, value) = (subject.pid.to_string(), fired.value.to_string());
        let series = &*fired.series;
        // Texts of the target go where nothing reads them as a command, and can't steer a terminal there.
        let own = |text: &str| escape(text).chars().take(VALUE).collect::<String>();
        let environment = [
            ("DND_ALERT_PID", pid.clone()),
            ("DND_ALERT_PROCESS", own(&subject.name)),
            ("DND_ALERT_CONDITION", own(fired.rule.text())),
            ("DND_ALERT_COUNTER", own(&format!("{}[{}]", series.provider, series.name))),
            ("DND_ALERT_TAGS", own(series.tags.text())),
            ("DND_ALERT_VALUE", value.clone()),
            ("DND_ALERT_UNIT", own(&series.unit)),
        ];
        Self { pid, counter: fired.rule.counter().to_owned(), value, environment }
    }

    /// A word with its placeholders filled in; other braces stay.
    fn fill(&self, word: &str) -> String {
        let mut out = String::new();
        let mut rest = word;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let places = [("pid}", &self.pid), ("counter}", &self.counter), ("value}", &self.value)];
            match places.iter().find_map(|(name, value)| Some((after.strip_prefix(name)?, value))) {
                Some((after, value)) => {
                    out.push_str(value);
                    rest = after;
                }
                None => {
                    out.push('{');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}

impl Action {
    /// A program and its arguments.
    pub(super) fn exec(text: &str) -> Result<Self, String> {
        let words = dnd_analyze::words(text).map_err(|error| error.to_string())?;
        if words.first().is_none_or(String::is_empty) {
            return Err("there is no command".to_owned());
        }
        Ok(Self { words, ourselves: false })
    }

    /// A command of this program. That it can be understood is seen now, and not at three in the morning.
    pub(super) fn then(text: &str) -> Result<Self, String> {
        let Self { mut words, .. } = Self::exec(text)?;
        if words.first().is_some_and(|word| word == "dnd") {
            words.remove(0);
        }
        let example = Alarm {
            pid: "1".to_owned(),
            counter: "gc-heap-size".to_owned(),
            value: "1".to_owned(),
            environment: Default::default(),
        };
        let understood = |words: &[String]| {
            let filled = words.iter().map(|word| example.fill(word));
            crate::Cli::try_parse_from(std::iter::once("dnd".to_owned()).chain(filled)).map(drop)
        };
        let with_process: Vec<String> =
            words.iter().cloned().chain(["-p".to_owned(), "{pid}".to_owned()]).collect();
        let own_arguments = words.iter().any(|word| word == "--");
        if !own_arguments && understood(&with_process).is_ok() {
            words = with_process;
        } else if let Err(error) = understood(&words) {
            return Err(match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => "it only prints help".to_owned(),
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "the subcommand is missing".to_owned(),
                _ => {
                    let text = error.to_string();
                    let reason = text.lines().next().unwrap_or_default();
                    reason.strip_prefix("error: ").unwrap_or(reason).to_owned()
                }
            });
        }
        Ok(Self { words, ourselves: true })
    }

    fn filled(&self, alarm: &Alarm) -> Vec<String> {
        self.words.iter().map(|word| alarm.fill(word)).collect()
    }

    /// The command as one would type it.
    pub(super) fn shown(&self, alarm: &Alarm) -> String {
        self.joined(self.filled(alarm))
    }

    /// The same with its placeholders.
    pub(super) fn template(&self) -> String {
        self.joined(self.words.clone())
    }

    fn joined(&self, words: Vec<String>) -> String {
        let quoted = |word: String| match word.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'')
        {
            false if !word.is_empty() => word,
            _ if word.contains('\'') => format!("\"{word}\""),
            _ => format!("'{word}'"),
        };
        let ourselves = if self.ourselves { Some("dnd".to_owned()) } else { None };
        ourselves.into_iter().chain(words.into_iter().map(quoted)).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end, and calls `started` once it is started; gives what it came to, and the end of what it printed if that is kept.
    pub(super) fn run(&self, alarm: &Alarm, to: OutputTo, started: impl FnOnce()) -> (Outcome, String) {
        let mut outcome = Outcome { command: self.shown(alarm), exit_code: None, signal: None, error: None };
        match self.execute(alarm, to, started) {
            Ok((status, output)) => {
                (outcome.exit_code, outcome.signal) = (status.code(), status.signal());
                (outcome, output)
            }
            Err(error) => {
                outcome.error = Some(error.to_string());
                (outcome, String::new())
            }
        }
    }

    fn execute(
        &self,
        alarm: &Alarm,
        to: OutputTo,
        started: impl FnOnce(),
    ) -> io::Result<(std::process::ExitStatus, String)> {
        let words = self.filled(alarm);
        let mut command = match words.split_first() {
            _ if self.ourselves => {
                let mut command = Command::new(OURSELVES);
                command.arg0("dnd").args(&words);
                command
            }
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        command.stdin(Stdio::null()).envs(alarm.environment.iter().map(|(name, value)| (name, value)));
        // Ctrl-C is for this program.
        command.process_group(0);
        match to {
            OutputTo::Stderr => {
                command.stdout(io::stderr()).stderr(Stdio::inherit());
                let mut child = command.spawn()?;
                started();
                Ok((child.wait()?, String::new()))
            }
            OutputTo::Kept => {
                let (reader, writer) = io::pipe()?;
                command.stdout(writer.try_clone()?).stderr(writer);
                let mut child = command.spawn()?;
                started();
                // The command's own ends of the pipe must be the only ones.
                drop(command);
                let (output, ended) = tail(reader);
                let status = child.wait()?;
                let _ = ended.recv_timeout(OUTPUT_WITHIN);
                let output = output.lock().unwrap_or_else(PoisonError::into_inner);
                Ok((status, String::from_utf8_lossy(&output).trim_end().to_owned()))
            }
        }
    }
}

/// The end of what is read, as far as it has come.
type Tail = Arc<Mutex<Vec<u8>>>;

/// Reads on a thread of its own. The receiver hears of the end.
fn tail(mut reader: impl Read + Send + 'static) -> (Tail, Receiver<()>) {
    let (sender, ended) = channel();
    let tail = Tail::default();
    let kept = Arc::clone(&tail);
    std::thread::spawn(move || {
        let mut buffer = [0; OUTPUT];
        loop {
            let got = reader.read(&mut buffer).unwrap_or(0);
            let mut last = kept.lock().unwrap_or_else(PoisonError::into_inner);
            last.extend_from_slice(buffer.get(..got).unwrap_or_default());
            let from = last.len().saturating_sub(OUTPUT);
            last.drain(..from);
            if got == 0 {
                break;
            }
        }
        let _ = sender.send(());
    });
    (tail, ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm() -> Alarm {
        let environment = Default::default();
        Alarm { pid: "7".into(), counter: "a b[c]".into(), value: "0.5".into(), environment }
    }

    #[test]
    fn placeholders() {
        let shown = |text| Action::exec(text).map(|action| action.shown(&alarm()));
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(shown("notify {pid} {value}{pid}"), ok("notify 7 0.57"));
        // What is filled in stays one word, and is not filled again.
        assert_eq!(shown("notify {counter} '' \"it's\""), ok("notify 'a b[c]' '' \"it's\""));
        assert_eq!(shown("curl -d '{\"pid\":{pid}}' {x} {PID} {"), ok("curl -d '{\"pid\":7}' {x} {PID} {"));
        assert_eq!(shown("echo $HOME; *"), ok("echo $HOME; *"));
        for bad in ["", "  ", "''", "a 'b"] {
            assert!(Action::exec(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_of_this_program() {
        let shown = |text| Action::then(text).map(|action| action.shown(&alarm()));
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(shown("dnd dump collect"), ok("dnd dump collect -p 7"));
        assert_eq!(shown("dump collect --type heap"), ok("dnd dump collect --type heap -p 7"));
        assert_eq!(shown("dnd dump collect -p {pid} -o /d/{pid}"), ok("dnd dump collect -p 7 -o /d/7"));
        assert_eq!(shown("dnd dump collect -n Shop"), ok("dnd dump collect -n Shop"));
        assert_eq!(shown("dnd ps"), ok("dnd ps"));
        for (bad, reason) in [
            ("dnd", "subcommand"),
            ("dnd dump collect --help", "help"),
            ("dnd dump colect", "colect"),
            ("dnd dump collect -p x", "x"),
            ("dnd dump collect --type Fuller", "Fuller"),
            ("", "no command"),
        ] {
            let said = shown(bad).expect_err(bad);
            assert!(said.contains(reason), "{bad}: {said}");
        }
    }

    #[test]
    fn what_commands_come_to() {
        let run = |text: &str| {
            let (outcome, output) =
                Action::exec(text).expect("a command").run(&alarm(), OutputTo::Kept, || ());
            (outcome.exit_code, outcome.signal, outcome.error.is_some(), output)
        };
        assert_eq!(run("true"), (Some(0), None, false, String::new()));
        assert_eq!(run("sh -c 'echo a; echo b >&2; exit 3'"), (Some(3), None, false, "a\nb".to_owned()));
        assert_eq!(run("sh -c 'kill -9 $$'"), (None, Some(9), false, String::new()));
        assert_eq!(run("/nonexistent/program"), (None, None, true, String::new()));
        let (.., long) = run("sh -c 'yes | head -c 100000; echo end'");
        assert!(long.len() <= OUTPUT && long.ends_with("y\nend"), "{long}");
    }
}
