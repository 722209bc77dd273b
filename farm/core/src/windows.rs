//! Maintenance windows of hosts: times in which a host gets no builds, and before which it gets only
//! builds that usually end in time.
//!
//! The store has one occurrence of each window: the present one or the next. Its clock decides. When an
//! occurrence of a weekly window is over, a coordinator replaces it by the next one; until then the window
//! counts as open, so that no occurrence is missed.

use std::fmt;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// The duration of a build of which none is known.
pub const UNKNOWN_MS: u64 = 600_000;
/// The longest window that is no weekly one.
const DAYS_MAX: i64 = 31;
/// The most days of which one has the next occurrence.
const SEARCHED_DAYS: i64 = 9;

/// The number of a window in its farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WindowId(pub u64);

/// The time of one maintenance, in milliseconds since 1970 by the clock of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occurrence {
    /// The begin.
    pub opens_ms: u64,
    /// The end.
    pub closes_ms: u64,
}

/// A window that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWindow {
    /// The first occurrence.
    pub occurrence: Occurrence,
    /// The days and times at which it comes back.
    pub weekly: Option<Weekly>,
    /// The reason, for people.
    pub reason: String,
}

/// A window of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The number.
    pub id: WindowId,
    /// The present occurrence or the next one.
    pub occurrence: Occurrence,
    /// The days and times at which it comes back.
    pub weekly: Option<Weekly>,
    /// The reason, for people.
    pub reason: String,
}

impl Window {
    /// Returns true if the host gets no builds at a time of the store.
    pub fn is_open(&self, now_ms: u64) -> bool {
        let Occurrence {
            opens_ms,
            closes_ms,
        } = self.occurrence;
        opens_ms <= now_ms && (now_ms < closes_ms || self.weekly.is_some())
    }

    /// Returns true if its occurrence is over.
    pub fn is_over(&self, now_ms: u64) -> bool {
        self.occurrence.closes_ms <= now_ms
    }
}

/// Returns the time until the next window begins that is not open yet.
pub fn opens_in_ms<'a>(windows: impl IntoIterator<Item = &'a Window>, now_ms: u64) -> Option<u64> {
    let windows = windows.into_iter();
    let left = windows.filter_map(|it| it.occurrence.opens_ms.checked_sub(now_ms));
    left.filter(|it| *it > 0).min()
}

/// Returns true if a build usually ends before a window that begins after this time.
pub fn ends_before(opens_in_ms: Option<u64>, usual_ms: Option<u64>) -> bool {
    opens_in_ms.is_none_or(|left| usual_ms.unwrap_or(UNKNOWN_MS) <= left)
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// All days, with their names.
    pub const ALL: [(Self, &'static str, Weekday); 7] = [
        (Self::Mon, "mon", Weekday::Monday),
        (Self::Tue, "tue", Weekday::Tuesday),
        (Self::Wed, "wed", Weekday::Wednesday),
        (Self::Thu, "thu", Weekday::Thursday),
        (Self::Fri, "fri", Weekday::Friday),
        (Self::Sat, "sat", Weekday::Saturday),
        (Self::Sun, "sun", Weekday::Sunday),
    ];

    fn is(self, weekday: Weekday) -> bool {
        Self::ALL
            .iter()
            .any(|(day, _, it)| *day == self && *it == weekday)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(day, ..)| day == self);
        f.pad(name.map_or("", |(_, name, _)| name))
    }
}

impl std::str::FromStr for Day {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let lower = text.to_ascii_lowercase();
        let found = Self::ALL.iter().find(|(_, name, _)| *name == lower);
        found
            .map(|(day, ..)| *day)
            .ok_or_else(|| WindowError::Day(text.to_owned()))
    }
}

/// Days and times in a time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weekly {
    /// The days on which it begins.
    pub days: Vec<Day>,
    /// The time at which it begins.
    pub from: Time,
    /// The time at which it ends, on the next day if it is not after the begin.
    pub until: Time,
    /// The time zone, such as `Europe/Berlin`.
    pub zone: String,
}

impl fmt::Display for Weekly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<_> = self.days.iter().map(ToString::to_string).collect();
        let (from, until) = (self.from.strftime("%H:%M"), self.until.strftime("%H:%M"));
        write!(f, "{} {from}–{until} {}", days.join(","), self.zone)
    }
}

