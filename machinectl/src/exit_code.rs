//! What the shell sees. The numbers are a promise.

use std::error::Error;
use std::process::ExitCode;

use store::{RefusalKind, StoreError};

use client::ClientError;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ending {
    /// What was asked for is so.
    Done = 0,
    /// Something failed that should not have.
    Failed = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// What was asked for cannot be had as things are; the message says why.
    Refused = 3,
    /// The agent does not answer.
    NoAgent = 4,
    /// There is no such machine, revision, image, snapshot or toolchain.
    NotFound = 10,
    /// There is one of that name already.
    Exists = 11,
    /// The revision is not newer than the current one.
    NotNewer = 12,
    /// The stream is for another machine.
    WrongName = 13,
    /// The input is no stream, or is cut or damaged.
    BadStream = 14,
    /// The stream builds on a revision that is not here, or not unchanged.
    NoParent = 15,
    /// The disk is full.
    Full = 16,
    /// A build or somebody else uses it.
    InUse = 17,
    /// Somebody else is changing the machine.
    Locked = 18,
    /// The machine is being deleted.
    Deleting = 19,
    /// The volume is not there or not on btrfs.
    NoVolume = 20,
    /// The doctor has warnings.
    Warnings = 21,
    /// The doctor has found a fault.
    Faults = 22,
    /// The content is not what was recorded.
    Differs = 23,
    /// The other host cannot be reached.
    Unreachable = 24,
    /// Only root may do this.
    Denied = 25,
}

/// The numbers, for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
   0  done
   1  failed
   2  the command line cannot be understood
   3  refused, for the reason given
   4  the agent does not answer
  10  no such machine, revision or toolchain
  11  there already
  12  the revision is not newer than the current one
  13  the stream is for another machine
  14  no stream, or a cut or damaged one
  15  the stream builds on a revision that is not here
  16  the disk is full
  17  in use
  18  locked by somebody else
  19  being deleted
  20  no volume, or not on btrfs
  21  the doctor has warnings
  22  the doctor has found something that cannot be used or trusted
  23  the content is not what was recorded
  24  the other host cannot be reached
  25  only root may do this
What another host answers to `push` and `pull` is passed on.";

impl Ending {
    /// What another host's `machinectl` has ended with.
    fn passed_on(code: i32) -> Self {
        const ALL: [Ending; 12] = [
            Ending::Refused,
            Ending::NotFound,
            Ending::Exists,
            Ending::NotNewer,
            Ending::BadStream,
            Ending::NoParent,
            Ending::Full,
            Ending::Locked,
            Ending::Deleting,
            Ending::NoVolume,
            Ending::Differs,
            Ending::Denied,
        ];
        ALL.into_iter()
            .find(|ending| *ending as i32 == code)
            .unwrap_or(Self::Failed)
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}

/// An error and what it means for the shell.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) ending: Ending,
    pub(crate) error: Box<dyn Error>,
}

impl Failure {
    pub(crate) fn new(ending: Ending, error: impl Into<Box<dyn Error>>) -> Self {
        let error = error.into();
        Self { ending, error }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("this needs root")]
struct NeedsRoot(#[source] StoreError);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let ending = match &error {
            _ if error.is_full() => Ending::Full,
            _ if error.is_denied() && !rustix::process::geteuid().is_root() => {
                return Self::new(Ending::Denied, NeedsRoot(error));
            }
            error => error.kind().map_or(Ending::Failed, of),
        };
        Self::new(ending, error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let ending = match &error {
            ClientError::NoAgent { .. } => Ending::NoAgent,
            ClientError::Refused { status: 404, .. } => Ending::NotFound,
            ClientError::Refused {
                status: 400..500, ..
            } => Ending::Refused,
            ClientError::Refused { .. }
            | ClientError::Answer(_)
            | ClientError::Console(_)
            | ClientError::File { .. } => Ending::Failed,
        };
        Self::new(ending, error)
    }
}

/// Returns the exit code of a refusal. Without a wildcard, so that a new kind needs a decision.
fn of(kind: RefusalKind) -> Ending {
    match kind {
        RefusalKind::NoVolume => Ending::NoVolume,
        RefusalKind::NotFound => Ending::NotFound,
        RefusalKind::Exists => Ending::Exists,
        RefusalKind::NotNewer => Ending::NotNewer,
        RefusalKind::WrongName => Ending::WrongName,
        RefusalKind::BadStream => Ending::BadStream,
        RefusalKind::NoParent => Ending::NoParent,
        RefusalKind::Full => Ending::Full,
        RefusalKind::InUse => Ending::InUse,
        RefusalKind::Locked => Ending::Locked,
        RefusalKind::Deleting => Ending::Deleting,
        RefusalKind::Differs => Ending::Differs,
        RefusalKind::Unreachable => Ending::Unreachable,
        RefusalKind::Remote(code) => Ending::passed_on(code),
        RefusalKind::Invalid => Ending::Refused,
    }
}
