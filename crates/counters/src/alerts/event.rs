//! What there is to say about alerts, as facts and as text.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use dnd_contract::escape;
use serde::Serialize;

use super::rule::{Rule, Unusable};
use crate::duration::duration;
use crate::sample::Series;

/// Something that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A condition has held for long enough.
    Fired(Fired),
    /// A rule can't fire.
    Warning {
        /// The process, by the caller's number.
        process: usize,
        /// The rule.
        rule: Rule,
        /// Why it can't.
        warning: Warning,
    },
}

/// A rule that fired.
#[derive(Debug, Clone)]
pub struct Fired {
    /// The process, by the caller's number.
    pub process: usize,
    /// The rule.
    pub rule: Rule,
    /// The series that is beyond the limit.
    pub series: Arc<Series>,
    /// Its value, in its unit; per second if the rule is about that.
    pub value: f64,
    /// The same in the unit of the limit, for people.
    pub shown: String,
    /// For how long it has been.
    pub held: Duration,
    /// What is to be done.
    pub decision: Decision,
}

/// What is to be done about an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Nothing but telling: there is no action.
    Tell,
    /// The action is to be started.
    Act,
    /// Nothing: an action for this process is still running.
    Running,
    /// Nothing: one was started a short while ago.
    Recent {
        /// When the next may be.
        again: Duration,
    },
    /// Nothing: as many as are allowed were started.
    Exhausted {
        /// How many.
        most: u32,
    },
}

/// Why a rule can't fire.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// Its counter can't be compared with its limit.
    Unusable {
        /// Why not.
        reason: Unusable,
        /// The counter.
        series: Arc<Series>,
    },
    /// Nothing was heard of its counter.
    Unseen,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The command, as it was run.
    pub command: String,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it could not be run.
    pub error: Option<String>,
}

/// An event as JSON: `docs/json/counters.md`.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// When: RFC 3339, UTC.
    pub time: String,
    /// The process, as seen from here.
    pub pid: u32,
    /// Its name.
    pub process: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// A rule fired.
    Alert {
        /// The rule.
        alert: String,
        /// The provider of its counter.
        provider: String,
        /// Its counter.
        name: String,
        /// The tags of the series.
        tags: crate::tags::Tags,
        /// The value.
        value: f64,
        /// Its unit.
        unit: String,
        /// Both for people.
        #[serde(skip)]
        shown: String,
        /// For how long it has been beyond the limit.
        held_seconds: f64,
        /// `none`, `started`, `dry-run`, `skipped`.
        action: &'static str,
        /// Why it is skipped.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// What is run, or would be.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        commands: Vec<String>,
    },
    /// A command of an action has ended.
    ActionEnded(Outcome),
    /// A rule can't fire.
    Warning {
        /// The rule.
        alert: String,
        /// Why.
        message: String,
    },
}

/// Puts the facts of an event together: `commands` are those that are run, or with `dry_run` would be; `refused` is why
/// they are not although the engine says so.
#[must_use]
pub fn facts(event: &Event, dry_run: bool, refused: Option<String>, commands: Vec<String>) -> What {
    match event {
        Event::Warning { rule, warning, .. } => {
            What::Warning { alert: rule.text().to_owned(), message: warning_text(rule, warning) }
        }
        Event::Fired(fired) => {
            let reason = refused.or_else(|| reason(fired.decision));
            let action = match (fired.decision, &reason) {
                (_, Some(_)) => "skipped",
                (Decision::Act, None) if dry_run => "dry-run",
                (Decision::Act, None) => "started",
                _ => "none",
            };
            What::Alert {
                alert: fired.rule.text().to_owned(),
                provider: fired.series.provider.clone(),
                name: fired.series.name.clone(),
                tags: fired.series.tags.clone(),
                value: fired.value,
                unit: unit(fired),
                shown: fired.shown.clone(),
                held_seconds: fired.held.as_secs_f64(),
                commands: if reason.is_none() { commands } else { Vec::new() },
                action,
                reason,
            }
        }
    }
}

fn unit(fired: &Fired) -> String {
    let unit = fired.series.unit.trim();
    if fired.rule.per_second() { format!("{unit}/s") } else { unit.to_owned() }
}

/// Why nothing is done.
fn reason(decision: Decision) -> Option<String> {
    match decision {
        Decision::Tell | Decision::Act => None,
        Decision::Running => Some("the action before is still running".to_owned()),
        Decision::Recent { again } => {
            Some(format!("one was started less than --cooldown ago; the next may be in {}", duration(again)))
        }
        Decision::Exhausted { most } => Some(format!("the maximum is reached, --max-alerts {most}")),
    }
}

fn warning_text(rule: &Rule, warning: &Warning) -> String {
    match warning {
        Warning::Unseen => format!("no value of {} was seen so far", escape(rule.counter())),
        Warning::Unusable { reason, series } => match reason {
            Unusable::Unit if series.unit.trim().is_empty() => {
                "the counter has no unit to convert to; a plain number is compared as it is".to_owned()
            }
            Unusable::Unit => {
                let unit = escape(series.unit.trim());
                format!("the counter is in `{unit}`; a plain number is taken for that")
            }
            Unusable::NoAmount => "the counter is no amount of which there could be a rate".to_owned(),
            Unusable::Histogram => {
                "the counter is a histogram; say which percentile, as in {Percentile=95}".to_owned()
            }
        },
    }
}

