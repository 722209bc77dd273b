//! The record of a build after an attempt; pure.

use std::time::Duration;

use config::builds::{Build, State, TransitionError};
use config::settings::Builds;
use config::task::Outcome;
use jiff::Timestamp;
use session::GuestFailure;

use super::Collected;
use crate::jobs::JobError;

/// The verdict on an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The guest put a result, and all of it is stored.
    Result(Box<Collected>),
    /// It was cancelled, or the agent stops.
    Cancelled,
    /// It ran into one of its time limits.
    Late(String),
    /// The host or the guest failed: nothing is known of the package.
    HostFailed(String),
}

impl From<Result<Collected, JobError>> for Verdict {
    fn from(attempt: Result<Collected, JobError>) -> Self {
        match attempt {
            // By its own words the guest knows nothing of the package, as when the agent
            // was killed while it put a file.
            Ok(collected) if collected.outcome == Outcome::Abnormal => {
                Self::HostFailed(collected.message)
            }
            Ok(collected) => Self::Result(Box::new(collected)),
            Err(JobError::Guest(GuestFailure::Cancelled)) => Self::Cancelled,
            Err(JobError::Guest(
                ended @ (GuestFailure::TotalTimeout(_) | GuestFailure::IdleTimeout(_)),
            )) => Self::Late(ended.to_string()),
            Err(error) => Self::HostFailed(sys::error_report::chain(&error)),
        }
    }
}

/// The rules for retries.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The number of retries after failures of the host.
    pub retries_max: u32,
    /// The delay before the first retry; doubled after each failure.
    pub retry_delay: Duration,
    /// The longest delay.
    pub retry_delay_max: Duration,
    /// `true` if the agent stops: a build that it ends is queued again.
    pub stopping: bool,
}

impl Rules {
    /// Returns the rules of the settings.
    pub fn new(settings: &Builds, stopping: bool) -> Self {
        Self {
            retries_max: settings.retries_max,
            retry_delay: settings.retry_delay,
            retry_delay_max: settings.retry_delay_max,
            stopping,
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
        Verdict::Result(collected) => {
            build.packages = collected.packages;
            build.artifacts = collected.artifacts;
            (collected.outcome, collected.message)
        }
        Verdict::Cancelled if rules.stopping => {
            build.attempts = build.attempts.saturating_sub(1);
            let message = "because the host agent was stopped while it ran".to_owned();
            return queued(build, message, now);
        }
        Verdict::Cancelled => (Outcome::Abort, "it was cancelled".to_owned()),
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

    const RULES: Rules = Rules {
        retries_max: 1,
        retry_delay: Duration::from_secs(5),
        retry_delay_max: Duration::from_mins(1),
        stopping: false,
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
    fn failures_of_the_package_are_not_retried() {
        let result = Collected {
            outcome: Outcome::Error,
            message: "hello.c:1: no".into(),
            packages: Vec::new(),
            artifacts: Vec::new(),
        };
        let verdict = Verdict::Result(Box::new(result));
        assert_eq!(
            concluded(1, verdict, &RULES),
            (State::Finished, Some(Outcome::Error), 1)
        );
    }

    #[test]
    fn a_result_that_blames_the_host_is_retried() {
        let result = Collected {
            outcome: Outcome::Abnormal,
            message: "the gateway did not answer for 31 seconds".into(),
            packages: Vec::new(),
            artifacts: Vec::new(),
        };
        let verdict = Verdict::from(Ok(result));
        assert_eq!(concluded(1, verdict, &RULES), (State::Queued, None, 1));
    }

    #[test]
    fn a_cancelled_build_ends_but_one_of_a_stopped_agent_is_retried() {
        let stopping = Rules {
            stopping: true,
            ..RULES
        };
        assert_eq!(
            concluded(1, Verdict::Cancelled, &RULES),
            (State::Finished, Some(Outcome::Abort), 1)
        );
        assert_eq!(
            concluded(1, Verdict::Cancelled, &stopping),
            (State::Queued, None, 0)
        );
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
