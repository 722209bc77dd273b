//! The record of a build after an attempt; pure.

use std::time::Duration;

use config::builds::{Build, ForkOrigin, State, TransitionError};
use config::canary::TrialResult;
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
    if let Some(message) = end_trial_run(&mut build, &verdict) {
        return queued(build, message, now);
    }
    let verdict = match unrepeatable_state(&build) {
        Some(state) => unrepeatable(verdict, &state),
        None => verdict,
    };
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
        Verdict::LeaseEnded(end) => (end.outcome(), end.to_string()),
        Verdict::Late(message) => (Outcome::Abort, message),
        Verdict::HostFailed(message) if build.counted_attempts() <= rules.retries_max => {
            let attempts = build.counted_attempts();
            let (next, last) = (attempts + 1, rules.retries_max + 1);
            build.not_before = Some(now.saturating_add(rest(attempts, rules)).unwrap_or(now));
            let message = format!("for attempt {next} of {last}, because {message}");
            return queued(build, message, now);
        }
        Verdict::HostFailed(message) | Verdict::Lost(message) => (Outcome::Abnormal, message),
    };
    build.enter(State::Finished, now)?;
    build.outcome = Some(outcome);
    build.message = message;
    Ok(build)
}

/// Records the result of an attempt on a revision on trial. Returns the wait reason of a build that
/// runs again on the current revision: nobody but the candidate pays for the trial. A farm repeats its
/// builds itself.
fn end_trial_run(build: &mut Build, verdict: &Verdict) -> Option<String> {
    let is_repeated = build.repeats_trial();
    let run = build.trial.as_mut().filter(|it| it.result.is_none())?;
    let (result, message) = match verdict {
        Verdict::Final(collected) if collected.outcome.is_good() => {
            run.result = Some(TrialResult::Succeeded);
            return None;
        }
        Verdict::Final(collected) => {
            let (outcome, message) = (collected.outcome, collected.message.clone());
            (TrialResult::Failed { outcome, message }, &collected.message)
        }
        Verdict::Late(message) => {
            let outcome = Outcome::Abort;
            let failed = TrialResult::Failed {
                outcome,
                message: message.clone(),
            };
            (failed, message)
        }
        Verdict::HostFailed(message) => {
            let failed = TrialResult::HostFailed {
                message: message.clone(),
            };
            (failed, message)
        }
        Verdict::Interrupted(_) if is_repeated => {
            build.trial = None;
            return None;
        }
        // A copy of a forked guest has no trial.
        Verdict::Interrupted(_) | Verdict::Canceled | Verdict::LeaseEnded(_) | Verdict::Lost(_) => {
            return None;
        }
    };
    run.result = Some(result);
    let revision = run.revision;
    is_repeated.then(|| {
        format!(
            "for its repetition on the current revision, because it failed on revision {revision}, which is on trial: {message}"
        )
    })
}

/// Returns the state of a build's guest that another attempt would not have, for people: a copy
/// continued at an instant of another build, and a driven guest, or one with a script, has run commands.
fn unrepeatable_state(build: &Build) -> Option<String> {
    if let Some(ForkOrigin { build, .. }) = build.forked_from {
        return Some(format!(
            "it continued as a copy of build {build}, and that instant cannot be repeated"
        ));
    }
    if build.is_guarded() {
        return Some("its lease permits one guest".to_owned());
    }
    let has_commands = build.interactive.commands.is_some() || build.has_script();
    let is_driven = has_commands && build.first_contact().is_some();
    is_driven.then(|| "its guest ran commands, which cannot be repeated".to_owned())
}

