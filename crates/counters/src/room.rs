//! How much of a process is kept: what comes from it is not to decide how much memory this one needs.

use crate::sample::{Notice, Series, Update};

/// So many series of a process are kept, unless more time series are asked for. Runtimes keep to their own limit, which
/// is lower.
const MOST_SERIES: usize = 10_000;
/// So many bytes are kept for each of them on average; usual ones take a third.
const BYTES: usize = 4096;
/// So many are kept at most because a process says that somebody else asked for so many.
const MOST_OF_OTHERS: usize = 50_000;
/// What a series takes besides its texts.
const FIXED: usize = 1024;

/// Room for series and what belongs to them.
#[derive(Debug)]
pub(crate) struct Room {
    /// The most series.
    most: usize,
    /// How many more there may be, and of how many bytes.
    series: usize,
    bytes: usize,
    /// Whether it was told that there is no more.
    told: bool,
}

impl Room {
    /// Room for the usual number of series, or for `series` if they are more.
    pub(crate) fn new(series: u32) -> Self {
        let series = MOST_SERIES.max(series as usize);
        Self { most: series, series, bytes: series.saturating_mul(BYTES), told: false }
    }

    /// Makes room for as many series as others have asked for.
    pub(crate) fn allow(&mut self, series: u32) {
        let more = MOST_OF_OTHERS.min(series as usize).saturating_sub(self.most);
        self.most += more;
        self.series += more;
        self.bytes += more * BYTES;
    }

    /// Takes room for a series, if there is enough.
    pub(crate) fn take(&mut self, series: &Series) -> bool {
        let fits = self.series > 0 && self.take_bytes(bytes(series));
        self.series -= usize::from(fits);
        fits
    }

    /// Gives back what was taken for a series.
    pub(crate) fn give(&mut self, series: &Series) {
        self.series += 1;
        self.bytes += bytes(series);
    }

    /// Takes room for something else.
    pub(crate) fn take_bytes(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }

    /// Gives it back.
    pub(crate) fn give_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Tells once that there is no more room.
    pub(crate) fn full(&mut self) -> Option<Update> {
        let told = std::mem::replace(&mut self.told, true);
        (!told).then_some(Update::Notice(Notice::TimeSeriesLimit))
    }
}

/// What a series takes in memory, roughly: names stand in it and in the key that it is found by, tags also taken apart.
fn bytes(series: &Series) -> usize {
    let names = [&series.provider, &series.name, &series.display_name, &series.unit, &series.meter_version];
    let tags = [&series.tags, &series.meter_tags, &series.instrument_tags];
    let names: usize = names.iter().map(|name| name.len()).sum();
    let tags: usize = tags.iter().map(|tags| tags.text().len() + 16 * tags.pairs().len()).sum();
    FIXED + series.description.len() + 2 * names + 3 * tags
}

/// The beginning of a message of the target: for people it is long enough.
pub(crate) fn brief(message: &str) -> String {
    const LONGEST: usize = 2000;
    match message.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
        None => message.to_owned(),
    }
}
