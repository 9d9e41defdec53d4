//! Units as a part of a metric's name.

/// The word for a unit, as the OpenTelemetry specification has it: in full, without what is in braces, `foo_per_bar` for
/// `foo/bar`, and `ratio` for the unit 1 of a gauge. Empty for counts of things, and for what can't be part of a name.
pub(super) fn word(unit: &str, gauge: bool) -> String {
    let mut plain = String::new();
    let mut rest = unit;
    // Annotations: `{request}`.
    while let Some((before, after)) = rest.split_once('{') {
        plain.push_str(before);
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    let plain = plain.trim();
    match plain.split_once('/') {
        None if plain == "1" => if gauge { "ratio" } else { "" }.to_owned(),
        None => single(plain),
        Some((amount, per)) => {
            let (amount, per) = (single(amount.trim()), singular(per.trim()));
            match (amount.as_str(), per.as_str()) {
                (_, "") => String::new(),
                ("", per) => format!("per_{per}"),
                (amount, per) => format!("{amount}_per_{per}"),
            }
        }
    }
}

fn single(unit: &str) -> String {
    match unit {
        "By" | "B" | "bytes" => "bytes",
        "KiBy" | "KiB" => "kibibytes",
        "MiBy" | "MiB" => "mebibytes",
        "GiBy" | "GiB" => "gibibytes",
        "TiBy" | "TiB" => "tebibytes",
        "kBy" | "KBy" | "KB" | "kB" => "kilobytes",
        "MBy" | "MB" => "megabytes",
        "GBy" | "GB" => "gigabytes",
        "TBy" | "TB" => "terabytes",
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" | "sec" => "seconds",
        "ms" | "msec" => "milliseconds",
        // Two signs look like this one.
        "us" | "\u{b5}s" | "\u{3bc}s" => "microseconds",
        "ns" => "nanoseconds",
        "%" => "percent",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "m" => "meters",
        "g" => "grams",
        "1" => "",
        // Anything else as it is, if it is a word.
        other if other.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            let word = other.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return if word { other.trim_end_matches('_').to_owned() } else { String::new() };
        }
        _ => "",
    }
    .to_owned()
}

/// What an amount is for one of.
fn singular(unit: &str) -> String {
    match unit {
        "s" | "sec" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        unit => return single(unit).trim_end_matches('s').to_owned(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (unit, expected) in [
            ("", ""),
            ("By", "bytes"),
            ("{request}", ""),
            ("By/s", "bytes_per_second"),
            ("{request}/s", "per_second"),
            ("s/{request}", ""),
            ("By/ms", "bytes_per_millisecond"),
            ("widgets", "widgets"),
            ("1", "ratio"),
            ("\u{b5}s", "microseconds"),
            ("\u{b0}C", ""),
            ("two words", ""),
            ("{broken", ""),
            ("/", ""),
        ] {
            assert_eq!(word(unit, true), expected, "{unit}");
        }
        assert_eq!(word("1", false), "");
    }
}
