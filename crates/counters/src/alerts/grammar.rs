//! How conditions are written: `COUNTER OPERATOR NUMBER[UNIT][/s] [for TIME]`.

use std::time::Duration;

use super::rule::{Operator, Rule};
use super::unit::{self, Unit};
use crate::duration::parse_duration;
use crate::error::AlertError;
use crate::os::{COUNTERS, PROVIDERS};
use crate::selection::{EVENT_COUNTERS, provider_of};

/// The tag by which a percentile of a histogram is chosen, as it is shown.
const PERCENTILE: &str = "Percentile";

/// Reads a condition.
pub(super) fn read(text: &str) -> Result<Rule, AlertError> {
    let (counter, rest) = text.split_at(operator_at(text).ok_or(AlertError::NoOperator)?);
    let counter = counter.trim();
    let (operator, rest) = operator(rest);
    let (limit, hold) = match rest.split_once(" for ") {
        Some((limit, hold)) => (limit, parse_duration(hold.trim()).map_err(|_| AlertError::Duration)?),
        None => (rest, Duration::ZERO),
    };
    let (limit, unit) = limit_and_unit(limit.trim())?;
    let (unit_name, per_second) = match unit.strip_suffix("/s").or_else(|| unit.strip_suffix("/sec")) {
        Some(unit) => (unit.trim(), true),
        None => (unit, false),
    };
    let unit = match unit_name {
        "" => None,
        name => Some(unit::known(name).ok_or(AlertError::Unit)?),
    };
    let (name, tags) = match counter.split_once('{') {
        Some((name, tags)) => {
            (name.trim(), read_tags(tags.strip_suffix('}').ok_or(AlertError::Tags)?.trim())?)
        }
        None => (counter, Vec::new()),
    };
    let (event_counters_only, name) = match name.strip_prefix(EVENT_COUNTERS) {
        Some(name) => (true, name),
        None => (false, name),
    };
    let (provider, name) = match name.split_once('[') {
        Some((provider, name)) => {
            (provider.trim(), name.strip_suffix(']').ok_or(AlertError::Counter)?.trim())
        }
        None => (provider_of(name).ok_or(AlertError::Counter)?, name),
    };
    if provider.is_empty() || name.is_empty() || name.contains(['[', ']', ',']) {
        return Err(AlertError::Counter);
    }
    if let Some(known) = system_unit(provider, name) {
        // What never changes is checked now.
        let own = unit::known(known.ok_or(AlertError::Counter)?).map(|unit| unit.dimension);
        if unit.is_some_and(|unit: Unit| Some(unit.dimension) != own) {
            return Err(AlertError::OtherUnit);
        }
    }
    let (percentile, tags): (Vec<_>, Vec<_>) = tags.into_iter().partition(|(key, _)| key == PERCENTILE);
    let percentile = match percentile.as_slice() {
        [] => None,
        [(_, number)] => Some(number.parse().map_err(|_| AlertError::Tags)?),
        _ => return Err(AlertError::Tags),
    };
    Ok(Rule {
        text: text.trim().to_owned(),
        counter: counter.to_owned(),
        provider: provider.to_owned(),
        name: name.to_owned(),
        event_counters_only,
        tags,
        percentile,
        operator,
        limit,
        unit,
        unit_name: unit_name.to_owned(),
        per_second,
        hold,
    })
}

/// The unit of a counter of the operating system: `None` for other providers, `Some(None)` if it has no such counter.
fn system_unit(provider: &str, name: &str) -> Option<Option<&'static str>> {
    if !PROVIDERS.iter().any(|system| system.eq_ignore_ascii_case(provider)) {
        return None;
    }
    let is =
        |(of, counter, ..): &&(&str, &str, _, _, _)| of.eq_ignore_ascii_case(provider) && *counter == name;
    Some(COUNTERS.iter().find(is).map(|(_, _, unit, ..)| *unit))
}

/// Where the operator is: the first of its characters outside brackets and quotes.
fn operator_at(text: &str) -> Option<usize> {
    let (mut depth, mut quoted) = (0i32, false);
    for (index, c) in text.char_indices() {
        match c {
            '"' if depth > 0 => quoted = !quoted,
            _ if quoted => {}
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            '<' | '>' if depth <= 0 => return Some(index),
            _ => {}
        }
    }
    None
}

fn operator(text: &str) -> (Operator, &str) {
    let operators =
        [(">=", Operator::AtLeast), ("<=", Operator::AtMost), (">", Operator::Above), ("<", Operator::Below)];
    let found = operators.iter().find_map(|(sign, operator)| Some((*operator, text.strip_prefix(sign)?)));
    // The caller found one of them.
    found.unwrap_or((Operator::Above, text))
}

