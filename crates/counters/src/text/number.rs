//! Numbers as dotnet-counters writes them.

/// From here on a number is abbreviated, where there is little room.
const LARGE: f64 = 1e8;

/// From here on a number is abbreviated, however much room there is: a `double` knows no more digits anyway.
const VERY_LARGE: f64 = 1e15;

/// At most three decimals, thousands separated by commas: `1,731` or `0.1`.
#[must_use]
pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // Ties go away from zero, as in .NET; numbers too large to be multiplied have no decimals anyway.
    let rounded = if value.abs() < 1e12 { (value * 1000.0).round() / 1000.0 } else { value };
    let text = format!("{:.3}", rounded.abs());
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let decimals = decimals.trim_end_matches('0');
    let mut out = String::with_capacity(text.len() + text.len() / 3);
    if rounded < 0.0 {
        out.push('-');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !decimals.is_empty() {
        out.push('.');
        out.push_str(decimals);
    }
    out
}

/// The same, but `6.0234e+17` from a hundred million on, or, when numbers shall be whole, from 10^15 on.
#[must_use]
pub fn abbreviated(value: f64, whole: bool) -> String {
    if !value.is_finite() || value.abs() < if whole { VERY_LARGE } else { LARGE } {
        return number(value);
    }
    let text = format!("{value:.4e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    format!("{mantissa}e+{exponent:0>2}")
}

/// All digits, as .NET writes a `double` when no format is given: with an exponent from 10^17 on and below 10^-4.
pub(super) fn round_trip(value: f64) -> String {
    if !value.is_finite() {
        return number(value);
    }
    let scientific = format!("{value:E}");
    let (mantissa, exponent) = scientific.split_once('E').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..17).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}E{sign}{:02}", exponent.unsigned_abs())
        }
        _ => value.to_string(),
    }
}

/// Padded on the right so that decimal points stand below each other when right-aligned.
pub(super) fn aligned(value: f64, whole: bool) -> String {
    let mut text = abbreviated(value, whole);
    if text.contains('e') || !value.is_finite() {
        return text;
    }
    let missing = match text.split_once('.') {
        Some((_, decimals)) => 3usize.saturating_sub(decimals.len()),
        None => 4,
    };
    text.extend(std::iter::repeat_n(' ', missing));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0001, "0"),
            (12.0, "12"),
            (1731.0, "1,731"),
            (0.1, "0.1"),
            (6.2421875, "6.242"),
            (2.0625, "2.063"),
            (-1_234_567.5, "-1,234,567.5"),
            (99_999_999.0, "99,999,999"),
            (1e15, "1,000,000,000,000,000"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(abbreviated(602_340_000_000_000_000.0, false), "6.0234e+17");
        assert_eq!(abbreviated(1e8, false), "1e+08");
        assert_eq!(abbreviated(-2.5e9, false), "-2.5e+09");
        assert_eq!(abbreviated(99_999_999.0, false), "99,999,999");
        assert_eq!(abbreviated(1e120, false), "1e+120");
        assert_eq!(abbreviated(-2.5e9, true), "-2,500,000,000");
        assert_eq!(abbreviated(999_999_999_999_999.0, true), "999,999,999,999,999");
        assert_eq!(abbreviated(1e15, true), "1e+15");
    }

    #[test]
    fn numbers_with_all_their_digits() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25E-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1_234_567_890_123_456.0, "1234567890123456"),
            (1e15, "1000000000000000"),
            (12_345_678_901_234_567.0, "12345678901234568"),
            (123_456_789_012_345_680.0, "1.2345678901234568E+17"),
            (5e-324, "5E-324"),
            (-1.25e20, "-1.25E+20"),
            (1e120, "1E+120"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(round_trip(value), text);
        }
    }

    #[test]
    fn decimal_points_meet() {
        assert_eq!([12.0, 0.1, 6.242].map(|value| aligned(value, true)), ["12    ", "0.1  ", "6.242"]);
    }
}
