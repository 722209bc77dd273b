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
//! a [`Go`]: then it gives the kernel the fresh random bytes, sets the clock, and
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
mod go;
mod operations;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::manifest::{self, Manifest, ManifestError};
use crate::names::{BuildId, FileName, MachineName, NameError, ToolchainName};

pub use breakpoint::{AtBreakpoint, Breakpoint};
pub use go::Go;
pub use operations::Operation;

/// The host's address as every guest sees it.
pub const GATEWAY: &str = "169.254.111.222";
/// The host's address as workers of build2 expect it.
pub const GATEWAY_OLD: &str = "196.254.111.222";
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
/// Said on [`CONTROL_PORT`]: all is ready but the task. Answered with a [`Go`].
pub const READY: &str = "ready";

/// Put in an interactive build: that the guest waits for a person, and that it goes on.
pub const BREAKPOINT: &str = "breakpoint.manifest";
/// Fetched by a guest that waits for a person, again and again: it is there when the
/// guest is to go on.
pub const RESUME: &str = "resume.manifest";

/// Where a guest without such a port sends its log while it runs: what comes through
/// a connection to this TCP port at the gateway is shown as it comes.
pub const LOG_TCP_PORT: u16 = 8586;

/// How a build ended, in build2's words; a guest may say all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing has changed since the last time.
    Skip,
    /// The package was built.
    Success,
    /// The package was built, with warnings.
    Warning,
    /// The package could not be built: the fault is the package's.
    Error,
    /// The build was ended by someone or by a time limit.
    Abort,
    /// The host or the guest failed: nothing is known of the package.
    Abnormal,
    /// The build gave way to another one and will be done again.
    Interrupt,
}

impl Outcome {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Skip, "skip"),
        (Self::Success, "success"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Abort, "abort"),
        (Self::Abnormal, "abnormal"),
        (Self::Interrupt, "interrupt"),
    ];

    /// Whether packages came out that may be used.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Skip | Self::Success | Self::Warning)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(outcome, _)| outcome == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

impl FromStr for Outcome {
    type Err = TaskError;

    fn from_str(text: &str) -> Result<Self, TaskError> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found
            .map(|(outcome, _)| *outcome)
            .ok_or_else(|| TaskError::Value("status", text.to_owned()))
    }
}

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

fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// A SHA-256 hash: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(hash: [u8; 32]) -> Self {
        Self(hexadecimal(&hash))
    }
}

impl FromStr for Digest {
    type Err = TaskError;

    fn from_str(text: &str) -> Result<Self, TaskError> {
        let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() == 64 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TaskError::Value("sha256", text.chars().take(70).collect()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = TaskError;

    fn try_from(text: String) -> Result<Self, TaskError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
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

/// A package that a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The file below [`ARTIFACTS`].
    pub file: FileName,
    /// The package's name: `hello`.
    pub name: String,
    /// Its version: `1.0`.
    pub version: String,
    /// The revision in its recipe: `r0`.
    pub recipe_revision: String,
    /// The architecture that it is for.
    pub architecture: String,
    /// What its content was made from: the same checksum, the same package.
    pub checksum: String,
}

impl Package {
    /// The version as a PR service is asked for it: `hello-1.0-r0`.
    pub fn pr_version(&self) -> String {
        format!("{}-{}-{}", self.name, self.version, self.recipe_revision)
    }

    /// This package as one manifest of a list.
    pub fn manifest(&self) -> Manifest {
        Manifest::new()
            .with("package", &self.name)
            .with("version", &self.version)
            .with("recipe-revision", &self.recipe_revision)
            .with("architecture", &self.architecture)
            .with("checksum", &self.checksum)
            .with("file", &self.file)
    }

    /// Reads one manifest of a list.
    ///
    /// # Errors
    /// The first value that is missing or cannot be used.
    pub fn read(manifest: &Manifest) -> Result<Self, TaskError> {
        Ok(Self {
            file: need(manifest, "file")?.parse()?,
            name: word(manifest, "package")?,
            version: word(manifest, "version")?,
            recipe_revision: word(manifest, "recipe-revision")?,
            architecture: word(manifest, "architecture")?,
            checksum: word(manifest, "checksum")?,
        })
    }

    /// Reads a list of packages, as a toolchain's `build` writes it.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, TaskError> {
        manifest::parse(text)?.iter().map(Self::read).collect()
    }
}

/// No message of a guest is longer; what is more is cut off.
const MESSAGE_MAX: usize = 4000;

/// What came of a build or of a bootstrap, as the guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskResult {
    /// How it ended.
    pub status: Outcome,
    /// One line for people; empty when all is said.
    pub message: String,
    /// The packages that came out.
    pub packages: Vec<Package>,
}

impl TaskResult {
    /// A result without a word and without packages.
    pub fn new(status: Outcome) -> Self {
        Self {
            status,
            message: String::new(),
            packages: Vec::new(),
        }
    }

