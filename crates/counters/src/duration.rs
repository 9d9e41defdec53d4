//! Durations as users write them: `90s`, `10m`, `1h30m`, or `DD:HH:MM:SS` as the peers have it.

use std::time::Duration;

/// Reads a duration.
///
/// # Errors
///
/// What was expected, for people.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    read(text).ok_or_else(|| "expected a time as in 90s, 10m, 1h30m, or DD:HH:MM:SS".to_owned())
}

fn read(text: &str) -> Option<Duration> {
    let mut total = 0u64;
    let mut add = |number: &str, factor: u64| {
        let number: u64 = number.parse().ok()?;
        total = number.checked_mul(factor).and_then(|n| total.checked_add(n))?;
        Some(())
    };
    let parts: Vec<&str> = text.split(':').collect();
    if let [days, hours, minutes, seconds] = parts.as_slice() {
        for (part, factor) in [(days, 86_400), (hours, 3_600), (minutes, 60), (seconds, 1)] {
            add(part, factor)?;
        }
        return Some(Duration::from_secs(total));
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let mut chars = tail.chars();
        let factor = match chars.next()? {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        add(number, factor)?;
        rest = chars.as_str();
    }
    Some(Duration::from_secs(total))
}

/// A duration in the same words: `1h30m`; parts of a second are left out.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let mut left = duration.as_secs();
    let mut text = String::new();
    for (factor, unit) in [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')] {
        if left >= factor || (factor == 1 && text.is_empty()) {
            text.push_str(&format!("{}{unit}", left / factor));
            left %= factor;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs()).ok();
        assert_eq!(seconds("00:00:01:30"), Some(90));
        assert_eq!(seconds("1:0:0:0"), Some(86_400));
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("1h30m"), Some(5_400));
        for bad in
            ["", "5", "1:2", "1:2:3:4:5", "m", "5x", "-1s", "99999999999999999999s", "999999999999999999d"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        let words = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([words(0), words(90), words(600), words(90_061)], ["0s", "1m30s", "10m", "1d1h1m1s"]);
    }
}
