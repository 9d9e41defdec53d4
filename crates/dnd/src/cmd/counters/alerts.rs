//! Alerts: their options, and the actions that are started when one fires.
//!
//! Actions run beside the sampling, on threads of their own: sessions must be read all the time. They are not children
//! of the terminal's job: Ctrl-C ends the watching, and half a dump is of no use.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dnd_contract::{Kind, escape};
use dnd_counters::alerts::{Decision, Engine, Event, Facts, Outcome, Rule, Settings, What, facts};
use dnd_counters::{Selection, Update, parse_duration, rfc3339};
use tokio::sync::mpsc;

use super::action::{Action, Alarm, OutputTo};
use super::signals::Signals;
use super::targets::Subject;
use super::unix_nanos_now;
use super::writer::say;
use crate::error::CliError;

/// Options of alerts.
#[derive(Debug, clap::Args)]
pub(super) struct AlertArgs {
    /// Condition to watch for, as in 'gc-heap-size>500MB for 30s'; may be given several times
    ///
    /// `COUNTER OPERATOR NUMBER[UNIT][/s] [for TIME]`. The counter is `PROVIDER[COUNTER]` or a well-known name such as
    /// gc-heap-size, cpu-usage or rss, with tags behind it if wanted: `My.Meter[orders]{shop=eu}`, and `{Percentile=95}`
    /// for a histogram. Operators are >, >=, < and <=. Units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB, %, ns, us, ms, s,
    /// min and h, with /s for the amount in a second; a plain number is in the counter's own unit.
    #[arg(long = "alert", value_name = "CONDITION", value_parser = Rule::parse)]
    pub(super) rules: Vec<Rule>,

    /// Command of dnd to run then, as in 'dnd dump collect -o /dumps/{pid}'; `-p PID` is added where it is missing
    ///
    /// It is this program that is run, wherever it is. {pid}, {counter} and {value} are filled in. What --exec says of
    /// words and of the environment holds here, too.
    #[arg(long, value_name = "COMMAND", requires = "rules", value_parser = Action::then)]
    then: Vec<Action>,

    /// Program to run then, after those of --then: words without a shell, as in "/bin/notify {pid} '{counter}'"
    ///
    /// Quotes group words; nothing else is special. {pid}, {counter} and {value} are filled in. Its environment has
    /// DND_ALERT_PID, DND_ALERT_PROCESS, DND_ALERT_CONDITION, DND_ALERT_COUNTER, DND_ALERT_TAGS, DND_ALERT_VALUE and
    /// DND_ALERT_UNIT. With a shell: --exec "sh -c 'echo $DND_ALERT_VALUE'".
    #[arg(long, value_name = "COMMAND", requires = "rules", value_parser = Action::exec)]
    exec: Vec<Action>,

    /// For how long an alert is not raised again for the same process, and nothing else is run for it
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "rules", value_parser = parse_duration)]
    cooldown: Duration,

    /// The most alerts for which something is run, of all processes together: dumps fill disks
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 3,
        requires = "rules",
        allow_negative_numbers = true
    )]
    max_alerts: u32,

    /// Only say what would be run
    #[arg(long, requires = "rules")]
    dry_run: bool,
}

impl AlertArgs {
    /// Adds the counters of all conditions to what is watched.
    pub(super) fn select(&self, selection: &mut Selection) {
        for rule in &self.rules {
            rule.select(selection);
        }
    }

    /// The conditions and what is done about them, a line for each.
    pub(super) fn described(&self) -> Vec<String> {
        let actions: Vec<String> = self.then.iter().chain(&self.exec).map(Action::template).collect();
        let then = match (actions.as_slice(), self.dry_run) {
            ([], _) => String::new(),
            (_, false) => format!("; then: {}", actions.join("; then: ")),
            (_, true) => format!("; then it would run: {}", actions.join("; then: ")),
        };
        self.rules.iter().map(|rule| format!("watching for {}{then}", rule.text())).collect()
    }

    /// What holds samples against the conditions; `None` without any.
    pub(super) fn start(&self, interval: Duration, output: OutputTo) -> Option<Alerts> {
        if self.rules.is_empty() {
            return None;
        }
        let actions: Vec<Action> = self.then.iter().chain(&self.exec).cloned().collect();
        let settings = Settings { cooldown: self.cooldown, most: self.max_alerts, acts: !actions.is_empty() };
        let (sender, ended) = mpsc::unbounded_channel();
        Some(Alerts {
            engine: Engine::new(self.rules.clone(), settings, interval),
            actions,
            dry_run: self.dry_run,
            output,
            running: HashMap::new(),
            closed: false,
            sender,
            ended,
        })
    }
}

/// Something to tell about the target at `index`.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) index: usize,
    pub(super) facts: Facts,
    /// What a command of an action printed last; only where it could not print by itself.
    pub(super) output: String,
}

/// An action under way.
struct Running {
    pid: u32,
    commands: Vec<String>,
    /// Hears when the first command was started.
    started: Receiver<()>,
}

/// How long starting a program may take when we are in a hurry.
const START: Duration = Duration::from_secs(1);

/// What an action's thread tells.
struct Ended {
    index: usize,
    outcome: Outcome,
    output: String,
    /// Whether it was the action's last command.
    last: bool,
}

/// Conditions, and the actions that are running.
pub(super) struct Alerts {
    engine: Engine,
    actions: Vec<Action>,
    dry_run: bool,
    output: OutputTo,
    /// Targets for which an action is running.
    running: HashMap<usize, Running>,
    /// Whether no further action is to be started.
    closed: bool,
    sender: mpsc::UnboundedSender<Ended>,
    ended: mpsc::UnboundedReceiver<Ended>,
}

