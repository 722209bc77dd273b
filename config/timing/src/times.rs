//! The times of a timing, as a pure computation. Each occurs once, even when clocks are set
//! forward or back.

use config::schedule::{Cron, Timing};
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// The minimum interval between runs.
const EVERY_MIN: SignedDuration = SignedDuration::from_secs(1);
/// The maximum interval between runs.
const EVERY_MAX: SignedDuration = SignedDuration::from_hours(24 * 366 * 10);
/// The maximum length of a pattern, in bytes.
const PATTERN_MAX: usize = 200;

/// A reason why a timing is invalid.
#[derive(Debug, thiserror::Error)]
pub enum TimingError {
    /// The pattern cannot be parsed.
    #[error(
        "`{0}` is not a cron pattern ({1}); write minute, hour, day of month, month and day of week, such as `0 3 * * MON-FRI`"
    )]
    Pattern(String, CronError),
    /// The pattern is not a short line of text.
    #[error("a cron pattern is one line of at most {PATTERN_MAX} bytes")]
    Long,
    /// The time zone is unknown.
    #[error("this computer knows no time zone `{0}`; names are like `Europe/Berlin` and `UTC`")]
    Zone(String),
    /// The interval is too short or too long.
    #[error("the interval of a schedule is at least one second and at most ten years")]
    Span,
}

/// The times of a timing.
#[derive(Debug, Clone)]
pub enum Times {
    /// One time.
    Once(Timestamp),
    /// Times at a fixed interval.
    Every {
        /// The start of the first interval.
        from: Timestamp,
        /// The interval.
        span: SignedDuration,
    },
    /// Times by the calendar.
    Calendar(Box<Calendar>),
}

/// A cron pattern in a time zone.
#[derive(Debug, Clone)]
pub struct Calendar {
    cron: croner::Cron,
    /// True if the pattern matches every hour: it then follows elapsed time, not the clock.
    all_hours: bool,
    zone: TimeZone,
}

impl Times {
    /// Returns the times of a timing that was added at `added`.
    ///
    /// # Errors
    /// The timing is invalid.
    pub fn new(timing: &Timing, added: Timestamp) -> Result<Self, TimingError> {
        match timing {
            Timing::At(time) => Ok(Self::Once(*time)),
            Timing::Every(span) if (EVERY_MIN..=EVERY_MAX).contains(span) => Ok(Self::Every {
                from: added,
                span: *span,
            }),
            Timing::Every(_) => Err(TimingError::Span),
            Timing::Cron(cron) => Calendar::new(cron).map(|it| Self::Calendar(Box::new(it))),
        }
    }

    /// Returns the first time after `since`.
    pub fn after(&self, since: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Once(time) => (*time > since).then_some(*time),
            Self::Every { from, span } => {
                let (passed, span) = (since.duration_since(*from).as_nanos(), span.as_nanos());
                let count = passed.div_euclid(span) + 1;
                Timestamp::from_nanosecond(from.as_nanosecond() + count * span).ok()
            }
            Self::Calendar(calendar) => calendar.after(since),
        }
    }
}

impl Calendar {
    fn new(cron: &Cron) -> Result<Self, TimingError> {
        let pattern = cron.pattern.as_str();
        if pattern.len() > PATTERN_MAX || pattern.contains(char::is_control) {
            return Err(TimingError::Long);
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let parsed = parser.parse(pattern);
        let parsed = parsed.map_err(|error| TimingError::Pattern(pattern.to_owned(), error))?;
        let hours = pattern.split_whitespace().nth(1);
        let all_hours = hours.map_or_else(
            || pattern.trim().eq_ignore_ascii_case("@hourly"),
            |hours| hours.starts_with('*'),
        );
        let name = cron.zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|_| TimingError::Zone(name.to_owned()))?;
        Ok(Self {
            cron: parsed,
            all_hours,
            zone,
        })
    }

    /// Returns the first match after `since`. As in cron, a pattern with hours matches once per
    /// day and clock time, and a pattern without hours follows elapsed time.
    fn after(&self, since: Timestamp) -> Option<Timestamp> {
        let since_zoned = since.to_zoned(self.zone.clone());
        if self.all_hours {
            let next = self.cron.find_next_occurrence(&since_zoned, false).ok()?;
            return Some(next.timestamp());
        }
        let mut shown = since_zoned.datetime();
        loop {
            shown = self.cron.find_next_occurrence(&shown, false).ok()?;
            let time = self.first(shown)?;
            // A clock that was set back repeats times.
            if time > since {
                return Some(time);
            }
        }
    }

