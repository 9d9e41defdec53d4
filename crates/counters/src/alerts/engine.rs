//! When a condition has held for long enough, and whether something is to be done about it.
//!
//! * A condition holds from the first sample beyond the limit to the first that is not. A series (a combination of
//!   tags) is judged by itself; a process that is stopped sends no samples, and what it sent last still holds.
//! * A rule fires once for a process, and again after the cool-down if the condition holds then, too.
//! * Acting is rarer still: never two actions for a process at once, nor two within the cool-down, whatever rules
//!   fire; and only so many of them at all, since what they leave fills disks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Decision, Event, Fired, Warning};
use super::rule::{Reading, Rule, Unusable};
use crate::board::Place;
use crate::sample::{Sample, Series};

/// A counter that nothing was heard of for so long is told, if three intervals have passed.
const UNSEEN: Duration = Duration::from_secs(10);

/// How often to fire, and to act.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For how long a rule that has fired for a process does not fire again, and no second action is started for it.
    pub cooldown: Duration,
    /// The most actions, of all rules and processes together.
    pub most: u32,
    /// Whether there is an action at all.
    pub acts: bool,
}

/// Holds samples of any number of processes against rules. Processes are known by numbers of the caller's.
#[derive(Debug)]
pub struct Engine {
    rules: Vec<Rule>,
    settings: Settings,
    interval: Duration,
    processes: HashMap<usize, Process>,
    acted: u32,
}

/// What is known of one process.
#[derive(Debug)]
struct Process {
    since: Instant,
    rules: Vec<State>,
    /// When the last action was started.
    acted: Option<Instant>,
    running: bool,
}

/// What is known of one rule and process.
#[derive(Debug, Default)]
struct State {
    /// Since when each series is beyond the limit.
    beyond: BTreeMap<Place, Instant>,
    fired: Option<Instant>,
    /// Whether the counter was heard of, or missed aloud.
    known: bool,
    unusable: Option<Unusable>,
}

impl Engine {
    /// An engine for these rules; samples come every `interval`.
    #[must_use]
    pub fn new(rules: Vec<Rule>, settings: Settings, interval: Duration) -> Self {
        Self { rules, settings, interval, processes: HashMap::new(), acted: 0 }
    }

    /// The rules, in the order given.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// A process is watched from now on.
    pub fn watch(&mut self, process: usize, now: Instant) {
        let rules = self.rules.iter().map(|_| State::default()).collect();
        self.processes.insert(process, Process { since: now, rules, acted: None, running: false });
    }

    /// A process has ended.
    pub fn forget(&mut self, process: usize) {
        self.processes.remove(&process);
    }

    /// A series of a process will have no more samples: what it sent last does not hold any longer.
    pub fn ended(&mut self, process: usize, series: &Arc<Series>) {
        if let Some(process) = self.processes.get_mut(&process) {
            let place = Place(Arc::clone(series));
            for state in &mut process.rules {
                state.beyond.remove(&place);
            }
        }
    }

    /// The action for a process has come to its end.
    pub fn finished(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(&process) {
            process.running = false;
        }
    }

    /// Takes a sample in. Every [`Decision::Act`] is to be followed by an action, and that by [`Engine::finished`].
    pub fn sample(&mut self, process: usize, sample: &Sample, now: Instant, events: &mut Vec<Event>) {
        let Self { rules, settings, processes, acted, .. } = self;
        let Some(of) = processes.get_mut(&process) else { return };
        for (index, rule) in rules.iter().enumerate() {
            let Some(state) = of.rules.get_mut(index) else { continue };
            let reading = rule.read(sample);
            state.known |= reading != Reading::Other;
            let value = match reading {
                Reading::Other | Reading::Nothing => continue,
                Reading::Unusable(reason) => {
                    if state.unusable.replace(reason) != Some(reason) {
                        let series = Arc::clone(&sample.series);
                        let warning = Warning::Unusable { reason, series };
                        events.push(Event::Warning { process, rule: rule.clone(), warning });
                    }
                    continue;
                }
                Reading::Value(value, beyond) => {
                    if !beyond {
                        state.beyond.remove(&Place(Arc::clone(&sample.series)));
                        continue;
                    }
                    value
                }
            };
            let since = *state.beyond.entry(Place(Arc::clone(&sample.series))).or_insert(now);
            let held = now.saturating_duration_since(since);
            let waits = |last: Option<Instant>| {
                let again = last?.checked_add(settings.cooldown)?;
                Some(again.saturating_duration_since(now)).filter(|left| !left.is_zero())
            };
            if held < rule.hold() || waits(state.fired).is_some() {
                continue;
            }
            state.fired = Some(now);
            let decision = if !settings.acts {
                Decision::Tell
            } else if of.running {
                Decision::Running
            } else if *acted >= settings.most {
                Decision::Exhausted { most: settings.most }
            } else if let Some(left) = waits(of.acted) {
                Decision::Recent { again: left }
            } else {
                (of.acted, of.running) = (Some(now), true);
                *acted += 1;
                Decision::Act
            };
            let series = Arc::clone(&sample.series);
            let shown = rule.shown(value, &series);
            let fired = Fired { process, rule: rule.clone(), series, value, shown, held, decision };
            events.push(Event::Fired(fired));
        }
    }

