//! The final states of jobs; pure.

use config::task::Outcome;
use serde::Serialize;

/// The reason of a failure, in the words of GitLab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The script has failed.
    ScriptFailure,
    /// The job has exceeded its time limit.
    JobExecutionTimeout,
    /// The host has failed, which says nothing about the job.
    RunnerSystemFailure,
    /// The job needs something that this host does not have.
    RunnerUnsupported,
}

/// The final state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalState {
    /// The script has succeeded.
    Success,
    /// The job has failed.
    Failed(FailureReason, Option<u8>),
}

impl FinalState {
    /// Returns the final state of a job whose build has ended. `exit_code` is that of its script, if
    /// it has ended by itself, and `is_over_limit` is true if the job has exceeded its time.
    pub fn of(outcome: Outcome, exit_code: Option<u8>, is_over_limit: bool) -> Self {
        match outcome {
            Outcome::Success | Outcome::Warning | Outcome::Skip => Self::Success,
            Outcome::Error => Self::Failed(
                FailureReason::ScriptFailure,
                exit_code.filter(|it| *it != 0),
            ),
            Outcome::Abort if is_over_limit => {
                Self::Failed(FailureReason::JobExecutionTimeout, None)
            }
            Outcome::Abort | Outcome::Interrupt | Outcome::Abnormal => {
                Self::Failed(FailureReason::RunnerSystemFailure, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_script_are_those_of_the_job() {
        use FailureReason::{JobExecutionTimeout, RunnerSystemFailure, ScriptFailure};
        let failed = FinalState::Failed;
        for (outcome, code, is_over_limit, expected) in [
            (Outcome::Success, Some(0), false, FinalState::Success),
            (Outcome::Warning, Some(0), false, FinalState::Success),
            (
                Outcome::Error,
                Some(3),
                false,
                failed(ScriptFailure, Some(3)),
            ),
            (Outcome::Error, Some(0), false, failed(ScriptFailure, None)),
            (
                Outcome::Abort,
                None,
                true,
                failed(JobExecutionTimeout, None),
            ),
            (
                Outcome::Abort,
                None,
                false,
                failed(RunnerSystemFailure, None),
            ),
            (
                Outcome::Interrupt,
                None,
                false,
                failed(RunnerSystemFailure, None),
            ),
            (
                Outcome::Abnormal,
                Some(1),
                false,
                failed(RunnerSystemFailure, None),
            ),
        ] {
            assert_eq!(FinalState::of(outcome, code, is_over_limit), expected);
        }
    }
}