    /// Returns the time at which clocks first show this, or skip it.
    fn first(&self, shown: DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(shown);
        let is_skipped = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
        let earlier = ambiguous.earlier().ok()?;
        if !is_skipped {
            return Some(earlier);
        }
        let set_forward = self.zone.following(earlier).next();
        set_forward.map(|transition| transition.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cron(pattern: &str, zone: &str) -> Result<Times, TimingError> {
        let timing = Timing::Cron(Cron {
            pattern: pattern.to_owned(),
            zone: Some(zone.to_owned()),
        });
        Times::new(&timing, Timestamp::UNIX_EPOCH)
    }

    fn berlin(text: &str) -> Timestamp {
        let civil: DateTime = text.parse().unwrap();
        civil.in_tz("Europe/Berlin").unwrap().timestamp()
    }

    /// Returns the next times of a pattern in Berlin, as local time.
    fn next(pattern: &str, since: &str, count: usize) -> Vec<String> {
        let times = cron(pattern, "Europe/Berlin").unwrap();
        let mut since = berlin(since);
        let mut all = Vec::new();
        for _ in 0..count {
            since = times.after(since).unwrap();
            let zoned = since.in_tz("Europe/Berlin").unwrap();
            all.push(zoned.strftime("%d %H:%M %:z").to_string());
        }
        all
    }

    #[test]
    fn a_skipped_time_occurs_when_the_clock_is_set_forward() {
        for (pattern, expected) in [
            ("30 2 * * *", ["29 03:00 +02:00", "30 02:30 +02:00"]),
            ("0,30 2 * * *", ["29 03:00 +02:00", "30 02:00 +02:00"]),
            ("0 2,3 * * *", ["29 03:00 +02:00", "30 02:00 +02:00"]),
            ("15 3 * * *", ["29 03:15 +02:00", "30 03:15 +02:00"]),
            ("0 * * * *", ["28 13:00 +01:00", "28 14:00 +01:00"]),
        ] {
            assert_eq!(next(pattern, "2026-03-28T12:00", 2), expected, "{pattern}");
        }
        let hourly = next("30 * * * *", "2026-03-29T00:45", 2);
        assert_eq!(hourly, ["29 01:30 +01:00", "29 03:30 +02:00"]);
    }

    #[test]
    fn a_repeated_time_occurs_once_and_every_hour_occurs() {
        for (pattern, expected) in [
            ("30 2 * * *", ["25 02:30 +02:00", "26 02:30 +01:00"]),
            ("0,30 2 * * *", ["25 02:00 +02:00", "25 02:30 +02:00"]),
            ("15 3 * * *", ["25 03:15 +01:00", "26 03:15 +01:00"]),
        ] {
            assert_eq!(next(pattern, "2026-10-24T12:00", 2), expected, "{pattern}");
        }
        let times = next("0,30 2 * * *", "2026-10-24T12:00", 3);
        assert_eq!(times[2], "26 02:00 +01:00");
        let hourly = next("0 * * * *", "2026-10-25T01:30", 3);
        assert_eq!(
            hourly,
            ["25 02:00 +02:00", "25 02:00 +01:00", "25 03:00 +01:00"]
        );
        // While the clock shows the time for the second time.
        let second: Timestamp = "2026-10-25T02:10:00+01:00".parse().unwrap();
        let times = cron("30 2 * * *", "Europe/Berlin").unwrap();
        let next = times.after(second).unwrap();
        assert_eq!(next, berlin("2026-10-26T02:30"));
    }

    #[test]
    fn names_and_shorthands_are_parsed_and_nonsense_is_refused() {
        assert_eq!(
            next("0 3 * JAN MON-FRI", "2026-12-31T00:00", 1),
            ["01 03:00 +01:00"]
        );
        assert_eq!(next("@daily", "2026-12-31T00:00", 1), ["01 00:00 +01:00"]);
        for pattern in [
            "",
            "* * *",
            "61 * * * *",
            "0 0 * * * *",
            "@reboot",
            "a b c d e",
            "x\ny",
        ] {
            assert!(cron(pattern, "UTC").is_err(), "{pattern}");
        }
        assert!(matches!(
            cron("@daily", "Berlin"),
            Err(TimingError::Zone(_))
        ));
        assert!(matches!(cron("@daily", "../x"), Err(TimingError::Zone(_))));
        let never = cron("0 0 30 2 *", "UTC").unwrap();
        assert_eq!(never.after(Timestamp::UNIX_EPOCH), None);
        for seconds in [-1, 0, i64::MAX] {
            let every = Timing::Every(SignedDuration::from_secs(seconds));
            assert!(Times::new(&every, Timestamp::UNIX_EPOCH).is_err());
        }
    }

    proptest! {
        #[test]
        fn the_next_time_is_the_earliest_later_one(
            pattern in prop::sample::select(vec![
                "* * * * *", "*/7 * * * *", "0,20,40 1-3 * * *", "30 2 * * *", "0 */2 * * *",
                "5 0 1 * *", "59 23 * * SUN", "0 3 28-31 * *",
            ]),
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata",
            ]),
            second in 1_740_000_000i64..1_800_000_000,
            earlier in 1i64..200_000,
        ) {
            let since = Timestamp::from_second(second).unwrap();
            let times = cron(pattern, zone).unwrap();
            let next = times.after(since).unwrap();
            prop_assert!(next > since);
            let before = times.after(Timestamp::from_second(second - earlier).unwrap()).unwrap();
            prop_assert!(before <= next && (before == next || before <= since));
        }

        #[test]
        fn an_interval_keeps_its_phase(
            from in 0i64..4_000_000_000, since in 0i64..4_000_000_000, span in 1i64..1_000_000,
        ) {
            let at = |second| Timestamp::from_second(second).unwrap();
            let every = Timing::Every(SignedDuration::from_secs(span));
            let next = Times::new(&every, at(from)).unwrap().after(at(since)).unwrap();
            prop_assert!(next > at(since) && next <= at(since + span));
            prop_assert_eq!((next.as_second() - from).rem_euclid(span), 0);
        }
    }
}
