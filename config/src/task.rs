//! The protocol between the agent and a guest: the manifests that they transfer by TFTP,
//! and the names of the files.
//!
//! A guest reaches its agent at [`GATEWAY`]. In a bootstrap, it fetches the files of its
//! toolchain by their names, installs them and puts [`BOOTSTRAP`]. In a build, it fetches
//! [`TASK`] and the sources below [`SOURCES`], and puts the packages below [`ARTIFACTS`],
//! the log as [`LOG`] and, last, [`RESULT`]. It reports its progress in lines of the log:
//! see [`crate::progress`].
//!
//! # Interactive builds
//!
//! A task may have `interactive: start`, `warning` or `error`. The worker stops at that
//! point, puts [`BREAKPOINT`] with `state: waiting`, and runs a shell on the machine's
//! console. It continues when the shell exits, or when it can fetch [`RESUME`], which it
//! tries about every second; then it puts [`BREAKPOINT`] with `state: over`.
//!
//! If a task has `hold: true`, a worker whose build fails runs a shell after it has put
//! [`RESULT`]. The host suspends the guest until a person attaches. With
//! `interactive: attach`, the worker runs the shell and nothing else.
//!
//! # Warm starts
//!
//! A guest whose worker can wait for its task is started once, checkpointed while it
//! waits, and restored for every build. Before anything else, such a worker opens the
//! virtio-serial port [`CONTROL_PORT`], if it exists. It writes [`READY`] there as a line,
//! and again every second until the host answers with a [`StartMessage`]. Then it feeds
//! the random bytes to the kernel, sets the clock, and fetches its task. Work after
//! [`READY`] is done in every build; work before it is done once, in the checkpoint. A
//! read of the port that returns no bytes means that the host is not connected.
//!
//! A worker without this protocol fetches its task at once. Its builds start cold, and
//! the host's status says so.
//!
//! A worker that can rehearse writes [`REHEARSAL`] as a line before each [`READY`]. The host may
//! answer with the same line instead of a [`StartMessage`]: the worker then does once what it
//! does at the start of each build, fetches the file [`REHEARSAL`] and runs a program, without
//! any effect, and reports that it is ready again. The host stops such a guest until a build
//! needs it; what its start runs through has then been loaded and translated.
//!
//! A toolchain may have a program `preload`, which starts in a checkpoint source what the builds
//! continue with, such as a server. Its worker writes [`PRELOAD`] as a line before each [`READY`].
//! The host answers that of a checkpoint source with a [`Preload`], once; the worker runs the
//! program in the environment of the bootstrap and reports that it is ready. A host that does not
//! know the line ignores it.
//!
//! # Secrets
//!
//! The task of a build with secrets names them, and names its build as
//! `build-with-secrets` instead of `build`: a worker that does not know secrets refuses the task.
//! The values are sent as [`crate::secrets`] describes.
//!
//! # Commands
//!
//! The task of a driven guest names its build as `commands`. Its worker runs commands instead of the
//! toolchain's `build`: see [`crate::exec`]. A worker that does not know commands refuses the task.
//!
//! # Caches
//!
//! A task with `cache: read` or `cache: write` has a cache at its gateway: see [`crate::cache`]. A
//! worker that does not know caches ignores it. With `hashserv: true` it has a hash equivalence
//! service there: see [`crate::hashserv`].
//!
//! # Forks
//!
//! A running guest can be forked: copies of it continue at the instant of the fork. The host
//! writes [`FORK`] to [`CONTROL_PORT`]. A worker that runs the toolchain's `build` stops the
//! processes of the build and writes [`READY`], again every second, until the host answers with
//! a [`StartMessage`]. Each copy gets a message of its own, with its [`ForkIdentity`]. The worker
//! applies it as at the start, writes the identity to a file, and lets the processes go on. It
//! continues without an answer after a minute. A worker without this protocol ignores the line, and
//! its guest is not forked.
//!
//! # Workers of build2
//!
//! A worker may put a compressed result, as [`RESULT_LZ4`], and before it an archive of
//! its files, as [`UPLOAD`]. Both are unpacked as if each file had been put by itself. Of
//! a result manifest of build2's, `status` decides the outcome, and `message` is used if
//! present. If the worker has put no [`LOG`], the `*-status` and `*-log` of all
//! [`Operation`]s become the log. All other values are ignored. Its bootstrap manifest has versions of
//! libraries and no status, which counts as success.
//!
//! # Tasks of controllers
//!
//! The task of a build that is made for a controller is the controller's, byte for byte. There are no
//! sources. The archive has the directories `upload/TYPE/INSTANCE/`, each of which becomes one archive
//! for the controller. The result reaches the controller as [`controller_report`] says.

