//! Lists of builds: filters, order and pages.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Build, State, Submitter};
use crate::names::{BuildId, MachineName, ProjectName, ScheduleName, ToolchainName};
use crate::task::Outcome;

/// The largest number of builds on a page.
pub const LISTED_MAX: u32 = 1000;

/// The query of `GET /api/v1/builds`. A filter that is `None` matches all builds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListQuery {
    /// The machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// The toolchain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<ToolchainName>,
    /// The outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// The submitter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// The schedule that submitted the build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleName>,
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
    /// The target, or a package that the build produced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The earliest time of submission; with [`Sort::Finished`], of the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The time before which the build was submitted or ended, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The build whose number is greater.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<BuildId>,
    /// The order.
    pub sort: Sort,
    /// Lists the smallest values first instead of the greatest.
    pub reverse: bool,
    /// The position after which the page starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Cursor>,
    /// The length of the page; by default [`LISTED_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl ListQuery {
    /// Returns the largest number of builds on the page.
    pub fn count(&self) -> u32 {
        self.count.unwrap_or(LISTED_MAX).min(LISTED_MAX)
    }

    /// Returns the query for the page after `page`, or `None` if that is the last one.
    pub fn next(&self, page: &[Build]) -> Option<Self> {
        let is_full = u32::try_from(page.len()).is_ok_and(|count| count >= self.count());
        let last = page.last().filter(|_| is_full)?;
        Some(Self {
            from: Some(Cursor::of(last, self.sort)),
            ..self.clone()
        })
    }
}

/// The orders of builds. Builds with equal values are ordered by their numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// By the time of submission.
    #[default]
    Submitted,
    /// By the time of the end, without unfinished builds.
    Finished,
    /// By duration, without unfinished builds.
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
        let name = Self::ALL.iter().find(|(sort, _)| sort == self);
        f.pad(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(sort, _)| *sort).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join("`, `");
            format!("builds are sorted by `{names}`, not by `{text}`")
        })
    }
}

/// A position in a list of builds: the sort key and the number of a build. It stays valid
/// when the build is deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// The sort key.
    pub key: SortKey,
    /// The number.
    pub id: BuildId,
}

/// A value that builds are sorted by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SortKey {
    /// A time.
    Time(Timestamp),
    /// A number of seconds.
    Seconds(f64),
}

impl Cursor {
    /// Returns the position of a build.
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
        let parse = || {
            let (key, id) = text.split_once(',')?;
            let seconds = || key.parse().ok().filter(|it: &f64| it.is_finite());
            let key = match key.parse() {
                Ok(time) => SortKey::Time(time),
                Err(_) => SortKey::Seconds(seconds()?),
            };
            let id = id.parse().ok()?;
            Some(Self { key, id })
        };
        parse().ok_or_else(|| format!("`{text}` is not the `from` of a next page"))
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
    fn a_displayed_cursor_parses_to_the_same_position() {
        for text in ["2026-11-21T00:00:00.000000001Z,42", "0.1,7", "2.0,1"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for text in ["", "42", "x,1", "inf,1", "2026-11-21T00:00:00Z,-1", "1.0,"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn queries_with_unknown_keys_or_orders_are_rejected() {
        let query: ListQuery = serde_json::from_str(r#"{"sort": "finished"}"#).unwrap();
        assert_eq!(query.sort, Sort::Finished);
        for text in [r#"{"colour": "red"}"#, r#"{"sort": "luck"}"#] {
            assert!(serde_json::from_str::<ListQuery>(text).is_err(), "{text}");
        }
    }
}
