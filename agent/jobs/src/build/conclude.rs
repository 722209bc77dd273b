//! The record of a build after an attempt; pure.

use std::time::Duration;

use config::builds::{Build, State, TransitionError};
use config::settings::Builds;
use config::task::Outcome;
use jiff::Timestamp;

use super::Verdict;

/// The rules for retries.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The number of retries after failures of the host.
    pub retries_max: u32,
    /// The delay before the first retry; doubled after each failure.
    pub retry_delay: Duration,
    /// The longest delay.
    pub retry_delay_max: Duration,
}

impl From<&Builds> for Rules {
    fn from(settings: &Builds) -> Self {
        Self {
            retries_max: settings.retries_max,
            retry_delay: settings.retry_delay,
            retry_delay_max: settings.retry_delay_max,
        }
    }
}

/// Returns the record of `build` after an attempt.
///
/// # Errors
/// If the build already has an outcome.
pub fn conclude(
    mut build: Build,
    verdict: Verdict,
    rules: &Rules,
    now: Timestamp,
) -> Result<Build, TransitionError> {
    let (outcome, message) = match verdict {
        Verdict::Final(collected) => {
            build.packages = collected.packages;
            build.artifacts = collected.artifacts;
            (collected.outcome, collected.message)
        }
        Verdict::Interrupted(message) => {
            build.attempts = build.attempts.saturating_sub(1);
            return queued(build, format!("because {message}"), now);
        }
        Verdict::Canceled => (Outcome::Abort, "it was canceled".to_owned()),
        Verdict::Late(message) => (Outcome::Abort, message),
        Verdict::HostFailed(message) if build.attempts <= rules.retries_max => {
            let (next, last) = (build.attempts + 1, rules.retries_max + 1);
            build.not_before = Some(
                now.saturating_add(rest(build.attempts, rules))
                    .unwrap_or(now),
            );
            let message = format!("for attempt {next} of {last}, because {message}");
            return queued(build, message, now);
        }
        Verdict::HostFailed(message) => (Outcome::Abnormal, message),
    };
    build.enter(State::Finished, now)?;
    build.outcome = Some(outcome);
    build.message = message;
    Ok(build)
}

/// Returns the delay before the retry after so many failed attempts.
fn rest(attempts: u32, rules: &Rules) -> Duration {
    let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
    rules
        .retry_delay
        .saturating_mul(doubled)
        .min(rules.retry_delay_max)
}

fn queued(mut build: Build, message: String, now: Timestamp) -> Result<Build, TransitionError> {
    build.enter(State::Queued, now)?;
    build.message = message;
    Ok(build)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Collected;

    const RULES: Rules = Rules {
        retries_max: 1,
        retry_delay: Duration::from_secs(5),
        retry_delay_max: Duration::from_mins(1),
    };

    fn build(attempts: u32) -> Build {
        let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let task = "0".repeat(64).parse().unwrap();
        let toolchain = "default".parse().unwrap();
        let submitter = config::builds::Submitter::root();
        let now = Timestamp::UNIX_EPOCH;
        let id = config::BuildId(1);
        let mut build = Build::new(id, request, toolchain, task, submitter, now);
        build.enter(State::Starting, now).unwrap();
        build.enter(State::Running, now).unwrap();
        build.attempts = attempts;
        build
    }

    fn concluded(attempts: u32, verdict: Verdict, rules: &Rules) -> (State, Option<Outcome>, u32) {
        let after = conclude(build(attempts), verdict, rules, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(after.finished.is_some(), after.outcome.is_some());
        (after.state, after.outcome, after.attempts)
    }

    #[test]
    fn host_failures_are_retried_up_to_the_limit() {
        let failed = || Verdict::HostFailed("no memory".into());
        assert_eq!(concluded(1, failed(), &RULES), (State::Queued, None, 1));
        assert_eq!(
            concluded(2, failed(), &RULES),
            (State::Finished, Some(Outcome::Abnormal), 2)
        );
    }

    #[test]
    fn retries_back_off_exponentially() {
        let rules = Rules {
            retries_max: 9,
            ..RULES
        };
        let rest = |attempts| {
            let failed = Verdict::HostFailed("no memory".into());
            let after = conclude(build(attempts), failed, &rules, Timestamp::UNIX_EPOCH).unwrap();
            after.not_before.unwrap().as_second()
        };
        assert_eq!([1, 2, 3, 4, 5, 9].map(rest), [5, 10, 20, 40, 60, 60]);
        let failed = Verdict::HostFailed("no memory".into());
        let after = conclude(build(1), failed, &rules, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(after.message, "for attempt 2 of 10, because no memory");
    }

    #[test]
    fn results_are_final() {
        let result = Collected {
            outcome: Outcome::Error,
            message: "hello.c:1: no".into(),
            packages: Vec::new(),
            artifacts: Vec::new(),
        };
        let verdict = Verdict::Final(Box::new(result));
        assert_eq!(
            concluded(1, verdict, &RULES),
            (State::Finished, Some(Outcome::Error), 1)
        );
    }

    #[test]
    fn a_canceled_build_ends_and_an_interruption_is_not_counted() {
        assert_eq!(
            concluded(1, Verdict::Canceled, &RULES),
            (State::Finished, Some(Outcome::Abort), 1)
        );
        let interrupted = Verdict::Interrupted("the host agent was stopped".into());
        assert_eq!(concluded(9, interrupted, &RULES), (State::Queued, None, 8));
    }

    #[test]
    fn a_build_that_exceeds_its_time_is_aborted() {
        let verdict = Verdict::Late("too long".into());
        assert_eq!(
            concluded(1, verdict, &RULES),
            (State::Finished, Some(Outcome::Abort), 1)
        );
    }
}