/// A number, and the unit behind it.
fn limit_and_unit(text: &str) -> Result<(f64, &str), AlertError> {
    let mut end = 0;
    let mut before = ' ';
    for (index, c) in text.char_indices() {
        let after = text.get(index + 1..).and_then(|rest| rest.chars().next()).unwrap_or(' ');
        let exponent = matches!(c, 'e' | 'E') && (after.is_ascii_digit() || after == '-' || after == '+');
        let sign = matches!(c, '-' | '+') && (index == 0 || matches!(before, 'e' | 'E'));
        if !(c.is_ascii_digit() || c == '.' || exponent || sign) {
            break;
        }
        end = index + c.len_utf8();
        before = c;
    }
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| AlertError::Number)?;
    if number.is_finite() { Ok((number, unit.trim())) } else { Err(AlertError::Number) }
}

/// `key=value,key="value"`; a quoted value may hold anything but a quote.
fn read_tags(text: &str) -> Result<Vec<(String, String)>, AlertError> {
    let mut tags = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, tail) = rest.split_once('=').ok_or(AlertError::Tags)?;
        let tail = tail.trim_start();
        let (value, after) = match tail.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or(AlertError::Tags)?,
            None => {
                let (value, after) = tail.split_at(tail.find(',').unwrap_or(tail.len()));
                (value.trim(), after)
            }
        };
        let key = key.trim();
        if key.is_empty() {
            return Err(AlertError::Tags);
        }
        tags.push((key.to_owned(), value.to_owned()));
        rest = match after.trim_start().strip_prefix(',') {
            Some(rest) => rest.trim_start(),
            None if after.trim().is_empty() => "",
            None => return Err(AlertError::Tags),
        };
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn rule(text: &str) -> Rule {
        Rule::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn the_grammar() {
        let parts = |text| {
            let rule = rule(text);
            (rule.provider, rule.name, rule.operator, rule.limit, rule.hold.as_secs())
        };
        let own = |provider: &str, name: &str, operator, limit, hold| {
            (provider.to_owned(), name.to_owned(), operator, limit, hold)
        };
        let heap = |operator, limit, hold| own("System.Runtime", "gc-heap-size", operator, limit, hold);
        assert_eq!(parts("gc-heap-size>500MB for 30s"), heap(Operator::Above, 500.0, 30));
        assert_eq!(parts(" gc-heap-size >= 1.5 GiB  for 1h30m "), heap(Operator::AtLeast, 1.5, 5400));
        assert_eq!(parts("gc-heap-size<-1e-3"), heap(Operator::Below, -0.001, 0));
        assert_eq!(parts("rss<=2E3MiB"), own("OS", "rss", Operator::AtMost, 2000.0, 0));
        assert_eq!(parts("memory-used>90%"), own("cgroup", "memory-used", Operator::Above, 90.0, 0));
        assert_eq!(parts("A.B[c > d]>1").1, "c > d");
        let tagged = rule(r#"EventCounters\Shop[orders]{color = red,size="a,}b" , Percentile=95} > 5/s"#);
        assert!(tagged.event_counters_only && tagged.per_second);
        assert_eq!(tagged.percentile, Some(95.0));
        assert_eq!(
            tagged.tags,
            [("color".to_owned(), "red".to_owned()), ("size".to_owned(), "a,}b".to_owned())]
        );
        assert_eq!(
            tagged.text(),
            r#"EventCounters\Shop[orders]{color = red,size="a,}b" , Percentile=95} > 5/s"#
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, reason) in [
            ("", AlertError::NoOperator),
            ("gc-heap-size=5", AlertError::NoOperator),
            ("gc-heap-size>", AlertError::Number),
            ("gc-heap-size>much", AlertError::Number),
            ("gc-heap-size>1e999", AlertError::Number),
            ("gc-heap-size>>5", AlertError::Number),
            ("gc-heap-size>5 parsecs", AlertError::Unit),
            ("gc-heap-size>5M", AlertError::Unit),
            ("gc-heap-size>5MB for", AlertError::Unit),
            ("gc-heap-size>5MB for ever", AlertError::Duration),
            ("gc-heap-size>5MB for 30", AlertError::Duration),
            ("orders>5", AlertError::Counter),
            ("OS[rsss]>5", AlertError::Counter),
            ("rss>5ms", AlertError::OtherUnit),
            ("os[threads]>5MB", AlertError::OtherUnit),
            ("[orders]>5", AlertError::Counter),
            ("Shop[]>5", AlertError::Counter),
            ("Shop[a>5", AlertError::NoOperator),
            ("Shop[a,b]>5", AlertError::Counter),
            ("Shop[a]{b}>5", AlertError::Tags),
            ("Shop[a]{=c}>5", AlertError::Tags),
            ("Shop[a]{b=\"c}>5", AlertError::NoOperator),
            ("Shop[a]{b=\"c\"d}>5", AlertError::Tags),
            ("Shop[a]{Percentile=high}>5", AlertError::Tags),
        ] {
            match Rule::parse(text) {
                Err(Error::Alert { reason: found, .. }) => assert_eq!(found, reason, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