/// Returns the verdict on an attempt with a state that cannot be repeated.
fn unrepeatable(verdict: Verdict, state: &str) -> Verdict {
    match verdict {
        Verdict::HostFailed(message) | Verdict::Interrupted(message) => {
            Verdict::Lost(format!("{message}; {state}"))
        }
        verdict => verdict,
    }
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
    use state::LeaseEnd;

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
    fn a_copy_of_a_guest_is_never_repeated() {
        for verdict in [
            Verdict::HostFailed("no memory".into()),
            Verdict::Interrupted("the host agent was stopped".into()),
        ] {
            let mut copy = build(1);
            copy.forked_from = Some(ForkOrigin {
                build: config::BuildId(7),
                number: 1,
                copies: 2,
                seconds: 3,
            });
            let after = conclude(copy, verdict, &RULES, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(after.outcome, Some(Outcome::Abnormal));
            assert!(
                after.message.contains("a copy of build 7"),
                "{}",
                after.message
            );
        }
    }

    #[test]
    fn a_driven_guest_is_repeated_only_before_it_could_run_commands() {
        let interrupted = || Verdict::Interrupted("the host agent was stopped".into());
        let mut driven = build(1);
        driven.interactive.commands = Some(config::exec::CommandLimits::default());
        let mut starting = driven.clone();
        starting.phases.pop();
        let now = Timestamp::UNIX_EPOCH;
        let after = conclude(driven, interrupted(), &RULES, now).unwrap();
        assert_eq!(after.outcome, Some(Outcome::Abnormal));
        assert!(
            after.message.ends_with("cannot be repeated"),
            "{}",
            after.message
        );
        let after = conclude(starting, interrupted(), &RULES, now).unwrap();
        assert_eq!((after.state, after.outcome), (State::Queued, None));
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

    fn on_trial(verdict: Verdict) -> Build {
        conclude(trial_build(), verdict, &RULES, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn trial_build() -> Build {
        let mut build = build(1);
        build.trial = Some(config::canary::TrialRun {
            revision: config::Revision(2),
            since: Timestamp::UNIX_EPOCH,
            result: None,
        });
        build
    }

    fn result(outcome: Outcome) -> Verdict {
        Verdict::Final(Box::new(Collected {
            outcome,
            message: "hello.c:1: no".into(),
            packages: Vec::new(),
            artifacts: Vec::new(),
        }))
    }

    #[test]
    fn a_failure_on_a_revision_on_trial_is_repeated_on_the_current_one() {
        for verdict in [
            result(Outcome::Error),
            Verdict::Late("too long".into()),
            Verdict::HostFailed("no memory".into()),
        ] {
            let after = on_trial(verdict);
            assert_eq!((after.state, after.outcome), (State::Queued, None));
            assert!(after.not_before.is_none());
            assert!(after.message.contains("on revision 2"), "{}", after.message);
            // The attempt keeps its number and its log, and takes no retry from the build.
            assert_eq!((after.attempts, after.counted_attempts()), (1, 0));
            assert!(after.running_trial().is_none() && after.trial.is_some());
            let mut again = Build {
                attempts: 2,
                ..after
            };
            let now = Timestamp::UNIX_EPOCH;
            again.enter(State::Starting, now).unwrap();
            let after = conclude(again, Verdict::HostFailed("x".into()), &RULES, now).unwrap();
            assert_eq!(after.state, State::Queued, "the first of its own retries");
        }
    }

    #[test]
    fn a_failure_of_a_farms_build_on_a_revision_on_trial_is_its_result() {
        for (verdict, outcome) in [
            (result(Outcome::Error), Outcome::Error),
            (Verdict::Late("too long".into()), Outcome::Abort),
            (Verdict::HostFailed("no memory".into()), Outcome::Abnormal),
            (Verdict::Interrupted("no".into()), Outcome::Abnormal),
        ] {
            let mut build = trial_build();
            build.controller = Some(config::builds::ControllerTask {
                controller: "farm".parse().unwrap(),
                priority: "0".parse().unwrap(),
                session: "1@1".to_owned(),
                package: "hello".to_owned(),
                version: String::new(),
                expires: Timestamp::UNIX_EPOCH,
                auxiliaries: Vec::new(),
                script: true,
                guarded: true,
                trial: Some(config::Revision(2)),
            });
            let after = conclude(build, verdict, &RULES, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(
                (after.state, after.outcome),
                (State::Finished, Some(outcome))
            );
            assert!(after.trial.is_some(), "its record says where it ran");
        }
    }

    #[test]
    fn a_success_on_a_revision_on_trial_is_a_success() {
        for outcome in [Outcome::Success, Outcome::Warning] {
            let after = on_trial(result(outcome));
            assert_eq!(
                (after.state, after.outcome),
                (State::Finished, Some(outcome))
            );
            let run = after.trial.unwrap();
            assert_eq!(run.result, Some(TrialResult::Succeeded));
        }
    }

    #[test]
    fn an_interruption_and_a_cancellation_say_nothing_about_a_revision_on_trial() {
        let after = on_trial(Verdict::Interrupted("the agent was stopped".into()));
        assert_eq!((after.trial, after.attempts), (None, 0));
        let after = on_trial(Verdict::Canceled);
        assert_eq!(after.outcome, Some(Outcome::Abort));
        assert_eq!(after.trial.unwrap().result, None);
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
    fn an_early_end_of_the_lease_is_final_and_costs_no_retry() {
        let by = "urgent".parse().unwrap();
        for (end, outcome) in [
            (LeaseEnd::Interrupted(by), Outcome::Interrupt),
            (LeaseEnd::Expired, Outcome::Abort),
        ] {
            assert_eq!(
                concluded(1, Verdict::LeaseEnded(end.clone()), &RULES),
                (State::Finished, Some(outcome), 1)
            );
            let after = on_trial(Verdict::LeaseEnded(end));
            assert_eq!(
                (after.outcome, after.trial.unwrap().result),
                (Some(outcome), None)
            );
        }
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