mod breakpoint;
mod controller_report;
mod digest;
mod operations;
mod outcome;
mod preload;
mod provenance;
mod result;
mod script;
mod start_message;

use serde::{Deserialize, Serialize};

use crate::cache::mode::CacheMode;
use crate::manifest::{self, Manifest, ManifestError};
use crate::names::{BuildId, FileName, MachineName, NameError, SecretName, ToolchainName};

pub use breakpoint::{Breakpoint, BreakpointState};
pub use controller_report::{REPORT_BYTES_MAX, controller_report};
pub use digest::Digest;
pub use operations::Operation;
pub use outcome::Outcome;
pub use preload::Preload;
pub use provenance::{BOOTSTRAP_VERSION, Provenance};
pub use result::{Package, TaskResult};
pub use script::GivenScript;
pub use start_message::{ForkIdentity, StartMessage};

/// The list of the packages of a build with their revisions, among the artifacts.
pub const PACKAGES: &str = "packages.manifest";
/// The names of artifacts that only the host may create: what they state is the host's.
pub const RESERVED_ARTIFACTS: [&str; 3] = [
    PACKAGES,
    crate::builds::PROVENANCE,
    crate::builds::SIGNED_PROVENANCE,
];

/// The host's address in the network of each guest.
pub const GATEWAY: &str = "169.254.111.222";
/// The host's address that workers of build2 use.
pub const GATEWAY_BUILD2: &str = "196.254.111.222";
/// The address that a guest assigns to itself, with a prefix of 24 bits.
pub const GUEST: &str = "169.254.111.1";
/// The port of the PR service at the gateway.
pub const PR_PORT: u16 = 8585;

/// Fetched in a build: the [`Task`].
pub const TASK: &str = "task.manifest";
/// Put last in a build: the [`TaskResult`].
pub const RESULT: &str = "result.manifest";
/// Fetched: the program of a task that brings its own.
pub const SCRIPT: &str = "task.script";
/// Put instead of [`RESULT`]: the same as an LZ4 frame.
pub const RESULT_LZ4: &str = "result.manifest.lz4";
/// Put before the result: a tar archive of regular files. Each becomes one of the
/// [`ARTIFACTS`] under the last component of its path.
pub const UPLOAD: &str = "upload.tar";
/// Put at the end of a bootstrap: the [`TaskResult`] of the installation.
pub const BOOTSTRAP: &str = "bootstrap.manifest";
/// Put before the result: the output of the toolchain.
pub const LOG: &str = "log";
/// Fetched in a build: the prefix of the sources.
pub const SOURCES: &str = "sources/";
/// Put in a build: the prefix of packages and other files for the submitter.
pub const ARTIFACTS: &str = "artifacts/";
/// The virtio-serial port that carries the log while a guest runs.
pub const LOG_PORT: &str = "buildhost.log";
/// The virtio-serial port on which a guest waits for its task.
pub const CONTROL_PORT: &str = "buildhost.control";
/// Written to [`CONTROL_PORT`]: the guest is ready for its task. The host answers with a
/// [`StartMessage`].
pub const READY: &str = "ready";

/// Written to [`CONTROL_PORT`] by a worker that can rehearse its start, and by a host that wants
/// it to; and the file that such a worker fetches.
pub const REHEARSAL: &str = "rehearsal";

/// Written to [`CONTROL_PORT`] by a worker whose toolchain has a program of this name that has not
/// run in this guest; the beginning of a [`Preload`].
pub const PRELOAD: &str = "preload";

/// Written to [`CONTROL_PORT`] by the host: the guest is about to be forked. A worker that runs
/// the toolchain's `build` stops its processes and writes [`READY`]; the answer lets them go on.
pub const FORK: &str = "fork";

/// Put in an interactive build when the guest stops for a person and when it continues:
/// the [`BreakpointState`].
pub const BREAKPOINT: &str = "breakpoint.manifest";
/// Fetched repeatedly by a guest that waits for a person: the file exists once the guest
/// is to continue.
pub const RESUME: &str = "resume.manifest";

/// The TCP port at the gateway to which a guest without [`LOG_PORT`] sends its log while
/// it runs.
pub const LOG_TCP_PORT: u16 = 8586;