/// An event as a line without its time and without an end.
#[must_use]
pub fn text(facts: &Facts) -> String {
    let mut text = String::new();
    let (pid, process) = (facts.pid, escape(&facts.process));
    // Writing to a String can't fail.
    let _ = match &facts.what {
        What::Warning { alert, message } => {
            write!(text, "warning: process {pid} ({process}): alert {} can't fire: {message}", escape(alert))
        }
        What::Alert { alert, name, tags, shown, action, reason, commands, .. } => {
            let _ = write!(text, "alert: process {pid} ({process}): {}", escape(name));
            if !tags.is_empty() {
                let _ = write!(text, "{{{}}}", escape(tags.text()));
            }
            let _ = write!(text, " is {} ({})", escape(shown), escape(alert));
            let commands = commands.iter().map(|command| escape(command)).collect::<Vec<_>>().join("; then ");
            match (*action, reason) {
                (_, Some(reason)) => write!(text, "; nothing is run: {reason}"),
                ("started", _) => write!(text, "; runs: {commands}"),
                ("dry-run", _) => write!(text, "; would run: {commands}"),
                _ => Ok(()),
            }
        }
        What::ActionEnded(outcome) => {
            let how = match (outcome.exit_code, outcome.signal, &outcome.error) {
                (Some(0), ..) => "succeeded".to_owned(),
                (Some(code), ..) => format!("failed: exit code {code}"),
                (None, Some(signal), _) => format!("failed: ended by signal {signal}"),
                (None, None, error) => {
                    format!("could not be run: {}", escape(error.as_deref().unwrap_or("unknown")))
                }
            };
            write!(text, "alert: process {pid} ({process}): `{}` {how}", escape(&outcome.command))
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{SeriesKind, Source};
    use crate::tags::Tags;

    fn fired(rule: &str, decision: Decision) -> Event {
        let series = Series {
            source: Source::Meter,
            provider: "P".into(),
            name: "x".into(),
            display_name: "x".into(),
            description: String::new(),
            unit: "MB".into(),
            kind: SeriesKind::Gauge,
            tags: Tags::parse("room=\u{1b}[2J"),
            meter_version: String::new(),
            meter_tags: Tags::default(),
            instrument_tags: Tags::default(),
            instrument_id: None,
        };
        let rule = Rule::parse(rule).expect("a rule");
        let held = Duration::from_secs(31);
        Event::Fired(Fired {
            process: 0,
            rule,
            series: Arc::new(series),
            value: 1512.34,
            shown: "1.512 GB".into(),
            held,
            decision,
        })
    }

    fn shown(event: &Event, dry_run: bool, refused: Option<&str>) -> (String, serde_json::Value) {
        let what = facts(event, dry_run, refused.map(str::to_owned), vec!["dnd ps".into(), "true".into()]);
        let facts = Facts { time: "T".into(), pid: 7, process: "a\nb".into(), what };
        (text(&facts), serde_json::to_value(&facts).expect("JSON"))
    }

    #[test]
    fn alerts() {
        let (text, json) = shown(&fired("P[x]>500MB for 30s", Decision::Act), false, None);
        assert_eq!(
            text,
            r"alert: process 7 (a\nb): x{room=\x1b[2J} is 1.512 GB (P[x]>500MB for 30s); runs: dnd ps; then true"
        );
        assert_eq!(
            json,
            serde_json::json!({
                "time": "T", "pid": 7, "process": "a\nb", "event": "alert", "alert": "P[x]>500MB for 30s",
                "provider": "P", "name": "x", "tags": {"room": "\u{1b}[2J"}, "value": 1512.34, "unit": "MB",
                "held_seconds": 31.0, "action": "started", "commands": ["dnd ps", "true"],
            })
        );
        let of = |decision, dry_run, refused| {
            let (text, json) = shown(&fired("P[x]>5/s", decision), dry_run, refused);
            let rest = text.split_once(" (P[x]>5/s)").expect("the rule").1.to_owned();
            (rest, json["action"].as_str().expect("a text").to_owned())
        };
        let own = |text: &str, action: &str| (text.to_owned(), action.to_owned());
        assert_eq!(of(Decision::Act, true, None), own("; would run: dnd ps; then true", "dry-run"));
        assert_eq!(of(Decision::Tell, false, None), own("", "none"));
        assert_eq!(
            of(Decision::Act, false, Some("its id is not known here")),
            own("; nothing is run: its id is not known here", "skipped")
        );
        assert_eq!(
            of(Decision::Running, false, None),
            own("; nothing is run: the action before is still running", "skipped")
        );
        let again = Duration::from_secs(61);
        assert_eq!(
            of(Decision::Recent { again }, false, None).0,
            "; nothing is run: one was started less than --cooldown ago; the next may be in 1m1s"
        );
        assert_eq!(
            of(Decision::Exhausted { most: 3 }, false, None).0,
            "; nothing is run: the maximum is reached, --max-alerts 3"
        );
    }

    #[test]
    fn ends_of_actions() {
        let of = |exit_code, signal, error: Option<&str>| {
            let outcome = Outcome { command: "x".into(), exit_code, signal, error: error.map(str::to_owned) };
            let what = What::ActionEnded(outcome);
            text(&Facts { time: String::new(), pid: 7, process: "p".into(), what })
        };
        let start = "alert: process 7 (p): `x`";
        assert_eq!(of(Some(0), None, None), format!("{start} succeeded"));
        assert_eq!(of(Some(4), None, None), format!("{start} failed: exit code 4"));
        assert_eq!(of(None, Some(9), None), format!("{start} failed: ended by signal 9"));
        assert_eq!(of(None, None, Some("no such file")), format!("{start} could not be run: no such file"));
    }

    #[test]
    fn warnings() {
        let rule = Rule::parse("P[x]>5ms").expect("a rule");
        let event = Event::Warning { process: 0, rule, warning: Warning::Unseen };
        assert_eq!(
            shown(&event, false, None).0,
            r"warning: process 7 (a\nb): alert P[x]>5ms can't fire: no value of P[x] was seen so far"
        );
    }
}
