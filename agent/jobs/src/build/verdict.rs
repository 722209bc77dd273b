//! The verdict on an attempt: who caused its end, from the facts that the host knows; pure.
//!
//! - An end that the package or its guest caused is final, and its message names the remedy.
//! - A failure of the host is retried, up to a limit and with growing delays. Whatever a guest
//!   reports about the host counts as one, unless its task is a controller's: that gets the result.
//! - An interruption, which only the agent itself can cause, is retried without being counted.

use config::builds::Artifact;
use config::task::{ARTIFACTS, LOG, Outcome, UPLOAD};
use config::{FileName, MIB, printable};
use secrets::SecretsError;
use session::{GuestFailure, SessionError};
use tftp::server::{RefusalCause, RefusedPut};

use super::Collected;
use super::collect::with_faults;
use crate::JobError;
use state::{DiskUse, LeaseEnd};

/// The facts about an attempt that has ended.
#[derive(Debug)]
pub struct Facts {
    /// The result of the guest as it was collected, or the error that ended the attempt.
    pub ended: Result<Collected, JobError>,
    /// The artifacts that a guest without a result has put.
    pub artifacts: Vec<Artifact>,
    /// The files that the host did not accept from the guest.
    pub refused: Vec<RefusedPut>,
    /// The disk for which the guest was evicted.
    pub evicted: Option<DiskUse>,
    /// The disk that had less free space than its reserve when the attempt ended.
    pub short: Option<DiskUse>,
    /// `true` if the task is a controller's, which gets also an abnormal result as it is.
    pub is_given: bool,
    /// `true` if a cancellation of the build was accepted.
    pub canceled: bool,
    /// `true` if the agent stops.
    pub stopping: bool,
    /// The early end of the lease of a controller's task.
    pub lease_end: Option<LeaseEnd>,
}

impl Facts {
    /// Returns the facts about an attempt of which only the end is known.
    pub fn of_end(ended: Result<Collected, JobError>) -> Self {
        Self {
            ended,
            artifacts: Vec::new(),
            refused: Vec::new(),
            evicted: None,
            short: None,
            is_given: false,
            canceled: false,
            stopping: false,
            lease_end: None,
        }
    }
}

/// Returns the fault of a guest that has filled a disk; `None` if it has not.
fn filled(disk: &DiskUse) -> Option<String> {
    let available = disk
        .available
        .filter(|available| disk.written > *available)?;
    Some(format!(
        "the build filled the disk of {}: it wrote {} MiB, and {} MiB were free beside the reserve \
         (paths.reserve_mib); it needs a larger disk, or must write less",
        printable(&disk.directory.to_string_lossy()),
        disk.written / MIB,
        available / MIB,
    ))
}

/// The verdict on an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The package or its guest caused the end, good or bad. All artifacts are kept.
    Final(Box<Collected>),
    /// A person canceled it.
    Canceled,
    /// Its lease was ended early: a task of a controller with a higher priority has its place, or its
    /// controller has given it up.
    LeaseEnded(LeaseEnd),
    /// It exceeded one of its time limits.
    Late(String),
    /// The host failed, as far as the host can tell: nothing is known of the package.
    HostFailed(String),
    /// The agent ended it for a reason that has nothing to do with it.
    Interrupted(String),
    /// The host failed or ended it, and it cannot be repeated.
    Lost(String),
}

impl Verdict {
    /// Returns the verdict that follows from the facts.
    pub fn of(facts: Facts) -> Self {
        if facts.canceled {
            return Self::Canceled;
        }
        // A result that arrived before is worth keeping.
        if let (Some(end), Err(_)) = (&facts.lease_end, &facts.ended) {
            return Self::LeaseEnded(end.clone());
        }
        if was_powered_off_by_host(&facts.ended) {
            return Self::Canceled;
        }
        let causes = Causes::of(&facts);
        match facts.ended {
            Ok(collected) if collected.outcome.is_good() => causes.of_success(collected),
            Ok(collected) => causes.of_result(collected),
            Err(error) => causes.of_error(&error, facts.artifacts),
        }
    }

    /// Returns true if the build has succeeded.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Final(collected) if collected.outcome.is_good())
    }

    /// Returns true if the guest of the attempt may be held for debugging: the build has failed,
    /// and neither the host nor a person is the cause.
    pub fn may_be_held(&self) -> bool {
        match self {
            Self::Final(collected) => !collected.outcome.is_good(),
            Self::Late(_) => true,
            Self::Canceled
            | Self::LeaseEnded(_)
            | Self::HostFailed(_)
            | Self::Interrupted(_)
            | Self::Lost(_) => false,
        }
    }
}

/// The causes of a bad end that the host knows by itself.
struct Causes {
    stopping: bool,
    /// Set if the task is a controller's.
    is_given: bool,
    /// The disk for which the guest was evicted.
    evicted: Option<DiskUse>,
    /// The disk that is nearly full, though the guest did not fill it.
    short: Option<String>,
    /// The faults of the guest.
    faults: Vec<String>,
    /// Those faults because of which an artifact is missing.
    missing: Vec<String>,
    /// The first file that the host could not store.
    not_stored: Option<String>,
}