/// The error of parsing a manifest of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The text is not a manifest.
    #[error(transparent)]
    Format(#[from] ManifestError),
    /// The text has no manifest.
    #[error("the manifest is empty")]
    Empty,
    /// A value is missing.
    #[error("the value `{0}` is missing")]
    Missing(&'static str),
    /// A value is invalid.
    #[error("the value `{0}` cannot be `{1}`")]
    Value(&'static str, String),
    /// Two packages have the same file.
    #[error("two packages have the file {0}")]
    TwoPackages(FileName),
    /// There are too many packages.
    #[error("there are more than {0} packages")]
    TooManyPackages(usize),
    /// A name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A source file of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The name below [`SOURCES`].
    pub name: FileName,
    /// The SHA-256 hash of the content.
    pub sha256: Digest,
}

/// A guest's task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the values of a manifest, each on its own"
)]
pub struct Task {
    /// The build.
    pub build: BuildId,
    /// The machine of the guest.
    pub machine: MachineName,
    /// The installed toolchain.
    pub toolchain: ToolchainName,
    /// The point at which the build stops for a person.
    pub interactive: Option<Breakpoint>,
    /// Holds the guest when the build fails: it runs a shell instead of shutting down.
    pub hold: bool,
    /// Waits for commands instead of running the toolchain's `build`.
    pub commands: bool,
    /// Runs [`SCRIPT`] instead of the toolchain's `build`.
    pub script: bool,
    /// The largest size of [`LOG`]; the worker's default if `None`, as of older agents.
    pub log_bytes_max: Option<u64>,
    /// The secrets that the worker requests.
    pub secrets: Vec<SecretName>,
    /// The rights at the cache of the machine; `None` without one.
    pub cache: Option<CacheMode>,
    /// True if the gateway has a hash equivalence service for the build.
    pub hashserv: bool,
    /// The sources.
    pub sources: Vec<Source>,
}

/// The name of the build's number in a task.
const BUILD: &str = "build";
/// The same in a task with secrets.
const BUILD_WITH_SECRETS: &str = "build-with-secrets";
/// The same in the task of a driven guest, with and without secrets.
const COMMANDS: &str = "commands";
/// The same in a task with a script, so that an older worker refuses it.
const SCRIPT_OF: &str = "script";

impl Task {
    /// Returns the text of [`TASK`].
    pub fn print(&self) -> String {
        let build = match self.secrets.as_slice() {
            _ if self.commands => COMMANDS,
            _ if self.script => SCRIPT_OF,
            [] => BUILD,
            [..] => BUILD_WITH_SECRETS,
        };
        let mut head = Manifest::new()
            .with(build, &self.build)
            .with("machine", &self.machine)
            .with("toolchain", &self.toolchain);
        if let Some(breakpoint) = self.interactive {
            head = head.with("interactive", &breakpoint);
        }
        if self.hold {
            head = head.with("hold", &true);
        }
        if let Some(bytes_max) = self.log_bytes_max {
            head = head.with("log-bytes-max", &bytes_max);
        }
        if let Some(mode) = self.cache {
            head = head.with("cache", &mode);
        }
        if self.hashserv {
            head = head.with("hashserv", &true);
        }
        for secret in &self.secrets {
            head = head.with("secret", secret);
        }
        let source = |s: &Source| {
            Manifest::new()
                .with("source", &s.name)
                .with("sha256", &s.sha256)
        };
        let list: Vec<_> = std::iter::once(head)
            .chain(self.sources.iter().map(source))
            .collect();
        manifest::print_local(&list)
    }

    /// Parses [`TASK`]. Unknown values are ignored.
    ///
    /// # Errors
    /// The first missing or invalid value.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse_local(text)?;
        let (head, sources) = list.split_first().ok_or(TaskError::Empty)?;
        let source = |manifest: &Manifest| {
            Ok(Source {
                name: required(manifest, "source")?.parse()?,
                sha256: required(manifest, "sha256")?.parse()?,
            })
        };
        let secrets = head.all("secret").map(str::parse);
        let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
        let commands = head.get(COMMANDS).is_some();
        let script = !commands && head.get(SCRIPT_OF).is_some();
        let build = match secrets.as_slice() {
            _ if commands => COMMANDS,
            _ if script => SCRIPT_OF,
            [] => BUILD,
            [..] => BUILD_WITH_SECRETS,
        };
        Ok(Self {
            build: required(head, build)?.parse()?,
            machine: required(head, "machine")?.parse()?,
            toolchain: required(head, "toolchain")?.parse()?,
            interactive: head.get("interactive").map(str::parse).transpose()?,
            hold: head.get("hold") == Some("true"),
            commands,
            script,
            log_bytes_max: head.get("log-bytes-max").map(bytes).transpose()?,
            secrets,
            cache: head.get("cache").and_then(|mode| mode.parse().ok()),
            hashserv: head.get("hashserv") == Some("true"),
            sources: sources
                .iter()
                .map(source)
                .collect::<Result<_, TaskError>>()?,
        })
    }
}