/// A window that cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Its end is not after its begin.
    #[error("the window ends at {until}, which is not after its begin at {from}")]
    Empty {
        /// The begin.
        from: Timestamp,
        /// The end.
        until: Timestamp,
    },
    /// It is over.
    #[error("the window has ended already, at {0}")]
    Past(Timestamp),
    /// It is very long.
    #[error(
        "a window lasts {DAYS_MAX} days at most; `buildhost drain HOST` without times lasts until `undrain`"
    )]
    Long,
    /// It names no day.
    #[error("a weekly window needs a day, such as sun")]
    NoDay,
    /// It names a day that does not exist.
    #[error("the days of the week are mon, tue, wed, thu, fri, sat, sun, not {0}")]
    Day(String),
    /// The time zone does not exist.
    #[error("the time zone {0} is not known; zones are such as Europe/Berlin or UTC")]
    Zone(String),
    /// The calendar ends.
    #[error("the window is too far away")]
    Calendar,
}

/// A window as a client requests it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowRequest {
    /// The begin of a window that does not come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The days and times of a weekly window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<Weekly>,
    /// The reason, for people.
    #[serde(default)]
    pub reason: String,
}

/// Returns the window of a request. `zone` finds a time zone by its name.
///
/// # Errors
/// The window has no time, or a weekly one is wrong.
pub fn window(
    request: WindowRequest,
    now: Timestamp,
    zone: impl Fn(&str) -> Option<TimeZone>,
) -> Result<NewWindow, WindowError> {
    let occurrence = match (&request.weekly, request.from, request.until) {
        (Some(weekly), None, None) => next(weekly, now, zone)?,
        (None, Some(from), Some(until)) if from >= until => {
            return Err(WindowError::Empty { from, until });
        }
        (None, Some(_), Some(until)) if until <= now => return Err(WindowError::Past(until)),
        (None, Some(from), Some(until)) => {
            if until.duration_since(from).as_hours() > 24 * DAYS_MAX {
                return Err(WindowError::Long);
            }
            occurrence(from, until)?
        }
        _ => return Err(WindowError::NoDay),
    };
    Ok(NewWindow {
        occurrence,
        weekly: request.weekly,
        reason: request.reason,
    })
}

/// Returns the present occurrence of a weekly window, or else the next one.
///
/// # Errors
/// It has no day or no time zone that is known.
pub fn next(
    weekly: &Weekly,
    now: Timestamp,
    zone: impl Fn(&str) -> Option<TimeZone>,
) -> Result<Occurrence, WindowError> {
    if weekly.days.is_empty() {
        return Err(WindowError::NoDay);
    }
    let unknown = || WindowError::Zone(weekly.zone.clone());
    let zone = zone(&weekly.zone).ok_or_else(unknown)?;
    let today = now.to_zoned(zone.clone()).date();
    // One that began yesterday may still be open.
    for day in -1..SEARCHED_DAYS {
        let date = later(today, day)?;
        if !weekly.days.iter().any(|it| it.is(date.weekday())) {
            continue;
        }
        let end = if weekly.until > weekly.from {
            date
        } else {
            later(date, 1)?
        };
        let at = |date: Date, time| {
            let zoned = date.to_datetime(time).to_zoned(zone.clone());
            zoned
                .map(|it| it.timestamp())
                .map_err(|_| WindowError::Calendar)
        };
        let (from, until) = (at(date, weekly.from)?, at(end, weekly.until)?);
        // A time that a clock change skips or repeats may leave nothing of it.
        if until > now && until > from {
            return occurrence(from, until);
        }
    }
    Err(WindowError::Calendar)
}

fn later(date: Date, days: i64) -> Result<Date, WindowError> {
    let span: Span = days.days();
    date.checked_add(span).map_err(|_| WindowError::Calendar)
}

fn occurrence(from: Timestamp, until: Timestamp) -> Result<Occurrence, WindowError> {
    let milliseconds = |at: Timestamp| u64::try_from(at.as_millisecond());
    match (milliseconds(from), milliseconds(until)) {
        (Ok(opens_ms), Ok(closes_ms)) => Ok(Occurrence {
            opens_ms,
            closes_ms,
        }),
        _ => Err(WindowError::Calendar),
    }
}

#[cfg(test)]
mod tests;