    /// The text of [`RESULT`] or [`BOOTSTRAP`].
    pub fn print(&self) -> String {
        let mut head = Manifest::new().with("status", &self.status);
        if !self.message.is_empty() {
            head = head.with("message", &self.message);
        }
        let packages = self.packages.iter().map(Package::manifest);
        manifest::print(&std::iter::once(head).chain(packages).collect::<Vec<_>>())
    }

    /// Reads [`RESULT`] or [`BOOTSTRAP`]. Values that we do not know are passed over.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse(text)?;
        let (head, packages) = list.split_first().ok_or(TaskError::Empty)?;
        let message = head.get("message").unwrap_or_default();
        Ok(Self {
            status: need(head, "status")?.parse()?,
            message: message.chars().take(MESSAGE_MAX).collect(),
            packages: packages
                .iter()
                .map(Package::read)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn need<'a>(manifest: &'a Manifest, name: &'static str) -> Result<&'a str, TaskError> {
    manifest
        .get(name)
        .filter(|value| !value.is_empty())
        .ok_or(TaskError::Missing(name))
}

/// A value without blanks or control characters: it goes into file names, other
/// protocols and tables.
fn word(manifest: &Manifest, name: &'static str) -> Result<String, TaskError> {
    let value = need(manifest, name)?;
    let fine = value.len() <= 200 && value.chars().all(|c| c.is_ascii_graphic());
    if fine {
        Ok(value.to_owned())
    } else {
        Err(TaskError::Value(name, value.chars().take(40).collect()))
    }
}

/// What a bootstrapped image was made from: the file [`BOOTSTRAP`] in it, written
/// by the agent. The image is out of date when any of it differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The UUID of the revision's subvolume.
    pub revision_uuid: String,
    /// The identity of the toolchain's content.
    pub toolchain_id: Digest,
    /// The version of our way to bootstrap.
    pub bootstrap_version: u32,
}

/// The version of our way to bootstrap; raise it when old images must be made anew.
pub const BOOTSTRAP_VERSION: u32 = 1;

impl Provenance {
    /// The text of the file.
    pub fn print(&self) -> String {
        manifest::print(&[Manifest::new()
            .with("revision-uuid", &self.revision_uuid)
            .with("toolchain-id", &self.toolchain_id)
            .with("bootstrap-version", &self.bootstrap_version)])
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse(text)?;
        let head = list.first().ok_or(TaskError::Empty)?;
        let version = need(head, "bootstrap-version")?;
        let wrong = |_| TaskError::Value("bootstrap-version", version.to_owned());
        Ok(Self {
            revision_uuid: need(head, "revision-uuid")?.to_owned(),
            toolchain_id: need(head, "toolchain-id")?.parse()?,
            bootstrap_version: version.parse().map_err(wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: &str) -> Digest {
        digit.repeat(64).parse().unwrap()
    }

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
                sha256: digest("a"),
            }],
        };
        insta::assert_snapshot!(task.print());
        assert_eq!(Task::parse(&task.print()), Ok(task));
    }

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let result = TaskResult {
            status: Outcome::Warning,
            message: "two lines\nof words".into(),
            packages: vec![Package {
                file: "hello_1.0_x86.ipk".parse().unwrap(),
                name: "hello".into(),
                version: "1.0".into(),
                recipe_revision: "r0".into(),
                architecture: "x86_64".into(),
                checksum: "c0ffee".into(),
            }],
        };
        insta::assert_snapshot!(result.print());
        assert_eq!(result.packages[0].pr_version(), "hello-1.0-r0");
        assert_eq!(TaskResult::parse(&result.print()), Ok(result));
    }

    #[test]
    fn an_image_tells_what_it_was_made_from() {
        let provenance = Provenance {
            revision_uuid: "u-u".into(),
            toolchain_id: digest("0"),
            bootstrap_version: 1,
        };
        assert_eq!(Provenance::parse(&provenance.print()), Ok(provenance));
    }

    #[test]
    fn what_a_hostile_guest_puts_is_refused_with_a_reason() {
        let package =
            "package: p\nversion: 1\nrecipe-revision: r0\narchitecture: all\nchecksum: c\n";
        let table = [
            (String::new(), "the manifest is empty"),
            (": 1\n".into(), "the value `status` is missing"),
            (
                ": 1\nstatus: fine\n".into(),
                "the value `status` cannot be `fine`",
            ),
            (
                format!(": 1\nstatus: success\n:\n{package}"),
                "the value `file` is missing",
            ),
            (
                format!(": 1\nstatus: success\n:\n{package}file: ../x\n"),
                "`../x` cannot be the name of a file of a build",
            ),
            (
                ": 1\nstatus: success\n:\npackage: a b\nfile: f\n".into(),
                "the value `package` cannot be `a b`",
            ),
        ];
        for (text, fault) in table {
            let error = TaskResult::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(fault), "{error}");
        }
    }
}