fn bytes(text: &str) -> Result<u64, TaskError> {
    text.parse()
        .map_err(|_| TaskError::Value("log-bytes-max", text.chars().take(40).collect()))
}

fn required<'a>(manifest: &'a Manifest, name: &'static str) -> Result<&'a str, TaskError> {
    manifest
        .get(name)
        .filter(|value| !value.is_empty())
        .ok_or(TaskError::Missing(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::any_file_name;

    proptest! {
        #[test]
        fn every_name_of_a_file_is_the_same_after_all_manifests(
            names in prop::collection::btree_set(any_file_name(), 1..5)
        ) {
            let sha256: Digest = "a".repeat(64).parse().unwrap();
            let task = Task {
                build: BuildId(42),
                machine: "linux".parse().unwrap(),
                toolchain: "default".parse().unwrap(),
                interactive: None,
                hold: false,
                commands: false,
                script: false,
                log_bytes_max: None,
                secrets: Vec::new(),
                cache: None,
                hashserv: false,
                sources: names.iter().cloned().map(|name| Source { name, sha256: sha256.clone() }).collect(),
            };
            prop_assert_eq!(Task::parse(&task.print()), Ok(task));
            let package = |file: &FileName| Package {
                file: file.clone(),
                name: "foo".into(),
                version: "1.0^20240101git".into(),
                recipe_revision: "r0".into(),
                architecture: "x86_64".into(),
                checksum: "c0ffee".into(),
                told_revision: None,
            };
            let mut result = TaskResult::new(Outcome::Success);
            result.packages = names.iter().map(package).collect();
            prop_assert_eq!(TaskResult::parse(&result.print()), Ok(result));
            let json = serde_json::to_string(&names).unwrap();
            prop_assert_eq!(serde_json::from_str::<std::collections::BTreeSet<FileName>>(&json).unwrap(), names);
        }
    }

    #[test]
    fn a_written_task_parses_to_the_same_task() {
        let task = Task {
            build: BuildId(42),
            machine: "linux-gcc_6".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
            interactive: Some(Breakpoint::Warning),
            hold: true,
            commands: false,
            script: false,
            log_bytes_max: Some(67_108_864),
            secrets: Vec::new(),
            cache: Some(CacheMode::Read),
            hashserv: true,
            sources: vec![Source {
                name: "hello.tar.gz".parse().unwrap(),
                sha256: "a".repeat(64).parse().unwrap(),
            }],
        };
        insta::assert_snapshot!(task.print());
        assert_eq!(Task::parse(&task.print()), Ok(task));
    }

    #[test]
    fn a_worker_that_does_not_know_commands_refuses_a_driven_guest() {
        for secret in ["", "secret: token\n"] {
            let text = format!(": 1\ncommands: 7\nmachine: linux\ntoolchain: default\n{secret}");
            let task = Task::parse(&text).unwrap();
            assert!(task.commands && task.build == BuildId(7));
            assert_eq!(Task::parse(&task.print()), Ok(task.clone()));
            assert!(!task.print().contains("build"), "{}", task.print());
        }
    }

    #[test]
    fn a_worker_that_does_not_know_scripts_refuses_a_task_with_one() {
        for secret in ["", "secret: token\n"] {
            let text = format!(": 1\nscript: 7\nmachine: linux\ntoolchain: default\n{secret}");
            let task = Task::parse(&text).unwrap();
            assert!(task.script && !task.commands && task.build == BuildId(7));
            assert_eq!(Task::parse(&task.print()), Ok(task.clone()));
            assert!(!task.print().contains("build"), "{}", task.print());
        }
    }

    #[test]
    fn a_worker_that_does_not_know_secrets_refuses_a_task_with_secrets() {
        let task = Task {
            build: BuildId(42),
            machine: "linux-gcc_6".parse().unwrap(),
            toolchain: "default".parse().unwrap(),
            interactive: None,
            hold: false,
            commands: false,
            script: false,
            log_bytes_max: None,
            secrets: vec!["upload-key".parse().unwrap(), "token".parse().unwrap()],
            cache: None,
            hashserv: false,
            sources: Vec::new(),
        };
        let text = task.print();
        assert_eq!(Task::parse(&text), Ok(task));
        let unknown: String = text
            .lines()
            .filter(|line| !line.starts_with("secret:"))
            .fold(String::new(), |kept, line| kept + line + "\n");
        assert_eq!(Task::parse(&unknown), Err(TaskError::Missing("build")));
    }
}