    /// Tells about rules whose counter does not seem to exist.
    pub fn tick(&mut self, now: Instant, events: &mut Vec<Event>) {
        let patience = UNSEEN.max(self.interval.saturating_mul(3));
        for (&process, of) in &mut self.processes {
            if now.saturating_duration_since(of.since) < patience {
                continue;
            }
            for (rule, state) in self.rules.iter().zip(&mut of.rules) {
                if !std::mem::replace(&mut state.known, true) {
                    events.push(Event::Warning { process, rule: rule.clone(), warning: Warning::Unseen });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{SeriesKind, Source, Value};
    use crate::tags::Tags;

    /// An engine, and a clock that only goes when told to.
    struct Bench {
        engine: Engine,
        now: Instant,
    }

    fn bench(rules: &[&str], cooldown: u64, most: u32) -> Bench {
        let rules = rules.iter().map(|text| Rule::parse(text).expect("a rule")).collect();
        let settings = Settings { cooldown: Duration::from_secs(cooldown), most, acts: true };
        let mut engine = Engine::new(rules, settings, Duration::from_secs(1));
        let now = Instant::now();
        engine.watch(0, now);
        engine.watch(1, now);
        Bench { engine, now }
    }

    impl Bench {
        fn tagged(&mut self, process: usize, tags: &str, value: f64) -> Vec<Decision> {
            let series = Series {
                source: Source::Meter,
                provider: "P".into(),
                name: "x".into(),
                display_name: "x".into(),
                description: String::new(),
                unit: "MB".into(),
                kind: SeriesKind::Gauge,
                tags: Tags::parse(tags),
                meter_version: String::new(),
                meter_tags: Tags::default(),
                instrument_tags: Tags::default(),
                instrument_id: None,
            };
            let value = Value::Gauge(value);
            let sample = Sample { series: Arc::new(series), unix_nanos: 0, interval: 1.0, value };
            let mut events = Vec::new();
            self.engine.sample(process, &sample, self.now, &mut events);
            let decision = |event| match event {
                Event::Fired(fired) => fired.decision,
                other => panic!("{other:?}"),
            };
            events.into_iter().map(decision).collect()
        }

        /// A sample, a second later.
        fn next(&mut self, value: f64) -> Vec<Decision> {
            self.wait(1);
            self.tagged(0, "", value)
        }

        fn wait(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn it_must_hold() {
        let mut bench = bench(&["P[x]>500MB for 3s"], 600, 3);
        for value in [600.0, 600.0, 600.0] {
            assert_eq!(bench.next(value), []);
        }
        // One that is not beyond it, and it begins anew.
        assert_eq!(bench.next(500.0), []);
        for value in [501.0, 502.0, 503.0] {
            assert_eq!(bench.next(value), []);
        }
        assert_eq!(bench.next(504.0), [Decision::Act]);
        assert_eq!(bench.next(505.0), []);
    }

    #[test]
    fn without_a_time_at_once() {
        let mut bench = bench(&["P[x]<5"], 600, 3);
        assert_eq!(bench.next(5.0), []);
        assert_eq!(bench.next(4.0), [Decision::Act]);
    }

    #[test]
    fn late_samples_do_not_interrupt_it() {
        let mut bench = bench(&["P[x]>5 for 30s"], 600, 3);
        assert_eq!(bench.next(6.0), []);
        bench.wait(40);
        assert_eq!(bench.next(6.0), [Decision::Act]);
    }

    #[test]
    fn the_cooldown_and_the_maximum() {
        let mut bench = bench(&["P[x]>5"], 10, 2);
        assert_eq!(bench.next(6.0), [Decision::Act]);
        bench.engine.finished(0);
        for _ in 0..9 {
            assert_eq!(bench.next(6.0), []);
        }
        assert_eq!(bench.next(6.0), [Decision::Act]);
        bench.engine.finished(0);
        bench.wait(10);
        assert_eq!(bench.next(6.0), [Decision::Exhausted { most: 2 }]);
        assert_eq!(bench.next(6.0), [], "said as rarely as it would act");
    }

    #[test]
    fn one_action_at_a_time() {
        let mut bench = bench(&["P[x]>5", "P[x]>7"], 10, 9);
        assert_eq!(bench.next(6.0), [Decision::Act]);
        assert_eq!(bench.next(8.0), [Decision::Running]);
        assert_eq!(bench.next(8.0), []);
        // The other process has its own.
        assert_eq!(bench.tagged(1, "", 8.0), [Decision::Act, Decision::Running]);
        bench.wait(20);
        assert_eq!(bench.next(8.0), [Decision::Running, Decision::Running]);
        bench.engine.finished(0);
        bench.wait(10);
        assert_eq!(bench.next(8.0), [Decision::Act, Decision::Running]);
        bench.engine.finished(0);
        bench.wait(5);
        assert_eq!(bench.next(8.0), []);
    }

    #[test]
    fn not_soon_after_the_action_of_another_rule() {
        let mut bench = bench(&["P[x]>5", "P[x]>7"], 10, 9);
        assert_eq!(bench.next(6.0), [Decision::Act]);
        bench.engine.finished(0);
        bench.wait(2);
        assert_eq!(bench.next(8.0), [Decision::Recent { again: Duration::from_secs(7) }]);
        bench.wait(6);
        assert_eq!(bench.next(8.0), [Decision::Act]);
    }

    #[test]
    fn each_series_by_itself() {
        let mut bench = bench(&["P[x]>5 for 2s"], 10, 9);
        for _ in 0..2 {
            assert_eq!(bench.tagged(0, "a=1", 6.0), []);
            bench.wait(1);
            assert_eq!(bench.tagged(0, "a=2", 4.0), []);
        }
        assert_eq!(bench.tagged(0, "a=2", 6.0), []);
        assert_eq!(bench.tagged(0, "a=1", 6.0), [Decision::Act]);
        // A rule fires once for a process, not for each of its series.
        bench.wait(3);
        assert_eq!(bench.tagged(0, "a=2", 6.0), []);
    }

    #[test]
    fn what_has_ended_does_not_hold_any_longer() {
        let mut bench = bench(&["P[x]>5 for 10s"], 10, 9);
        assert_eq!(bench.tagged(0, "a=1", 6.0), []);
        let series =
            bench.engine.processes[&0].rules[0].beyond.keys().next().map(|place| Arc::clone(&place.0));
        bench.engine.ended(0, &series.expect("a series"));
        assert!(bench.engine.processes[&0].rules[0].beyond.is_empty());
        bench.wait(60);
        assert_eq!(bench.tagged(0, "a=1", 6.0), [], "it begins anew");
        bench.wait(10);
        assert_eq!(bench.tagged(0, "a=1", 6.0), [Decision::Act]);
    }

    #[test]
    fn without_an_action_it_is_only_told() {
        let mut bench = bench(&["P[x]>5"], 10, 0);
        bench.engine.settings.acts = false;
        assert_eq!(bench.next(6.0), [Decision::Tell]);
        assert_eq!(bench.next(6.0), []);
        bench.wait(10);
        assert_eq!(bench.next(6.0), [Decision::Tell]);
        bench.engine.forget(0);
        bench.wait(20);
        assert_eq!(bench.next(6.0), []);
    }

    #[test]
    fn what_can_never_fire_is_told_once() {
        let mut bench = bench(&["P[x]>5ms", "P[y]>5", "P[x]>5"], 10, 9);
        bench.engine.forget(1);
        let mut events = Vec::new();
        bench.engine.tick(bench.now, &mut events);
        assert!(events.is_empty());
        let series = |event: &Event| match event {
            Event::Warning { rule, warning, .. } => (rule.text().to_owned(), warning.clone()),
            other @ Event::Fired(_) => panic!("{other:?}"),
        };
        for first in [true, false] {
            let sample = {
                let mut other = self::bench(&["P[x]>5"], 1, 1);
                let mut seen = None;
                assert_eq!(other.next(6.0), [Decision::Act]);
                for place in other.engine.processes[&0].rules[0].beyond.keys() {
                    seen = Some(Arc::clone(&place.0));
                }
                let series = seen.expect("a series");
                Sample { series, unix_nanos: 0, interval: 1.0, value: Value::Gauge(1.0) }
            };
            bench.engine.sample(0, &sample, bench.now, &mut events);
            assert_eq!(events.len(), usize::from(first));
            let all: Vec<_> = std::mem::take(&mut events).iter().map(series).collect();
            assert!(all.iter().all(|(rule, warning)| {
                rule == "P[x]>5ms" && matches!(warning, Warning::Unusable { reason: Unusable::Unit, .. })
            }));
        }
        bench.wait(10);
        for first in [true, false] {
            bench.engine.tick(bench.now, &mut events);
            let all: Vec<_> = std::mem::take(&mut events).iter().map(series).collect();
            let expected = [("P[y]>5".to_owned(), Warning::Unseen)];
            assert_eq!(all, if first { expected.as_slice() } else { &[] });
        }
    }
}