impl Alerts {
    /// A target is watched from now on.
    pub(super) fn watch(&mut self, index: usize) {
        self.engine.watch(index, Instant::now());
    }

    /// A target is not watched any more.
    pub(super) fn forget(&mut self, index: usize) {
        self.engine.forget(index);
    }

    /// Whether an action is running for a target.
    pub(super) fn acts_for(&self, index: usize) -> bool {
        self.running.contains_key(&index)
    }

    /// From here on nothing new is started.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes samples of a target in.
    pub(super) fn updates(&mut self, index: usize, subject: &Subject, updates: &[Update]) -> Vec<Told> {
        if self.closed {
            return Vec::new();
        }
        let now = Instant::now();
        let mut events = Vec::new();
        for update in updates {
            match update {
                Update::Sample(sample) => self.engine.sample(index, sample, now, &mut events),
                Update::Ended(series) => self.engine.ended(index, series),
                _ => {}
            }
        }
        events.iter().map(|event| self.event(index, subject, event)).collect()
    }

    /// Time has passed.
    pub(super) fn tick<'a>(&mut self, subject: impl Fn(usize) -> Option<&'a Subject>) -> Vec<Told> {
        let mut events = Vec::new();
        self.engine.tick(Instant::now(), &mut events);
        let of = |event: &Event| match event {
            Event::Warning { process, .. } => Some(*process),
            _ => None,
        };
        let known: Vec<_> =
            events.iter().filter_map(|event| Some((of(event)?, subject(of(event)?)?, event))).collect();
        known.into_iter().map(|(index, subject, event)| self.event(index, subject, event)).collect()
    }

    fn event(&mut self, index: usize, subject: &Subject, event: &Event) -> Told {
        let mut commands = Vec::new();
        let mut refused = None;
        if let Event::Fired(fired) = event
            && fired.decision == Decision::Act
        {
            let alarm = Alarm::new(subject, fired);
            commands = self.actions.iter().map(|action| action.shown(&alarm)).collect();
            if !subject.local {
                // The number is one of another pid namespace: here it may be anybody's.
                refused = Some("the process can't be seen from here, so its id here is not known".to_owned());
                self.engine.finished(index);
            } else if self.dry_run {
                self.engine.finished(index);
            } else {
                let started = self.act(index, alarm);
                self.running.insert(index, Running { pid: subject.pid, commands: commands.clone(), started });
            }
        }
        self.told(index, subject.pid, &subject.name, facts(event, self.dry_run, refused, commands))
    }

    /// Runs the commands one after the other; what one comes to doesn't matter to the next.
    fn act(&self, index: usize, alarm: Alarm) -> Receiver<()> {
        let (started, receiver) = channel();
        let (actions, sender, output) = (self.actions.clone(), self.sender.clone(), self.output);
        std::thread::spawn(move || {
            for (number, action) in actions.iter().enumerate() {
                let (outcome, output) = action.run(&alarm, output, || {
                    let _ = started.send(());
                });
                let last = number + 1 == actions.len();
                // Nobody may be left to hear of it.
                let _ = sender.send(Ended { index, outcome, output, last });
            }
        });
        receiver
    }

    /// Waits for the end of a command of an action.
    pub(super) async fn ended(&mut self, name: impl Fn(usize) -> String) -> Told {
        let Some(Ended { index, outcome, output, last }) = self.ended.recv().await else {
            // Not reached: a sender is kept here.
            return std::future::pending().await;
        };
        let pid = self.running.get(&index).map_or(0, |running| running.pid);
        if last {
            self.running.remove(&index);
            self.engine.finished(index);
        }
        let mut told = self.told(index, pid, &name(index), What::ActionEnded(outcome));
        told.output = output;
        told
    }

    fn told(&self, index: usize, pid: u32, name: &str, what: What) -> Told {
        let facts = Facts { time: rfc3339(unix_nanos_now()), pid, process: name.to_owned(), what };
        Told { index, facts, output: String::new() }
    }

    /// Says what is left to itself.
    pub(super) fn leave(&self) {
        for Running { pid, commands, started } in self.running.values() {
            // It was announced: so it must be there before we are not.
            let _ = started.recv_timeout(START);
            let commands = escape(&commands.join("; then ")).into_owned();
            say(&format!(
                "what is running for process {pid} goes on alone, what was to follow it is not run: {commands}"
            ));
        }
    }

    /// Waits for actions that are still running, unless the user has no patience.
    pub(super) async fn settle(
        &mut self,
        signals: &mut Signals,
        name: impl Fn(usize) -> String,
        mut tell: impl FnMut(&Told),
    ) -> Result<(), CliError> {
        for Running { pid, commands, .. } in self.running.values() {
            let commands = escape(&commands.join("; then ")).into_owned();
            say(&format!(
                "waiting for the action of process {pid}: {commands}; Ctrl-C leaves it to go on alone"
            ));
        }
        while !self.running.is_empty() {
            tokio::select! {
                again = signals.recv() => if again {
                    self.leave();
                    return Err(CliError::Quiet(Kind::Negative));
                },
                told = self.ended(&name) => tell(&told),
            }
        }
        Ok(())
    }
}

/// A line for standard error, and what the action printed behind it.
pub(super) fn lines(told: &Told) -> String {
    let mut text = format!("{} {}", told.facts.time, dnd_counters::alerts::text(&told.facts));
    for line in told.output.lines() {
        text.push_str(&format!("\n    {}", escape(line)));
    }
    text
}
