//! Controllers: servers that hand out tasks. A controller is offered the machines that could start
//! now, a task is taken under a lease, and its result is reported until the controller has it.
//!
//! The rules are pure; a [`Controller`] does the requests, and blocks. What was taken and what was
//! reported is in the records.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

pub mod backoff;
pub mod brep;
pub mod farm;
pub mod gitlab;
mod http;
pub mod priority;
pub mod report;

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use config::MachineName;
use config::auxiliary::AuxiliaryMachine;

pub use gitlab::TraceAnswer;
pub use report::{Step, next_step};

/// A machine that could start a guest now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedMachine {
    /// The name.
    pub name: MachineName,
    /// The identity of its image: another one means that everything is built again.
    pub id: String,
    /// The description of one line.
    pub summary: String,
    /// The least memory of its guest, in KiB.
    pub memory_kib: u64,
    /// The largest memory of its guest, in KiB, if the machine states one.
    pub memory_max_kib: Option<u64>,
}

/// An offer to a controller: the machines that could start a guest now, in the order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The name of this host.
    pub agent: String,
    /// The name of the toolchain.
    pub toolchain: String,
    /// The machines, of which there is one at least.
    pub machines: Vec<OfferedMachine>,
    /// The auxiliary machines that could start beside a build on any of them.
    pub auxiliaries: Vec<OfferedMachine>,
    /// The memory for the auxiliary guests of a task together, in KiB.
    pub auxiliary_memory_kib: u64,
}

/// A task that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The session, which is sent back unchanged.
    pub session: String,
    /// The name of the package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The machine to build on.
    pub machine: MachineName,
    /// The auxiliary machines that run beside the build, in the order of the task.
    pub auxiliaries: Vec<AuxiliaryMachine>,
    /// The manifest of the task, for the guest, or its script in the JSON of
    /// [`config::task::GivenScript`].
    pub manifest: Vec<u8>,
    /// The facts of a task that is a script; `None` for one with a manifest.
    pub script: Option<ScriptFacts>,
    /// The terms that are needed to report the result. Only the controller's client reads them.
    pub terms: String,
}

/// The facts of a task that is a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptFacts {
    /// The number of texts that its log must not have.
    pub masked: usize,
    /// The time limit; `None` without one.
    pub limit: Option<Duration>,
}

/// A failure to take a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// The controller cannot be reached or fails. The request is repeated later.
    #[error("{0}")]
    Unavailable(String),
    /// The controller refuses the request, or answers with something that is no task.
    #[error("{0}")]
    Refused(String),
}

/// The end of a build, as its controller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The manifest of the result, as the guest put it.
    Result(Vec<u8>),
    /// A status without a result of the guest.
    Status(config::task::Outcome),
    /// The end of a script.
    Script {
        /// The outcome.
        outcome: config::task::Outcome,
        /// The reason.
        message: String,
        /// True if the time of the lease is over.
        is_over_limit: bool,
    },
}

/// A file that a build uploads to its controller before the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The type, which names the address.
    pub kind: String,
    /// The instance of the type.
    pub instance: String,
    /// The name of the file.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

impl Upload {
    /// Returns the name under which the upload is recorded once the controller has it.
    pub fn part(&self) -> String {
        format!("{}/{}/{}", self.kind, self.instance, self.name)
    }
}

/// The answer of a controller to a part of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The controller has it.
    Accepted(String),
    /// The controller refuses it, now and later.
    Refused(String),
    /// It is sent again later.
    Retry(String),
}

/// The client of a controller. All methods block.
pub trait Controller: Debug + Send + Sync {
    /// Offers machines and takes a task, if there is one.
    ///
    /// # Errors
    /// The controller fails or refuses the request.
    fn take(&self, offer: &Offer) -> Result<Option<Taken>, TakeError>;

    /// Sends a file of a build. `terms` are those of the taken task.
    fn upload(&self, session: &str, terms: &str, upload: &Upload) -> Answer;

    /// Returns the names of the files among the artifacts of a build that are uploaded, if they exist.
    fn archives(&self, _terms: &str) -> Vec<String> {
        Vec::new()
    }

    /// Sends a piece of a build's log, or a sign of life without one, to a controller that wants logs.
    fn send_log(&self, _terms: &str, _piece: Option<(&Range<u64>, Vec<u8>)>) -> TraceAnswer {
        TraceAnswer::Over("the controller wants no logs".to_owned())
    }

    /// Sends the end of a build. `package` has the name and the version of the taken task.
    fn report(&self, session: &str, terms: &str, package: (&str, &str), ending: &Ending) -> Answer;
}
