//! The trace header: where the stream's clock stands against UTC, and who wrote it.

use crate::cursor::{Cursor, OutOfBytes};

/// The first object of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceInfo {
    /// Version of the format: 4 or 6.
    pub format: u32,
    /// UTC when the clock stood at [`TraceInfo::sync_ticks`], in nanoseconds since 1970; exact to a millisecond.
    pub sync_unix_nanos: i64,
    /// The clock at that moment. On Linux CLOCK_MONOTONIC.
    pub sync_ticks: i64,
    /// Ticks of the clock in a second; never 0.
    pub ticks_per_second: i64,
    /// Bytes of a pointer in the target: 4 or 8.
    pub pointer_size: u32,
    /// The target's process id in its own pid namespace; `None` where the header does not tell.
    pub process_id: Option<u32>,
    /// Number of processors that the target saw.
    pub processors: Option<u32>,
}

impl TraceInfo {
    /// Version 4: 48 bytes of fixed layout.
    pub(crate) fn read_v4(bytes: &[u8]) -> Result<Self, OutOfBytes> {
        let mut cursor = Cursor::new(bytes);
        let mut info = Self::read_common(&mut cursor, 4)?;
        info.process_id = u32::try_from(cursor.i32()?).ok();
        info.processors = u32::try_from(cursor.i32()?).ok();
        cursor.i32()?; // the sampling interval the profiler hopes for; always 1 ms
        Ok(info)
    }

    /// Version 6: the same start, then key-value pairs.
    pub(crate) fn read_v6(bytes: &[u8]) -> Result<Self, OutOfBytes> {
        let mut cursor = Cursor::new(bytes);
        let mut info = Self::read_common(&mut cursor, 6)?;
        let count = cursor.u32()?;
        for _ in 0..count {
            let key = cursor.utf8_counted()?;
            let value = cursor.utf8_counted()?;
            match key.as_str() {
                "ProcessId" => info.process_id = value.parse().ok(),
                "HardwareThreadCount" => info.processors = value.parse().ok(),
                _ => {}
            }
        }
        Ok(info)
    }

    fn read_common(cursor: &mut Cursor<'_>, format: u32) -> Result<Self, OutOfBytes> {
        let (year, month) = (cursor.i16()?, cursor.i16()?);
        cursor.i16()?; // day of the week
        let day = cursor.i16()?;
        let mut millis = 0i64;
        for factor in [3_600_000, 60_000, 1_000, 1] {
            millis += i64::from(cursor.i16()?) * factor;
        }
        let days = days_since_1970(i64::from(year), i64::from(month), i64::from(day));
        Ok(Self {
            format,
            sync_unix_nanos: (days * 86_400_000 + millis).saturating_mul(1_000_000),
            sync_ticks: cursor.i64()?,
            // A clock that stands still would make every computation below divide by zero.
            ticks_per_second: cursor.i64()?.max(1),
            pointer_size: if cursor.i32()? == 4 { 4 } else { 8 },
            process_id: None,
            processors: None,
        })
    }

    /// UTC of a timestamp of this stream, in nanoseconds since 1970.
    #[must_use]
    pub fn unix_nanos(&self, timestamp: u64) -> i64 {
        let ticks = i128::from(timestamp) - i128::from(self.sync_ticks);
        let nanos =
            ticks * 1_000_000_000 / i128::from(self.ticks_per_second) + i128::from(self.sync_unix_nanos);
        i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (any i16 year; month and day out of range just count on).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last day of a year; an era has 400 years.
    let years = year + (month - 3).div_euclid(12);
    let month = (month - 3).rem_euclid(12);
    let (era, year_of_era) = (years.div_euclid(400), years.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(days_since_1970(2026, 11, 22), 20_779);
        assert_eq!(days_since_1970(1600, 2, 29), -135_081);
    }

    #[test]
    fn ticks_become_utc() {
        let info = TraceInfo {
            format: 4,
            sync_unix_nanos: 1_000_000_000,
            sync_ticks: 500,
            ticks_per_second: 1000,
            pointer_size: 8,
            process_id: None,
            processors: None,
        };
        assert_eq!(info.unix_nanos(1500), 2_000_000_000);
        assert_eq!(info.unix_nanos(0), 500_000_000);
        // No overflow, whatever the stream claims.
        assert_eq!(info.unix_nanos(u64::MAX), i64::MAX);
    }
}
