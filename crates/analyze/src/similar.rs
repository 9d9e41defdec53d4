//! "Did you mean …?"

/// The candidate nearest to `name`, if it is near: a third of its letters may differ, or one is the other's start.
pub(crate) fn similar<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    candidates
        .filter_map(|c| {
            let lower = c.to_ascii_lowercase();
            // A single letter is near to every other.
            let long = name.len() >= 2 && lower.len() >= 2;
            let prefix = lower.starts_with(&name) || name.starts_with(&lower);
            let distance = if prefix { 1 } else { distance(&name, &lower) };
            (long && distance <= name.chars().count().max(3) / 3).then_some((distance, c))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// Levenshtein's distance, with a swap of neighbours counted as one change.
fn distance(a: &str, b: &str) -> usize {
    // Nobody types a command of that length; the bound keeps the work small on hostile input.
    let a: Vec<char> = a.chars().take(40).collect();
    let b: Vec<char> = b.chars().take(40).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (get(&last, j) + usize::from(ca != cb)).min(get(&last, j + 1) + 1).min(get(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca) {
                best = best.min(get(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["dumpheap", "dumpobj", "gcroot", "gcwhere", "do"];
        assert_eq!(similar("dumphaep", names.into_iter()), Some("dumpheap"));
        assert_eq!(similar("dumphep", names.into_iter()), Some("dumpheap"));
        assert_eq!(similar("GCROT", names.into_iter()), Some("gcroot"));
        assert_eq!(similar("gcw", names.into_iter()), Some("gcwhere"));
        assert_eq!(similar("nosuchcommand", names.into_iter()), None);
        assert_eq!(similar("", names.into_iter()), None);
        assert_eq!(similar("1", ["q", "r"].into_iter()), None);
        assert_eq!(similar("nosuch", ["n", "name"].into_iter()), None);
    }
}
