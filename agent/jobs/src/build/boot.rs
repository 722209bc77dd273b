//! The kind of a guest's start: restored from the image's checkpoint, or cold; pure.

use std::fmt;

use config::builds::{StartKind, State};
use session::{GuestFailure, SessionError};

use crate::JobError;

/// The facts that the kind of a start depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// The start mode of the image.
    pub mode: StartKind,
    /// Set if the checkpoint must not be restored again.
    pub is_rejected: bool,
    /// The number of the attempt, from 1.
    pub attempts: u32,
    /// Set if the build asked for other resources than those of its machine, which the
    /// checkpoint has.
    pub is_resized: bool,
}

/// The reason for which a checkpoint is not restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColdReason {
    /// The build asked for other resources than those of its machine.
    Resized,
    /// The checkpoint could not be restored before.
    Rejected,
    /// An attempt has failed, which may have been the checkpoint's fault.
    Retry,
}

/// Returns the kind of a guest's start, or the reason for which an existing checkpoint is not
/// restored.
pub(super) fn decide(facts: Facts) -> Result<StartKind, ColdReason> {
    match facts.mode {
        StartKind::Cold => Ok(StartKind::Cold),
        StartKind::Restored if facts.is_resized => Err(ColdReason::Resized),
        StartKind::Restored if facts.is_rejected => Err(ColdReason::Rejected),
        StartKind::Restored if facts.attempts > 1 => Err(ColdReason::Retry),
        StartKind::Restored => Ok(StartKind::Restored),
    }
}

/// Returns true if a guest may have failed because it was restored.
pub(super) fn may_be_restores_fault(error: &JobError, state: State) -> bool {
    match error {
        JobError::Session(SessionError::Guest(_)) => true,
        JobError::Guest(GuestFailure::StartTimeout { .. } | GuestFailure::Exited { .. }) => {
            state == State::Starting
        }
        _ => false,
    }
}

impl fmt::Display for ColdReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resized => {
                "the checkpoint has the processors and the memory of the machine, not those that \
                 the build asked for"
            }
            Self::Rejected => "the checkpoint could not be restored",
            Self::Retry => "an attempt has failed before",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_attempt_with_the_resources_of_the_machine_is_restored() {
        use StartKind::{Cold, Restored};
        for (mode, is_rejected, attempts, is_resized, expected) in [
            (Restored, false, 1, false, Ok(Restored)),
            (Restored, false, 1, true, Err(ColdReason::Resized)),
            (Restored, true, 1, false, Err(ColdReason::Rejected)),
            (Restored, false, 2, false, Err(ColdReason::Retry)),
            (Cold, false, 1, false, Ok(Cold)),
            (Cold, true, 2, true, Ok(Cold)),
        ] {
            let facts = Facts {
                mode,
                is_rejected,
                attempts,
                is_resized,
            };
            assert_eq!(decide(facts), expected, "{facts:?}");
        }
    }
}
