//! What is done once in an interval.

use std::time::{Duration, Instant};

/// How often a sink looks at the clock, at least: for late samples.
const TICK: Duration = Duration::from_millis(250);

/// How often a sink looks at the clock, for values that come every `interval`: twice in it, so that a look that comes a
/// little late still sees what is due before the next one is.
pub(super) fn tick(interval: Duration) -> Duration {
    TICK.min(interval / 2)
}

/// When something is due that is done once in an interval.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: Option<Instant>,
}

impl Schedule {
    /// It is due at `first`, and every interval from then on, unless that is known already.
    pub(super) fn begin(&mut self, first: Instant) {
        self.due.get_or_insert(first);
    }

    /// Whether it is due. Then it is due again an interval after it was, however late that is seen: in step, unless one
    /// was missed.
    pub(super) fn take(&mut self, now: Instant, interval: Duration) -> bool {
        let Some(due) = self.due.filter(|&due| due <= now) else { return false };
        let next = due + interval;
        self.due = Some(if next > now { next } else { now + interval });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// When it is done, in milliseconds after `first`, by someone who looks at these times.
    fn done(schedule: &mut Schedule, first: Instant, interval: Duration, looks: &[u64]) -> Vec<u64> {
        let due = |look: &u64| schedule.take(first + millis(*look), interval);
        looks.iter().copied().filter(due).collect()
    }

    #[test]
    fn once_in_an_interval_however_late_it_is_seen() {
        for interval in [100, 150, 200, 300, 500, 1000, 10_000] {
            let tick = u64::try_from(tick(millis(interval)).as_millis()).expect("a number");
            for phase in [0, 1, tick / 2, tick - 1] {
                // Each look comes up to nearly its own distance late.
                let looks: Vec<u64> = (0..1000).map(|n| n * tick + phase + n * 7 % (tick * 9 / 10)).collect();
                let (first, mut schedule) = (Instant::now(), Schedule::default());
                schedule.begin(first);
                let done = done(&mut schedule, first, millis(interval), &looks);
                // In the first interval, the second one, and so on: none without, and it doesn't drift.
                let intervals: Vec<u64> = done.iter().map(|at| at / interval).collect();
                let all: Vec<u64> = (0..intervals.len() as u64).collect();
                assert_eq!(intervals, all, "{interval} ms, {phase} ms after it was due: {done:?}");
                assert!(done.len() as u64 >= 999 * tick / interval, "{done:?}");
            }
        }
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let (first, mut schedule) = (Instant::now(), Schedule::default());
        assert!(!schedule.take(first, millis(100)), "nothing has begun");
        schedule.begin(first);
        schedule.begin(first + millis(50));
        let done = done(&mut schedule, first, millis(100), &[0, 99, 100, 350, 360, 449, 450, 550]);
        assert_eq!(done, [0, 100, 350, 450, 550]);
    }
}
