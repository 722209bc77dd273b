//! The filters of the lists of builds and hosts, as the addresses of their pages have them.

use config::builds::ListQuery;
use farm_core::view::{BuildQuery, HostQuery};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The number of builds or hosts on a page.
pub(crate) const COUNT: u32 = 50;

/// The filters in the order of the form, with their labels.
const KEYS: [(&str, &str); 10] = [
    ("machine", "machine"),
    ("outcome", "outcome"),
    ("state", "state"),
    ("package", "package"),
    ("host", "host"),
    ("submitter", "by"),
    ("project", "project"),
    ("schedule", "schedule"),
    ("since", "since"),
    ("until", "until"),
];

/// The keys that say where a page begins.
const POSITIONS: [&str; 3] = ["from", "before", "after"];

/// The filters of a list, as they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The path of the list.
    path: &'static str,
    pairs: Vec<(String, String)>,
}

/// A filter that can be removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chip {
    pub(crate) label: &'static str,
    pub(crate) value: String,
    /// The address of the list without it.
    pub(crate) without: String,
}

impl Filter {
    /// Reads the query of the address of a list of builds. Empty values, as forms send them, are left out.
    pub fn parse(query: &str) -> Self {
        Self::of_list("/builds", query)
    }

    /// Reads the query of the address of a farm's list of hosts.
    pub fn of_hosts(query: &str) -> Self {
        Self::of_list("/hosts", query)
    }

    fn of_list(path: &'static str, query: &str) -> Self {
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| (key, value.trim().to_owned()))
            .filter(|(_, value)| !value.is_empty());
        Self {
            path,
            pairs: pairs.collect(),
        }
    }

    /// Returns the query of the records.
    ///
    /// # Errors
    /// A filter is unknown, or its value has another form.
    pub fn query(&self, now: Timestamp) -> Result<ListQuery, String> {
        let mut pairs = Vec::new();
        for (key, value) in &self.pairs {
            let value = match key.as_str() {
                "since" | "until" => past_time(value, now)?.to_string(),
                _ => value.clone(),
            };
            pairs.push((key.as_str(), value));
        }
        let text = serde_urlencoded::to_string(&pairs).map_err(|error| error.to_string())?;
        let query: ListQuery =
            serde_urlencoded::from_str(&text).map_err(|error| error.to_string())?;
        Ok(ListQuery {
            count: Some(COUNT),
            ..query
        })
    }

    /// Returns the query of a farm.
    ///
    /// # Errors
    /// A filter is unknown, or its value has another form.
    pub fn farm_query(&self) -> Result<BuildQuery, String> {
        let text = serde_urlencoded::to_string(&self.pairs).map_err(|error| error.to_string())?;
        let query: BuildQuery =
            serde_urlencoded::from_str(&text).map_err(|error| error.to_string())?;
        Ok(BuildQuery {
            count: Some(COUNT),
            ..query
        })
    }

    /// Returns the query of a farm's hosts.
    ///
    /// # Errors
    /// A filter is unknown, or its value has another form.
    pub fn host_query(&self) -> Result<HostQuery, String> {
        let text = serde_urlencoded::to_string(&self.pairs).map_err(|error| error.to_string())?;
        let query: HostQuery =
            serde_urlencoded::from_str(&text).map_err(|error| error.to_string())?;
        Ok(HostQuery {
            count: Some(COUNT),
            ..query
        })
    }

    /// Returns the value of a filter; empty if it is not set.
    pub(crate) fn value(&self, key: &str) -> &str {
        let found = self.pairs.iter().find(|(known, _)| known == key);
        found.map_or("", |(_, value)| value)
    }

    /// Returns true if the page is not the first one.
    pub(crate) fn is_later_page(&self) -> bool {
        POSITIONS.iter().any(|it| !self.value(it).is_empty())
    }

    /// Returns the address of the list with another value for a key; without the key if it is empty.
    pub(crate) fn with(&self, key: &str, value: &str) -> String {
        let kept = self
            .pairs
            .iter()
            .filter(|(known, _)| known != key && !POSITIONS.contains(&known.as_str()));
        let mut pairs: Vec<_> = kept
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        if !value.is_empty() {
            pairs.push((key, value));
        }
        match serde_urlencoded::to_string(pairs).unwrap_or_default() {
            none if none.is_empty() => self.path.to_owned(),
            query => format!("{}?{query}", self.path),
        }
    }

    /// Returns the filters that are set.
    pub(crate) fn chips(&self) -> Vec<Chip> {
        let set = KEYS.iter().filter(|(key, _)| !self.value(key).is_empty());
        let chip = |(key, label): &(&str, &'static str)| Chip {
            label,
            value: self.value(key).to_owned(),
            without: self.with(key, ""),
        };
        set.map(chip).collect()
    }
}

/// Parses a time, or the span since that time: `2h`, `3d`, `2026-11-21`. Times are in UTC.
fn past_time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let now = now.to_zoned(TimeZone::UTC);
    if let Ok(civil) = text.parse::<DateTime>() {
        let zoned = civil.to_zoned(TimeZone::UTC);
        return zoned
            .map(|time| time.timestamp())
            .map_err(|error| error.to_string());
    }
    let span = text.trim_end_matches(" ago").parse::<jiff::Span>();
    let time = span.and_then(|span| now.checked_sub(span.abs()));
    time.map(|time| time.timestamp()).map_err(|_| {
        format!("`{text}` is no time: expected one such as 2026-11-21 or 2026-11-21T08:00 (UTC), or a past span such as 2h or 3d")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_page_is_the_query() {
        let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let filter = Filter::parse("machine=linux&outcome=&package=g%2B%2B&since=2h&from=x");
        assert_eq!(
            filter.with("machine", ""),
            "/builds?package=g%2B%2B&since=2h"
        );
        assert_eq!(
            filter.with("outcome", "error"),
            "/builds?machine=linux&package=g%2B%2B&since=2h&outcome=error"
        );
        let labels = filter
            .chips()
            .into_iter()
            .map(|chip| (chip.label, chip.value));
        assert_eq!(
            labels.collect::<Vec<_>>(),
            [
                ("machine", "linux".to_owned()),
                ("package", "g++".to_owned()),
                ("since", "2h".to_owned()),
            ]
        );
        let query = Filter::parse("machine=linux&since=2h&until=2026-11-21")
            .query(now)
            .unwrap();
        assert_eq!(query.since, Some("2026-11-21T06:00:00Z".parse().unwrap()));
        assert_eq!(query.until, Some("2026-11-21T00:00:00Z".parse().unwrap()));
        assert_eq!(
            (query.count, query.machine.unwrap().as_str()),
            (Some(50), "linux")
        );
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let now = Timestamp::UNIX_EPOCH;
        for (query, expected) in [
            ("since=soon", "`soon` is no time"),
            ("color=red", "unknown field `color`"),
            ("outcome=luck", "luck"),
            ("machine=a/b", "a/b"),
        ] {
            let fault = Filter::parse(query).query(now).unwrap_err();
            assert!(fault.contains(expected), "{query}: {fault}");
        }
    }
}
