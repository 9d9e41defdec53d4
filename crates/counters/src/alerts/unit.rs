//! Units, of limits and of counters: what can be compared with what.
//!
//! Counters have units in many spellings: .NET's EventCounters write `MB` for a million bytes, Meters the UCUM names
//! (`By`, `MiBy`, `s`). Limits are written as people write them.

/// What a unit measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimension {
    Bytes,
    Seconds,
    /// A part of a whole.
    Share,
}

/// A unit: what it measures, and how many bytes, seconds or wholes it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit {
    pub(super) dimension: Dimension,
    pub(super) factor: f64,
}

const fn unit(dimension: Dimension, factor: f64) -> Option<Unit> {
    Some(Unit { dimension, factor })
}

/// The prefix of a unit of bytes: powers of ten, or with an `i` of two.
fn bytes(prefix: &str) -> Option<Unit> {
    let factor = match prefix {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1_048_576.0,
        "gi" => 1_073_741_824.0,
        "ti" => 1_099_511_627_776.0,
        _ => return None,
    };
    unit(Dimension::Bytes, factor)
}

/// A unit by its name, in the spelling of a limit, of an EventCounter or of UCUM; sizes in upper or lower case.
pub(super) fn known(name: &str) -> Option<Unit> {
    match name {
        "%" => return unit(Dimension::Share, 0.01),
        "1" => return unit(Dimension::Share, 1.0),
        "ns" => return unit(Dimension::Seconds, 1e-9),
        "us" | "µs" => return unit(Dimension::Seconds, 1e-6),
        "ms" | "msec" => return unit(Dimension::Seconds, 1e-3),
        "s" | "sec" | "seconds" => return unit(Dimension::Seconds, 1.0),
        "min" => return unit(Dimension::Seconds, 60.0),
        "h" => return unit(Dimension::Seconds, 3600.0),
        _ => {}
    }
    let lower = name.to_ascii_lowercase();
    let prefix = ["bytes", "by", "b"].iter().find_map(|suffix| lower.strip_suffix(suffix))?;
    bytes(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let of = |name| known(name).map(|unit| (unit.dimension, unit.factor));
        assert_eq!(of("MB"), Some((Dimension::Bytes, 1e6)));
        assert_eq!(of("MBy"), of("MB"));
        assert_eq!(of("kb"), of("KB"));
        assert_eq!(of("MiB"), Some((Dimension::Bytes, 1_048_576.0)));
        for one in ["B", "By", "bytes"] {
            assert_eq!(of(one), Some((Dimension::Bytes, 1.0)), "{one}");
        }
        assert_eq!(of("ms"), Some((Dimension::Seconds, 1e-3)));
        assert_eq!(of("%"), Some((Dimension::Share, 0.01)));
        // A prefix alone, bits, months, and units of somebody's own.
        for other in ["", "M", "Mb/x", "M s", "{order}", "job", "Cel", "xB"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
