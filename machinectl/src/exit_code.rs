//! Exit statuses. Their numbers are stable, because scripts rely on them.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use client::{ClientError, ConnectError};
use config::task::Outcome;
use distribution::DistributionError;
use store::{RefusalKind, StoreError};

/// The exit status of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitStatus {
    /// The command has succeeded.
    Success = 0,
    /// An unexpected failure.
    Failure = 1,
    /// The command line is invalid.
    Usage = 2,
    /// The request is impossible in the current state; the message has the reason.
    Refused = 3,
    /// The agent does not answer.
    AgentUnavailable = 4,
    /// The machine, revision, image, snapshot, toolchain, build, schedule or token is missing.
    NotFound = 10,
    /// The name is taken.
    Exists = 11,
    /// The revision is not newer than the current one.
    NotNewer = 12,
    /// The stream is for another machine.
    WrongName = 13,
    /// The input is not a stream, or is truncated or damaged.
    BadStream = 14,
    /// The parent of an incremental stream is missing or was modified.
    MissingParent = 15,
    /// The disk is full.
    DiskFull = 16,
    /// A build or another process uses the object.
    InUse = 17,
    /// Another process is changing the machine.
    Locked = 18,
    /// The machine is being deleted.
    BeingDeleted = 19,
    /// The volume is missing or is not on btrfs.
    NoVolume = 20,
    /// The doctor has found warnings.
    Warnings = 21,
    /// The doctor has found faults.
    Faults = 22,
    /// The content differs from its manifest.
    ContentDiffers = 23,
    /// The remote host is unreachable.
    Unreachable = 24,
    /// The command needs root.
    NeedsRoot = 25,
    /// The build has finished with `error`.
    BuildError = 30,
    /// The build has finished with `abort` or `interrupt`.
    BuildAborted = 31,
    /// The build has finished with `abnormal`.
    BuildAbnormal = 32,
    /// The build was skipped.
    BuildSkipped = 33,
    /// The command of `guest exec` was not started.
    ExecRefused = 125,
    /// The guest or the agent has ended before the command of `guest exec`.
    GuestLost = 255,
}

/// The exit statuses for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
   0  success
   1  failure
   2  invalid command line
   3  refused, for the reason given
   4  the agent does not answer
  10  no such machine, revision, toolchain, build, schedule or token
  11  the name is taken
  12  the revision is not newer than the current one
  13  the stream is for another machine
  14  the input is not a stream, or is truncated or damaged
  15  the parent of an incremental stream is missing or was modified
  16  the disk is full
  17  in use
  18  locked by another process
  19  being deleted
  20  no volume, or not on btrfs
  21  the doctor has found warnings
  22  the doctor has found faults
  23  the content differs from its manifest
  24  the remote host is unreachable
  25  root is needed
  30  the build has failed (`error`)
  31  the build was ended: canceled, or a time limit (`abort`)
  32  the host or the worker has failed (`abnormal`)
  33  the build was skipped, because a build before it failed (`skip`)
 125  `guest exec` could not start the command
 255  the guest has ended before the command of `guest exec`
Codes from 30 are those of commands that wait for a build: `--follow` and `login`.
`guest exec` passes on the exit code of its command, `push` and `pull` that of the remote host.";

/// Ends the process with the exit code of a command that it has run.
pub(crate) fn end_with(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

impl ExitStatus {
    /// Returns the exit status for one of the program on a remote host.
    fn from_remote(code: i32) -> Self {
        const ALL: [ExitStatus; 14] = [
            ExitStatus::Refused,
            ExitStatus::NotFound,
            ExitStatus::Exists,
            ExitStatus::NotNewer,
            ExitStatus::WrongName,
            ExitStatus::BadStream,
            ExitStatus::MissingParent,
            ExitStatus::DiskFull,
            ExitStatus::InUse,
            ExitStatus::Locked,
            ExitStatus::BeingDeleted,
            ExitStatus::NoVolume,
            ExitStatus::ContentDiffers,
            ExitStatus::NeedsRoot,
        ];
        ALL.into_iter()
            .find(|status| *status as i32 == code)
            .unwrap_or(Self::Failure)
    }
}

impl From<Outcome> for ExitStatus {
    /// Returns the exit status for a build that did not succeed.
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success | Outcome::Warning | Outcome::Error => Self::BuildError,
            Outcome::Abort | Outcome::Interrupt => Self::BuildAborted,
            Outcome::Abnormal => Self::BuildAbnormal,
            Outcome::Skip => Self::BuildSkipped,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// An error with its exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: ExitStatus,
    pub(crate) error: Box<dyn Error>,
}

impl Failure {
    pub(crate) fn new(status: ExitStatus, error: impl Into<Box<dyn Error>>) -> Self {
        let error = error.into();
        Self { status, error }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("this needs root")]
struct NeedsRoot(#[source] StoreError);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            _ if error.is_full() => ExitStatus::DiskFull,
            _ if error.is_denied() && !rustix::process::geteuid().is_root() => {
                return Self::new(ExitStatus::NeedsRoot, NeedsRoot(error));
            }
            error => error.kind().map_or(ExitStatus::Failure, status_of),
        };
        Self::new(status, error)
    }
}