impl Causes {
    fn of(facts: &Facts) -> Self {
        let disk = facts.evicted.as_ref().or(facts.short.as_ref());
        let filled = disk.and_then(filled);
        let short = facts.short.as_ref().filter(|_| filled.is_none());
        let mut not_stored = facts
            .refused
            .iter()
            .filter(|it| it.cause == RefusalCause::Host);
        Self {
            stopping: facts.stopping,
            is_given: facts.is_given,
            evicted: facts.evicted.clone().filter(|_| filled.is_none()),
            short: short.map(shown_directory),
            faults: filled
                .into_iter()
                .chain(facts.refused.iter().filter_map(refusal))
                .collect(),
            missing: {
                let missing = facts.refused.iter().filter(|put| is_missing_artifact(put));
                missing.filter_map(refusal).collect()
            },
            not_stored: not_stored
                .next()
                .map(|put| printable(&put.name).to_string()),
        }
    }

    /// Returns the verdict on a good result, which is one only with all its artifacts.
    fn of_success(self, collected: Collected) -> Verdict {
        match (self.missing.is_empty(), &self.not_stored) {
            (false, _) => Verdict::Final(Box::new(Collected {
                outcome: Outcome::Error,
                message: with_faults(collected.message, &self.missing),
                packages: Vec::new(),
                ..collected
            })),
            (true, Some(name)) => not_stored(name),
            (true, None) => Verdict::Final(Box::new(collected)),
        }
    }

    /// Returns the verdict on a bad result.
    fn of_result(self, collected: Collected) -> Verdict {
        if let Some(name) = &self.not_stored {
            return not_stored(name);
        }
        if !self.faults.is_empty() {
            return Verdict::Final(Box::new(Collected {
                outcome: match collected.outcome {
                    Outcome::Abnormal => Outcome::Error,
                    outcome => outcome,
                },
                message: with_faults(collected.message, &self.faults),
                ..collected
            }));
        }
        if let Some(disk) = &self.evicted {
            return evicted(disk);
        }
        if let Some(directory) = self.short {
            return Verdict::HostFailed(format!(
                "it failed while the disk of {directory} was nearly full"
            ));
        }
        match collected.outcome {
            // By its own words the guest knows nothing of the package.
            Outcome::Abnormal if !self.is_given => Verdict::HostFailed(collected.message),
            _ => Verdict::Final(Box::new(collected)),
        }
    }

    /// Returns the verdict on an attempt without a result.
    fn of_error(self, error: &JobError, artifacts: Vec<Artifact>) -> Verdict {
        let own = |message, faults: &[String]| {
            Verdict::Final(Box::new(Collected {
                outcome: Outcome::Error,
                message: with_faults(message, faults),
                packages: Vec::new(),
                artifacts,
            }))
        };
        let stopped = || Verdict::Interrupted("the host agent was stopped while it ran".to_owned());
        let message = sys::error_report::chain(error);
        match (party(error), self.evicted) {
            (Party::Limit, _) => Verdict::Late(message),
            (Party::Auxiliary, _) => Verdict::Lost(message),
            (Party::Cancellation, Some(disk)) => evicted(&disk),
            // Only an eviction or the stop of the agent cancels a build without a person.
            (Party::Cancellation, None) if self.faults.is_empty() => stopped(),
            (Party::Cancellation, None) => own(String::new(), &self.faults),
            (Party::Guest, _) => own(message, &self.faults),
            (Party::GuestEnded, _) if self.stopping => stopped(),
            (Party::GuestEnded, _) if self.not_stored.is_none() && !self.faults.is_empty() => {
                own(message, &self.faults)
            }
            (Party::GuestEnded, _) => Verdict::HostFailed(match self.not_stored {
                Some(name) => format!("{message}; the host could not store `{name}`"),
                None => message,
            }),
            (Party::Host, _) => Verdict::HostFailed(message),
        }
    }
}

/// Returns true if a person has ended the guest with `machinectl poweroff`.
fn was_powered_off_by_host(ended: &Result<Collected, JobError>) -> bool {
    match ended {
        Err(JobError::Guest(
            GuestFailure::Exited { end, .. } | GuestFailure::AuxiliaryExited { end, .. },
        )) => end.was_powered_off_by_host(),
        _ => false,
    }
}

fn evicted(disk: &DiskUse) -> Verdict {
    Verdict::Interrupted(format!(
        "the disk of {} was nearly full, and this guest had written most there",
        shown_directory(disk)
    ))
}

fn not_stored(name: &str) -> Verdict {
    Verdict::HostFailed(format!("the host could not store `{name}`"))
}

