//! The time limits of guests. Each limit is set by the settings for machines that match a
//! pattern, else by the machine's manifest, else by the settings for all machines.

use std::str::FromStr;
use std::time::Duration;

use wildmatch::WildMatch;

use crate::names::MachineName;

/// The longest limit: about 115 days.
pub const SECONDS_MAX: u64 = 10_000_000;

/// The time limits of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the start of the guest to its first packet.
    pub start: Duration,
    /// Without any activity after the first packet: the idle timeout.
    pub idle: Duration,
    /// In total.
    pub total: Duration,
}

/// The limits that a manifest or a rule sets; `None` leaves a limit unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitOverrides {
    /// See [`Limits::start`].
    pub start: Option<Duration>,
    /// See [`Limits::idle`].
    pub idle: Option<Duration>,
    /// See [`Limits::total`].
    pub total: Option<Duration>,
    /// From the result of a bootstrap to the end of its guest.
    pub shutdown: Option<Duration>,
}

/// The limits of the machines that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRule {
    /// The pattern of machine names, with `*` for any text.
    pub pattern: String,
    /// The limits.
    pub overrides: LimitOverrides,
}

/// A limit in seconds, for parsing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

/// The error of parsing a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The text is not a number in the range.
    #[error("a number of seconds from 1 to {SECONDS_MAX} is expected")]
    Seconds,
    /// The rule is malformed.
    #[error(
        "`PATTERN = start SECONDS silence SECONDS total SECONDS shutdown SECONDS` is expected, or a part of it"
    )]
    Form,
}

impl Limits {
    /// Returns the limits for a guest of `machine`. Each limit is set by the first rule
    /// that matches the machine and names the limit, else by the machine's `manifest`,
    /// else by `self`.
    #[must_use]
    pub fn of(self, machine: &MachineName, manifest: LimitOverrides, rules: &[LimitRule]) -> Self {
        let overrides = manifest.overridden(machine, rules);
        Self {
            start: overrides.start.unwrap_or(self.start),
            idle: overrides.idle.unwrap_or(self.idle),
            total: overrides.total.unwrap_or(self.total),
        }
    }
}

impl LimitOverrides {
    /// Returns the limits that apply to `machine` if `self` are those of its manifest: each is
    /// set by the first rule that matches the machine and names the limit, else by `self`.
    #[must_use]
    pub fn overridden(self, machine: &MachineName, rules: &[LimitRule]) -> Self {
        rules
            .iter()
            .filter(|rule| WildMatch::new(&rule.pattern).matches(machine.as_str()))
            .map(|rule| rule.overrides)
            .chain([self])
            .fold(Self::default(), Self::or)
    }

    fn or(self, other: Self) -> Self {
        Self {
            start: self.start.or(other.start),
            idle: self.idle.or(other.idle),
            total: self.total.or(other.total),
            shutdown: self.shutdown.or(other.shutdown),
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
            let limit = match name {
                "start" => &mut overrides.start,
                "silence" => &mut overrides.idle,
                "total" => &mut overrides.total,
                "shutdown" => &mut overrides.shutdown,
                _ => return Err(LimitError::Form),
            };
            let Seconds(value) = words.next().ok_or(LimitError::Form)?.parse()?;
            if limit.replace(value).is_some() {
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
    fn rules_override_the_manifest_which_overrides_the_defaults() {
        let all = seconds(240, 1800, 5400);
        let manifest = LimitOverrides {
            start: Some(Duration::from_secs(500)),
            total: Some(Duration::from_secs(9001)),
            ..LimitOverrides::default()
        };
        let rules = ["win11 = total 7200", "win* = start 900 total 100"];
        let rules = rules.map(|rule| rule.parse::<LimitRule>().unwrap());
        let of = |machine: &str, manifest| all.of(&machine.parse().unwrap(), manifest, &rules);
        assert_eq!(of("linux", LimitOverrides::default()), all);
        assert_eq!(of("linux", manifest), seconds(500, 1800, 9001));
        assert_eq!(of("win10", manifest), seconds(900, 1800, 100));
        assert_eq!(of("win11", manifest), seconds(900, 1800, 7200));
        assert_eq!(
            of("win11", LimitOverrides::default()),
            seconds(900, 1800, 7200)
        );
    }

    #[test]
    fn the_shutdown_limit_is_overridden_like_the_others() {
        let manifest = LimitOverrides {
            shutdown: Some(Duration::from_mins(5)),
            ..LimitOverrides::default()
        };
        let rules = ["win* = shutdown 900".parse().unwrap()];
        let of = |machine: &str, manifest: LimitOverrides| {
            let overrides = manifest.overridden(&machine.parse().unwrap(), &rules);
            overrides.shutdown.map(|limit| limit.as_secs())
        };
        assert_eq!(of("linux", LimitOverrides::default()), None);
        assert_eq!(of("linux", manifest), Some(300));
        assert_eq!(of("win10", manifest), Some(900));
    }

    #[test]
    fn malformed_rules_are_rejected() {
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
