//! What an agent and a guest tell each other: the manifests that they exchange by
//! TFTP, and the names under which they do.
//!
//! A guest finds its agent at [`GATEWAY`]. On its first boot it fetches the files
//! of its toolchain by their names, installs them and puts [`BOOTSTRAP`]. In a
//! build it fetches [`TASK`] and the sources below [`SOURCES`], and puts the
//! packages below [`ARTIFACTS`], the log as [`LOG`] and, last, [`RESULT`]. How far it is
//! it tells by lines of the log: [`crate::progress`].
//!
//! # Interactive builds
//!
//! A task may say `interactive: start`, `warning` or `error`. The worker stops there,
//! puts [`BREAKPOINT`] with `state: waiting`, and gives whoever sits at the machine's
//! console a shell. It goes on when the shell ends, or when it can fetch [`RESUME`],
//! for which it asks every second or so; then it puts [`BREAKPOINT`] with `state: over`.
//! When a task says `hold: true`, a worker whose build has failed gives a shell after it
//! has put [`RESULT`]: the host suspends the guest then, until somebody comes. With
//! `interactive: attach` there is only the shell.
//!
//! # Frozen starts
//!
//! A guest whose worker can wait for its task is started once, frozen while it
//! waits, and woken for every build. Such a worker opens the virtio-serial port
//! [`CONTROL_PORT`], where there is one, before it asks for anything else. It says
//! [`READY`] there, in a line, and again every second until the host answers with
//! a [`StartMessage`]: then it gives the kernel the fresh random bytes, sets the clock, and
//! fetches its task. What it does not do before [`READY`] is done in every build;
//! what it did is the same in all of them. A read of the port that returns nothing
//! means that the host is not there at the moment.
//!
//! A worker that knows nothing of this fetches its task at once. Its builds start
//! cold, and the host says so.
//!
//! # Workers of build2
//!
//! A worker may put its result packed, as [`RESULT_LZ4`], and its files before that
//! in one archive, as [`UPLOAD`]; both are taken as if each had been put by itself.
//! Of a result manifest of build2's we take `status`, which decides how the build
//! ended, and `message` if there is one. Where the worker has put no [`LOG`], each
//! `*-status` and `*-log` of an [`Operation`] become it. All else is passed over.

mod breakpoint;
mod digest;
mod operations;
mod outcome;
mod provenance;
mod result;
mod start_message;

use serde::{Deserialize, Serialize};

use crate::manifest::{self, Manifest, ManifestError};
use crate::names::{BuildId, FileName, MachineName, NameError, ToolchainName};

pub use breakpoint::{Breakpoint, BreakpointState};
pub use digest::Digest;
pub use operations::Operation;
pub use outcome::Outcome;
pub use provenance::{BOOTSTRAP_VERSION, Provenance};
pub use result::{Package, TaskResult};
pub use start_message::StartMessage;

/// The host's address as every guest sees it.
pub const GATEWAY: &str = "169.254.111.222";
/// The host's address as workers of build2 expect it.
pub const GATEWAY_BUILD2: &str = "196.254.111.222";
/// The address that a guest gives itself; its network has 24 bits.
pub const GUEST: &str = "169.254.111.1";
/// The port of the PR service at the gateway.
pub const PR_PORT: u16 = 8585;

/// Fetched in a build: what is to be done.
pub const TASK: &str = "task.manifest";
/// Put in a build, last: what came of it.
pub const RESULT: &str = "result.manifest";
/// Put instead of [`RESULT`]: the same, packed as a frame of LZ4.
pub const RESULT_LZ4: &str = "result.manifest.lz4";
/// Put before the result: a tar archive of regular files, each to be one of the
/// [`ARTIFACTS`] under the last part of its path.
pub const UPLOAD: &str = "upload.tar";
/// Put at the end of a bootstrap: that the toolchain is installed.
pub const BOOTSTRAP: &str = "bootstrap.manifest";
/// Put before the result: everything that the toolchain printed.
pub const LOG: &str = "log";
/// Fetched in a build: the sources lie below it.
pub const SOURCES: &str = "sources/";
/// Put in a build: packages and other files for the submitter.
pub const ARTIFACTS: &str = "artifacts/";
/// The name of the virtio-serial port that carries the log while a guest runs.
pub const LOG_PORT: &str = "buildhost.log";
/// The name of the virtio-serial port on which a guest waits for its task.
pub const CONTROL_PORT: &str = "buildhost.control";
/// Said on [`CONTROL_PORT`]: all is ready but the task. Answered with a [`StartMessage`].
pub const READY: &str = "ready";

