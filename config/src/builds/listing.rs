//! Which builds are asked for, in what order, and where one page ends and the next
//! begins.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Build, State, Submitter};
use crate::names::{BuildId, MachineName, ScheduleName, ToolchainName};
use crate::task::Outcome;

/// How many builds one answer holds, at the most.
pub const LISTED_MAX: u32 = 1000;

/// The query of `GET /api/v1/builds`. What is left out leaves nothing out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListQuery {
    /// Built on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// Built with this toolchain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<ToolchainName>,
    /// Ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// As far as this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Asked for by this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// Asked for by this schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleName>,
    /// What is built is called so, or a package that came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Asked for then or later; sorted by [`Sort::Finished`], ended then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Before then, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// With a smaller number than this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<BuildId>,
    /// What counts for the order.
    pub sort: Sort,
    /// The smallest first; else the greatest.
    pub reverse: bool,
    /// Go on after this one of an earlier answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Cursor>,
    /// How many; [`LISTED_MAX`] when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl ListQuery {
    /// How many builds an answer holds, at the most.
    pub fn count(&self) -> u32 {
        self.count.unwrap_or(LISTED_MAX).min(LISTED_MAX)
    }

    /// The same listing from where an answer ended; `None` when there is no more.
    pub fn next(&self, answer: &[Build]) -> Option<Self> {
        let full = u32::try_from(answer.len()).is_ok_and(|count| count >= self.count());
        let last = answer.last().filter(|_| full)?;
        Some(Self {
            from: Some(Cursor::of(last, self.sort)),
            ..self.clone()
        })
    }
}

/// What counts for the order of builds; of two that are equal, their numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// When they were asked for.
    #[default]
    Submitted,
    /// When they ended; those that have not are left out.
    Finished,
    /// How long they took; those that have not ended are left out.
    Seconds,
}

impl Sort {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Submitted, "submitted"),
        (Self::Finished, "finished"),
        (Self::Seconds, "seconds"),
    ];
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(sort, _)| sort == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found.map(|(sort, _)| *sort).ok_or_else(|| {
            let words = Self::ALL.map(|(_, word)| word).join("`, `");
            format!("builds are sorted by `{words}`, not by `{text}`")
        })
    }
}

/// A place in a listing: what the build there is sorted by, and its number. It holds
/// when that build is deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// What it is sorted by.
    pub key: SortKey,
    /// Its number.
    pub id: BuildId,
}

/// What a build is sorted by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SortKey {
    /// A time.
    Time(Timestamp),
    /// A number of seconds.
    Seconds(f64),
}

impl Cursor {
    /// The place of a build.
    pub fn of(build: &Build, sort: Sort) -> Self {
        let key = match sort {
            Sort::Submitted => SortKey::Time(build.submitted),
            Sort::Finished => SortKey::Time(build.finished.unwrap_or(build.submitted)),
            Sort::Seconds => SortKey::Seconds(build.seconds().unwrap_or_default()),
        };
        Self { key, id: build.id }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            SortKey::Time(time) => write!(f, "{time},{}", self.id),
            SortKey::Seconds(seconds) => write!(f, "{seconds:?},{}", self.id),
        }
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (key, id) = text.split_once(',')?;
            let number = || key.parse().ok().filter(|it: &f64| it.is_finite());
            let key = match key.parse() {
                Ok(time) => SortKey::Time(time),
                Err(_) => SortKey::Seconds(number()?),
            };
            let id = id.parse().ok()?;
            Some(Self { key, id })
        };
        read().ok_or_else(|| format!("`{text}` is no place where a listing goes on"))
    }
}

impl TryFrom<String> for Cursor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for text in ["2026-11-21T00:00:00.000000001Z,42", "0.1,7", "2.0,1"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for text in ["", "42", "x,1", "inf,1", "2026-11-21T00:00:00Z,-1", "1.0,"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_listing_with_a_strange_key_is_refused() {
        let listing: ListQuery = serde_json::from_str(r#"{"sort": "finished"}"#).unwrap();
        assert_eq!(listing.sort, Sort::Finished);
        for text in [r#"{"colour": "red"}"#, r#"{"sort": "luck"}"#] {
            assert!(serde_json::from_str::<ListQuery>(text).is_err(), "{text}");
        }
    }
}
