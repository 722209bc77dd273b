//! The times at which the bytes of a log arrived, in a file beside the log: lines with an offset
//! and a time, at most ten per second.
//!
//! The times are not part of the log, which stays what the guest has printed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The smallest time between two entries.
const INTERVAL: Duration = Duration::from_millis(100);

/// The decision which arrivals get an entry.
#[derive(Debug, Default)]
pub(super) struct LineTimes {
    last: Option<Duration>,
}

impl LineTimes {
    /// Returns the entry for bytes that arrived at `now` and begin at `offset` of the log; `None`
    /// shortly after another entry.
    pub(super) fn entry(&mut self, offset: u64, now: SystemTime) -> Option<String> {
        let now = now.duration_since(UNIX_EPOCH).ok()?;
        // A clock that was set back starts again.
        let is_near = |last: Duration| now.checked_sub(last).is_some_and(|since| since < INTERVAL);
        if self.last.is_some_and(is_near) {
            return None;
        }
        self.last = Some(now);
        Some(format!("{offset} {}\n", now.as_millis()))
    }
}

/// Parses entries: offsets, and milliseconds since 1970. Ignores an incomplete line.
pub fn parse(text: &str) -> impl Iterator<Item = (u64, i64)> {
    text.split_inclusive('\n').filter_map(|line| {
        let (offset, time) = line.strip_suffix('\n')?.split_once(' ')?;
        Some((offset.parse().ok()?, time.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_at_least_a_tenth_of_a_second_apart() {
        let mut times = LineTimes::default();
        let mut text = String::new();
        for (offset, milliseconds) in [(0, 1000), (5, 1050), (9, 1100), (20, 900), (30, 5000)] {
            let now = UNIX_EPOCH + Duration::from_millis(milliseconds);
            text.extend(times.entry(offset, now));
        }
        text.push_str("40 60");
        let entries: Vec<_> = parse(&text).collect();
        assert_eq!(entries, [(0, 1000), (9, 1100), (20, 900), (30, 5000)]);
    }
}