/// Put in an interactive build: that the guest waits for a person, and that it goes on.
pub const BREAKPOINT: &str = "breakpoint.manifest";
/// Fetched by a guest that waits for a person, again and again: it is there when the
/// guest is to go on.
pub const RESUME: &str = "resume.manifest";

/// Where a guest without such a port sends its log while it runs: what comes through
/// a connection to this TCP port at the gateway is shown as it comes.
pub const LOG_TCP_PORT: u16 = 8586;

/// Why a manifest of the other side cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It is no manifest.
    #[error(transparent)]
    Format(#[from] ManifestError),
    /// It is empty.
    #[error("the manifest is empty")]
    Empty,
    /// A value is not there.
    #[error("the value `{0}` is missing")]
    Missing(&'static str),
    /// A value is not what it should be.
    #[error("the value `{0}` cannot be `{1}`")]
    Value(&'static str, String),
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// One source file of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name below [`SOURCES`].
    pub name: FileName,
    /// SHA-256 of its content, in lower-case hexadecimal digits.
    pub sha256: Digest,
}

/// What a guest is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The build.
    pub build: BuildId,
    /// The machine that the guest is.
    pub machine: MachineName,
    /// The toolchain that is installed in it.
    pub toolchain: ToolchainName,
    /// Where the build stops for a person.
    pub interactive: Option<Breakpoint>,
    /// Whether the guest is held when the build fails: it does not end itself then,
    /// and gives a person a shell.
    pub hold: bool,
    /// What is to be built.
    pub sources: Vec<Source>,
}

impl Task {
    /// The text of [`TASK`].
    pub fn print(&self) -> String {
        let mut head = Manifest::new()
            .with("build", &self.build)
            .with("machine", &self.machine)
            .with("toolchain", &self.toolchain);
        if let Some(breakpoint) = self.interactive {
            head = head.with("interactive", &breakpoint);
        }
        if self.hold {
            head = head.with("hold", &true);
        }
        let source = |s: &Source| {
            Manifest::new()
                .with("source", &s.name)
                .with("sha256", &s.sha256)
        };
        let list: Vec<_> = std::iter::once(head)
            .chain(self.sources.iter().map(source))
            .collect();
        manifest::print(&list)
    }

    /// Reads [`TASK`]. Values that we do not know are passed over.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse(text)?;
        let (head, sources) = list.split_first().ok_or(TaskError::Empty)?;
        let source = |manifest: &Manifest| {
            Ok(Source {
                name: need(manifest, "source")?.parse()?,
                sha256: need(manifest, "sha256")?.parse()?,
            })
        };
        Ok(Self {
            build: need(head, "build")?.parse()?,
            machine: need(head, "machine")?.parse()?,
            toolchain: need(head, "toolchain")?.parse()?,
            interactive: head.get("interactive").map(str::parse).transpose()?,
            hold: head.get("hold") == Some("true"),
            sources: sources
                .iter()
                .map(source)
                .collect::<Result<_, TaskError>>()?,
        })
    }
}

fn need<'a>(manifest: &'a Manifest, name: &'static str) -> Result<&'a str, TaskError> {
    manifest
        .get(name)
        .filter(|value| !value.is_empty())
        .ok_or(TaskError::Missing(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_read_as_it_was_written() {
        let task = Task {
            build: BuildId(42),
            machine: "linux-gcc_6".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
            interactive: Some(Breakpoint::Warning),
            hold: true,
            sources: vec![Source {
                name: "hello.tar.gz".parse().unwrap(),
                sha256: "a".repeat(64).parse().unwrap(),
            }],
        };
        insta::assert_snapshot!(task.print());
        assert_eq!(Task::parse(&task.print()), Ok(task));
    }
}
