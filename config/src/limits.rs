//! How long a guest may take, and who says so: the host's operator for the machines
//! of a pattern, else the machine's own manifest, else the settings for all.

use std::str::FromStr;
use std::time::Duration;

use wildmatch::WildMatch;

use crate::names::MachineName;

/// No limit is longer: a hundred days and more.
pub const SECONDS_MAX: u64 = 10_000_000;

/// How long a guest may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From its start to its first packet.
    pub start: Duration,
    /// Without any sign of it, from its first packet on.
    pub idle: Duration,
    /// For the whole.
    pub total: Duration,
}

/// What somebody says of the limits of a machine; nothing of those that are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitOverrides {
    /// See [`Limits::start`].
    pub start: Option<Duration>,
    /// See [`Limits::idle`].
    pub idle: Option<Duration>,
    /// See [`Limits::total`].
    pub total: Option<Duration>,
}

/// What the operator says of the machines of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRule {
    /// The machine's name, with `*` for anything.
    pub pattern: String,
    /// The limits.
    pub overrides: LimitOverrides,
}

/// A limit as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

/// Why a text is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// It is no number, or too large or small a one.
    #[error("a number of seconds from 1 to {SECONDS_MAX} is expected")]
    Seconds,
    /// It is not of the form.
    #[error("`PATTERN = start SECONDS silence SECONDS total SECONDS` is expected, or a part of it")]
    Form,
}

impl Limits {
    /// The limits of a guest of `machine`, where these are those for all. Each of them
    /// is said by the first rule that matches and says it, else by the machine.
    #[must_use]
    pub fn of(self, machine: &MachineName, own: LimitOverrides, rules: &[LimitRule]) -> Self {
        let matching = |rule: &&LimitRule| WildMatch::new(&rule.pattern).matches(machine.as_str());
        let rules = rules.iter().filter(matching).map(|rule| rule.overrides);
        let overrides = rules
            .chain([own])
            .fold(LimitOverrides::default(), LimitOverrides::or);
        Self {
            start: overrides.start.unwrap_or(self.start),
            idle: overrides.idle.unwrap_or(self.idle),
            total: overrides.total.unwrap_or(self.total),
        }
    }
}

impl LimitOverrides {
    fn or(self, other: Self) -> Self {
        Self {
            start: self.start.or(other.start),
            idle: self.idle.or(other.idle),
            total: self.total.or(other.total),
        }
    }
}

impl FromStr for Seconds {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let seconds = text.parse().map_err(|_| LimitError::Seconds)?;
        if (1..=SECONDS_MAX).contains(&seconds) {
            Ok(Self(Duration::from_secs(seconds)))
        } else {
            Err(LimitError::Seconds)
        }
    }
}

impl FromStr for LimitRule {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let (pattern, limits) = text.split_once('=').ok_or(LimitError::Form)?;
        let mut words = limits.split_whitespace();
        let mut overrides = LimitOverrides::default();
        while let Some(name) = words.next() {
            let wish = match name {
                "start" => &mut overrides.start,
                "silence" => &mut overrides.idle,
                "total" => &mut overrides.total,
                _ => return Err(LimitError::Form),
            };
            let Seconds(limit) = words.next().ok_or(LimitError::Form)?.parse()?;
            if wish.replace(limit).is_some() {
                return Err(LimitError::Form);
            }
        }
        let pattern = pattern.trim().to_owned();
        if pattern.is_empty() || overrides == LimitOverrides::default() {
            return Err(LimitError::Form);
        }
        Ok(Self { pattern, overrides })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(start: u64, idle: u64, total: u64) -> Limits {
        let [start, idle, total] = [start, idle, total].map(Duration::from_secs);
        Limits { start, idle, total }
    }

    #[test]
    fn the_operator_comes_before_the_machine_and_that_before_the_settings_for_all() {
        let all = seconds(240, 1800, 5400);
        let own = LimitOverrides {
            start: Some(Duration::from_secs(500)),
            total: Some(Duration::from_secs(9001)),
            ..LimitOverrides::default()
        };
        let rules = ["win11 = total 7200", "win* = start 900 total 100"];
        let rules = rules.map(|rule| rule.parse::<LimitRule>().unwrap());
        let of = |machine: &str, own| all.of(&machine.parse().unwrap(), own, &rules);
        assert_eq!(of("linux", LimitOverrides::default()), all);
        assert_eq!(of("linux", own), seconds(500, 1800, 9001));
        assert_eq!(of("win10", own), seconds(900, 1800, 100));
        assert_eq!(of("win11", own), seconds(900, 1800, 7200));
        assert_eq!(
            of("win11", LimitOverrides::default()),
            seconds(900, 1800, 7200)
        );
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let error = |text: &str| text.parse::<LimitRule>().unwrap_err();
        for text in [
            "",
            "win",
            "win =",
            "= start 1",
            "w = stop 1",
            "w = start",
            "w = start 1 start 2",
            "w = 900",
        ] {
            assert_eq!(error(text), LimitError::Form, "{text}");
        }
        for text in [
            "w = start 0",
            "w = total -1",
            "w = silence 10000001",
            "w = start x",
        ] {
            assert_eq!(error(text), LimitError::Seconds, "{text}");
        }
    }
}