/// Returns true if a refused file was an artifact for which its limits leave no space. A name that
/// the host does not know or keeps for itself is no artifact.
fn is_missing_artifact(put: &RefusedPut) -> bool {
    let is_artifact = put.name.starts_with(ARTIFACTS) || put.name == UPLOAD;
    is_artifact
        && match put.cause {
            RefusalCause::TooLarge { .. }
            | RefusalCause::QuotaExhausted { .. }
            | RefusalCause::TooManyFiles { .. }
            | RefusalCause::InvalidName => true,
            RefusalCause::ReservedName | RefusalCause::UnknownName | RefusalCause::Host => false,
        }
}

fn shown_directory(disk: &DiskUse) -> String {
    printable(&disk.directory.to_string_lossy()).to_string()
}

/// The party that ended an attempt without a result.
enum Party {
    /// The machine or the guest, which would end in the same way again.
    Guest,
    /// The guest ended before its result. Nobody knows why.
    GuestEnded,
    /// An auxiliary guest, which would put the same again. Nothing is known of the package.
    Auxiliary,
    /// One of its time limits.
    Limit,
    /// The agent, or a person.
    Cancellation,
    /// The host.
    Host,
}

/// Returns the party that caused an error. Without a wildcard: a new error needs a decision.
fn party(error: &JobError) -> Party {
    match error {
        JobError::Guest(failure) => match failure {
            GuestFailure::IdleTimeout(_) | GuestFailure::TotalTimeout(_) => Party::Limit,
            GuestFailure::Exited { end, .. } if end.exceeded_its_memory() => Party::Guest,
            GuestFailure::Exited { .. } => Party::GuestEnded,
            GuestFailure::Cancelled => Party::Cancellation,
            GuestFailure::Environment { .. } => Party::Auxiliary,
            GuestFailure::StartTimeout { .. }
            | GuestFailure::AuxiliaryExited { .. }
            | GuestFailure::AuxiliaryTimeout { .. }
            | GuestFailure::DiskFull(_)
            | GuestFailure::AgentGone => Party::Host,
        },
        JobError::Manifest(_)
        | JobError::Session(SessionError::Options)
        | JobError::SecretsUnknown(_)
        | JobError::CommandsUnknown(_) => Party::Guest,
        JobError::Secrets(error) => match error {
            SecretsError::Missing(_) | SecretsError::Forbidden { .. } => Party::Guest,
            SecretsError::Exists(_)
            | SecretsError::Full
            | SecretsError::Permissions { .. }
            | SecretsError::Content { .. }
            | SecretsError::File { .. } => Party::Host,
        },
        JobError::Store(_)
        | JobError::Changed
        | JobError::File(_)
        | JobError::Name(_)
        | JobError::Records(_)
        | JobError::Catalog(_)
        | JobError::Transition(_)
        | JobError::Session(_)
        | JobError::LeftRunning
        | JobError::LeaseOver
        | JobError::Panicked
        | JobError::Collect(_)
        | JobError::BootstrapResult(_)
        | JobError::Toolchain { .. }
        | JobError::UncleanShutdown(_)
        | JobError::ShutdownTimeout(_)
        | JobError::CheckpointUnsupported
        | JobError::CheckpointTyped
        | JobError::CheckpointSpace { .. } => Party::Host,
    }
}

/// Returns the fault of the guest for which a file was refused; `None` if the host failed.
fn refusal(put: &RefusedPut) -> Option<String> {
    let name = printable(&put.name);
    Some(match put.cause {
        RefusalCause::Host => return None,
        RefusalCause::TooLarge { bytes_max } => {
            let limit = format!("{} MiB", bytes_max.div_ceil(MIB));
            match setting(&put.name) {
                Some(setting) => {
                    format!("`{name}` is larger than the {limit} that the setting {setting} allows")
                }
                None => format!("`{name}` is larger than {limit}"),
            }
        }
        RefusalCause::QuotaExhausted { bytes_max } => format!(
            "with `{name}`, all artifacts together are larger than the {} MiB that the setting \
             builds.artifacts_mib_max allows",
            bytes_max.div_ceil(MIB)
        ),
        RefusalCause::TooManyFiles { files_max } => format!(
            "with `{name}`, there are more than {files_max} artifacts; pack them into archives"
        ),
        RefusalCause::InvalidName => {
            let file = put.name.strip_prefix(ARTIFACTS).unwrap_or(&put.name);
            let fault = file
                .parse::<FileName>()
                .err()
                .map(|fault| fault.to_string());
            format!(
                "`{name}` was refused: {}",
                fault.unwrap_or_else(|| "it is not the name of a file".to_owned())
            )
        }
        RefusalCause::ReservedName => {
            format!("`{name}` was refused: the name is reserved for a file of the host")
        }
        RefusalCause::UnknownName => format!(
            "`{name}` was refused: artifacts have names below `{ARTIFACTS}`, and no other file \
             has this name"
        ),
    })
}

/// Returns the setting that limits the size of a file.
fn setting(name: &str) -> Option<&'static str> {
    match name {
        LOG => Some("builds.log_mib_max"),
        UPLOAD => Some("builds.artifacts_mib_max"),
        _ if name.starts_with(ARTIFACTS) => Some("builds.artifacts_mib_max"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