impl From<DistributionError> for Failure {
    fn from(error: DistributionError) -> Self {
        let status = match &error {
            _ if error.is_full() => ExitStatus::DiskFull,
            DistributionError::NeedsRoot => ExitStatus::NeedsRoot,
            DistributionError::NoWorker(_)
            | DistributionError::MissingProgram { .. }
            | DistributionError::UnusableRecipe(_)
            | DistributionError::UnusableMirror(_)
            | DistributionError::NoFile { .. } => ExitStatus::Refused,
            DistributionError::Failed { .. }
            | DistributionError::File { .. }
            | DistributionError::Confine(_) => ExitStatus::Failure,
        };
        Self::new(status, error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let status = match &error {
            ClientError::Connect(error) => error.as_ref().into(),
            ClientError::TimedOut { .. } => ExitStatus::AgentUnavailable,
            ClientError::NotHttp { .. } => ExitStatus::Unreachable,
            ClientError::Refused { status: 404, .. } => ExitStatus::NotFound,
            ClientError::NoToken { .. }
            | ClientError::OldAgent { .. }
            | ClientError::Refused {
                status: 400..500, ..
            } => ExitStatus::Refused,
            ClientError::Write(error) if error.kind() == io::ErrorKind::StorageFull => {
                ExitStatus::DiskFull
            }
            ClientError::Refused { .. }
            | ClientError::Write(_)
            | ClientError::Answer(_)
            | ClientError::Console(_)
            | ClientError::Query(_) => ExitStatus::Failure,
        };
        Self::new(status, error)
    }
}

impl From<&ConnectError> for ExitStatus {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::NoAgent { .. }
            | ConnectError::NotReached { .. }
            | ConnectError::TimedOut { .. } => Self::AgentUnavailable,
            ConnectError::NotAllowed { .. } => Self::Refused,
            ConnectError::Tls { .. } | ConnectError::Ssh { .. } => Self::Unreachable,
            ConnectError::CaFile { .. } => Self::Failure,
            ConnectError::Relay { code, .. } => match code {
                Some(code) if *code == Self::AgentUnavailable as i32 => Self::AgentUnavailable,
                Some(code) => Self::from_remote(*code),
                None => Self::Unreachable,
            },
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new((&error).into(), error)
    }
}

/// Returns the exit status of a refusal. Without a wildcard arm, a new kind needs a decision.
fn status_of(kind: RefusalKind) -> ExitStatus {
    match kind {
        RefusalKind::NoVolume => ExitStatus::NoVolume,
        RefusalKind::NotFound => ExitStatus::NotFound,
        RefusalKind::Exists => ExitStatus::Exists,
        RefusalKind::NotNewer => ExitStatus::NotNewer,
        RefusalKind::WrongName => ExitStatus::WrongName,
        RefusalKind::BadStream => ExitStatus::BadStream,
        RefusalKind::NoParent => ExitStatus::MissingParent,
        RefusalKind::Full => ExitStatus::DiskFull,
        RefusalKind::InUse => ExitStatus::InUse,
        RefusalKind::Locked => ExitStatus::Locked,
        RefusalKind::Deleting => ExitStatus::BeingDeleted,
        RefusalKind::Differs => ExitStatus::ContentDiffers,
        RefusalKind::Unreachable => ExitStatus::Unreachable,
        RefusalKind::Remote(code) => ExitStatus::from_remote(code),
        RefusalKind::Invalid => ExitStatus::Refused,
    }
}
