//! The timing of a schedule on the command line.

use clap::Args;
use config::schedule::{Cron, Timing};
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, Zoned};

/// The options that say when a schedule runs.
#[derive(Debug, Args)]
pub(crate) struct When {
    #[command(flatten)]
    pattern: Pattern,
    /// The time zone of --at and --cron; by default that of the host
    #[arg(long, value_name = "NAME", conflicts_with = "every")]
    zone: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Pattern {
    /// Run once: at 2026-11-22T03:00, with or without a zone, or at the next 03:00
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Run repeatedly with this interval: 90m, 6h, 1week
    #[arg(long, value_name = "SPAN", value_parser = span)]
    every: Option<SignedDuration>,
    /// Run by a cron pattern: minute, hour, day of the month, month and day of the week, with
    /// `*`, `,`, `-`, `/` and names; or @hourly, @daily, @weekly, @monthly
    ///
    /// When clocks are set forward, a skipped time runs at that moment; when they are set back, a
    /// repeated time runs once, the first time. A pattern with `*` for the hour ignores both.
    #[arg(long, value_name = "PATTERN")]
    cron: Option<String>,
}

impl When {
    /// Returns the timing that the options describe.
    pub(crate) fn timing(&self, now: &Zoned) -> Result<Timing, String> {
        let Pattern { at, every, cron } = &self.pattern;
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
        time(at.as_deref().unwrap_or_default(), &now).map(Timing::At)
    }
}

/// Returns a time in the zone of the schedule, or in that of the host.
pub(crate) fn local(timing: &Timing, time: Timestamp) -> Zoned {
    let zone = match timing {
        Timing::Cron(cron) => cron.zone.as_deref(),
        Timing::At(_) | Timing::Every(_) => None,
    };
    let known = zone.and_then(|name| TimeZone::get(name).ok());
    time.to_zoned(known.unwrap_or_else(TimeZone::system))
}

fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("no time zone `{name}` on this host; an example is `Europe/Berlin`"))
}

/// Parses a span. Days have 24 hours, weeks seven days.
fn span(text: &str) -> Result<SignedDuration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .map_err(|_| {
            "expected a span such as 90m, 6h or 2days; use --cron for months and years".to_owned()
        })
}

/// Parses a time, with a zone or in the zone of `now`; a time of day is the next such time.
fn time(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Ok(zoned.timestamp());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        return civil
            .to_zoned(now.time_zone().clone())
            .map(|zoned| zoned.timestamp())
            .map_err(|error| error.to_string());
    }
    text.parse()
        .ok()
        .and_then(|time| next(time, now))
        .map(|zoned| zoned.timestamp())
        .ok_or_else(|| {
            format!(
                "`{text}` is not a time; expected 2026-11-22T03:00, 2026-11-22T03:00+01:00 or 03:00"
            )
        })
}

/// Returns the next moment after `now` at which clocks show a time of day.
fn next(time: Time, now: &Zoned) -> Option<Zoned> {
    let zone = now.time_zone();
    let today = now.date().to_datetime(time).to_zoned(zone.clone()).ok()?;
    if today > *now {
        return Some(today);
    }
    let tomorrow = now.date().tomorrow().ok()?.to_datetime(time);
    tomorrow.to_zoned(zone.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_in_the_local_zone() {
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
                time(text, &now).map(|it| it.to_string()),
                Ok(expected.to_owned())
            );
        }
        for text in ["", "tomorrow", "25:00", "2026-13-01", "6h"] {
            assert!(time(text, &now).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_parsed() {
        for (text, hours) in [("6h", 6), ("1 day", 24), ("1week 1h", 169), ("PT90M", 1)] {
            assert_eq!(span(text).unwrap().as_hours(), hours, "{text}");
        }
        for text in ["", "6", "1 month", "often"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
