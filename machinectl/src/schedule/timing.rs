//! When a schedule runs, as people write it.

use clap::Args;
use config::schedule::{Cron, Timing};
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, Zoned};

/// When a schedule runs: one of these.
#[derive(Debug, Args)]
pub(super) struct When {
    #[command(flatten)]
    which: Which,
    /// The time zone that --at and --cron mean; the host's when it is left out
    #[arg(long, value_name = "NAME", conflicts_with = "every")]
    zone: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Once: 2026-11-22T03:00, with a zone or without, or the next 03:00
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Again and again, so long after each other: 90m, 6h, 1week
    #[arg(long, value_name = "SPAN", value_parser = span)]
    every: Option<SignedDuration>,
    /// Whenever a clock shows this: minute, hour, day of the month, month, day of the
    /// week, with `*`, `,`, `-`, `/` and names; also @hourly, @daily, @weekly, @monthly
    ///
    /// A time that is skipped when clocks are set forward comes at that moment; one that
    /// clocks show twice comes once, the first time. With `*` for the hour it goes on as
    /// time does.
    #[arg(long, value_name = "PATTERN")]
    cron: Option<String>,
}

impl When {
    /// What was meant.
    pub(super) fn timing(&self, now: &Zoned) -> Result<Timing, String> {
        let Which { at, every, cron } = &self.which;
        if let Some(pattern) = cron {
            return Ok(Timing::Cron(Cron {
                pattern: pattern.clone(),
                zone: self.zone.clone(),
            }));
        }
        if let Some(span) = every {
            return Ok(Timing::Every(*span));
        }
        let now = match &self.zone {
            Some(name) => now.with_time_zone(zone(name)?),
            None => now.clone(),
        };
        moment(at.as_deref().unwrap_or_default(), &now).map(Timing::At)
    }
}

/// A time as clocks show it where the schedule is meant for, or else here.
pub(super) fn local(timing: &Timing, time: Timestamp) -> Zoned {
    let named = match timing {
        Timing::Cron(cron) => cron.zone.as_deref(),
        Timing::At(_) | Timing::Every(_) => None,
    };
    let known = named.and_then(|name| TimeZone::get(name).ok());
    time.to_zoned(known.unwrap_or_else(TimeZone::system))
}

fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("there is no time zone `{name}` here; `Europe/Berlin` is such a name"))
}

/// A span as people write it; days and weeks are those of 24 hours.
fn span(text: &str) -> Result<SignedDuration, String> {
    let span: Result<Span, _> = text.parse();
    let span = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    span.map_err(|_| {
        "expected a span such as 90m, 6h or 2days; for months and years there is --cron".to_owned()
    })
}

/// The moment that a text means.
fn moment(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let there = |civil: DateTime| civil.to_zoned(now.time_zone().clone());
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Ok(zoned.timestamp());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        return there(civil)
            .map(|it| it.timestamp())
            .map_err(|error| error.to_string());
    }
    let next = || {
        let time: Time = text.parse().ok()?;
        let today = there(now.date().to_datetime(time)).ok()?;
        if today > *now {
            return Some(today);
        }
        there(now.date().tomorrow().ok()?.to_datetime(time)).ok()
    };
    next().map(|it| it.timestamp()).ok_or_else(|| {
        format!("`{text}` is no time; 2026-11-22T03:00, 2026-11-22T03:00+01:00 and 03:00 are")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let now: Zoned = "2026-11-21T12:00[Europe/Berlin]".parse().unwrap();
        for (text, expected) in [
            ("2026-11-22T03:00:00Z", "2026-11-22T03:00:00Z"),
            ("2026-11-22T03:00+01:00", "2026-11-22T02:00:00Z"),
            ("2026-11-22T03:00[America/New_York]", "2026-11-22T08:00:00Z"),
            ("2026-11-22T03:00", "2026-11-22T02:00:00Z"),
            ("2026-11-22 03:00", "2026-11-22T02:00:00Z"),
            ("2026-11-22", "2026-11-21T23:00:00Z"),
            ("13:00", "2026-11-21T12:00:00Z"),
            ("12:00", "2026-11-22T11:00:00Z"),
            ("03:00:30", "2026-11-22T02:00:30Z"),
        ] {
            assert_eq!(
                moment(text, &now).map(|it| it.to_string()),
                Ok(expected.to_owned())
            );
        }
        for text in ["", "tomorrow", "25:00", "2026-13-01", "6h"] {
            assert!(moment(text, &now).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, hours) in [("6h", 6), ("1 day", 24), ("1week 1h", 169), ("PT90M", 1)] {
            assert_eq!(span(text).unwrap().as_hours(), hours, "{text}");
        }
        for text in ["", "6", "1 month", "often"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
