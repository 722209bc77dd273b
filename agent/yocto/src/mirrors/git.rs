//! The calls of git on one mirror.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use config::layers::RepositoryUrl;
use rustix::thread::CapabilitySet;
use sys::command::{CommandError, Running, prepare};
use sys::confined::{self, Limits};
use sys::mount_view::{Ioctls, MountView, Rights, clone_mount};

use super::{EPOCH, Policy};

/// The limits of git. Its packs are mapped into memory as a whole.
const LIMITS: Limits = Limits {
    memory_bytes: 64 << 30,
    cpu_seconds: 3600,
    file_bytes: u64::MAX,
};
/// The file with settings for programs that git starts on other repositories, in the mirror.
pub(super) const CONFIG: &str = "buildhost.gitconfig";
/// The settings of Buildhost name the directories that may be read, of any owner.
pub(super) const CONFIG_TEXT: &str = "[safe]\n\tdirectory = *\n";
/// The directory in which ssh expects its keys and known hosts.
const SSH_KEYS: &str = "/root/.ssh";

/// git on the mirror of one repository.
#[derive(Debug)]
pub(super) struct Git {
    mirror: PathBuf,
    remote: String,
    /// The directory of the host that is the remote.
    local: Option<PathBuf>,
    policy: Arc<Policy>,
}

impl Git {
    pub(super) fn new(mirror: &Path, url: &RepositoryUrl, policy: Arc<Policy>) -> io::Result<Self> {
        // A link was checked; git sees the directory that it leads to.
        let local = url
            .local_path()
            .map(|path| Path::new(path).canonicalize())
            .transpose();
        let local = match local {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            local => local?,
        };
        let remote = local.as_ref().map(|path| path.display().to_string());
        Ok(Self {
            mirror: mirror.to_owned(),
            remote: remote.unwrap_or_else(|| url.to_string()),
            local,
            policy,
        })
    }

    /// The directory of the mirror.
    pub(super) fn mirror(&self) -> &Path {
        &self.mirror
    }

    /// Runs git on the mirror and returns its output.
    pub(super) fn run(&self, arguments: &[&str], limit: Duration) -> Result<Vec<u8>, CommandError> {
        let mut command = self.command(LIMITS);
        command.args(arguments).stdout(Stdio::piped());
        self.start(command, Access::Mirror)?.output(limit)
    }

    /// Runs git on the mirror with its output in a file, whose size is limited.
    pub(super) fn run_into(
        &self,
        arguments: &[&str],
        output: File,
        bytes_max: u64,
        limit: Duration,
    ) -> Result<(), CommandError> {
        let limits = Limits {
            file_bytes: bytes_max,
            ..LIMITS
        };
        let mut command = self.command(limits);
        command.args(arguments).stdout(output);
        self.start(command, Access::Mirror)?.finish(limit)
    }

    /// Returns the references of the remote that match these patterns.
    pub(super) fn ask_remote(
        &self,
        patterns: &[&str],
        limit: Duration,
    ) -> Result<Vec<u8>, CommandError> {
        let mut command = self.command(LIMITS);
        command
            .args(["ls-remote", "--quiet", "--", &self.remote])
            .args(patterns);
        command.stdout(Stdio::piped());
        self.start(command, Access::Remote)?.output(limit)
    }

    /// Fetches from the remote.
    pub(super) fn fetch(&self, refspecs: &[&str], limit: Duration) -> Result<(), CommandError> {
        let mut command = self.command(LIMITS);
        command.args([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
        ]);
        command
            .args(["--", &self.remote])
            .args(refspecs)
            .stdout(Stdio::null());
        self.start(command, Access::Remote)?.finish(limit)
    }

    /// Runs git on the content of a directory, with an index of its own.
    pub(super) fn snapshot(
        &self,
        arguments: &[&str],
        directory: &Path,
        index: &Path,
        limit: Duration,
    ) -> Result<Vec<u8>, CommandError> {
        let directory = self.local.as_deref().unwrap_or(directory);
        let mut command = self.command(LIMITS);
        command
            .env("GIT_WORK_TREE", directory)
            .env("GIT_INDEX_FILE", index);
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "buildhost");
            command.env(format!("GIT_{role}_EMAIL"), "buildhost");
            command.env(format!("GIT_{role}_DATE"), EPOCH);
        }
        command
            .args(["-C"])
            .arg(directory)
            .args(arguments)
            .stdout(Stdio::piped());
        self.start(command, Access::Remote)?.output(limit)
    }

    /// Returns a command that uses neither the settings nor the hooks of a user.
    fn command(&self, limits: Limits) -> Command {
        let mut command = prepare("git");
        confined::limit(&mut command, limits);
        let protocols = "file:git:http:https:ssh";
        command
            .env("GIT_DIR", &self.mirror)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.mirror.join(CONFIG))
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", protocols)
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
            .env("HOME", "/root");
        for setting in [
            "core.hooksPath=/dev/null",
            "core.autocrlf=false",
            "core.fsmonitor=false",
            "gc.auto=0",
            "tar.umask=0022",
            "advice.defaultBranchName=false",
        ] {
            command.args(["-c", setting]);
        }
        let proxies = self.policy.proxies.iter();
        command.envs(proxies.map(|(name, value)| (name, value)));
        if let Some(path) = &self.policy.credentials {
            let helper = format!("credential.helper=store --file={}", path.display());
            command.args(["-c", &helper]);
        }
        command
    }

    /// Starts git in a view of what it may see. Without root it is only limited, as in tests.
    fn start(&self, command: Command, access: Access) -> Result<Running, CommandError> {
        if !rustix::process::geteuid().is_root() {
            return Running::start(command);
        }
        let line = sys::command::line(&command);
        let failed = |source| CommandError::Start {
            command: line,
            source,
        };
        let mut view = MountView::of_programs();
        let mirror = clone_mount(&self.mirror).map_err(failed)?;
        view.mount_writable(mirror, &self.mirror);
        view.add_device("/dev/urandom");
        if access == Access::Remote {
            if let Some(path) = &self.local {
                view.add_host_paths([path.clone()]);
            } else {
                view.keep_network();
                view.add_host_paths(["/etc/passwd"]);
                view.add_host_paths(self.policy.credentials.clone());
                // A host without keys has no repositories of ssh.
                if let Ok(keys) = clone_mount(&self.policy.ssh_directory) {
                    view.mount(keys, SSH_KEYS);
                }
            }
        }
        let rights = Rights {
            capabilities: CapabilitySet::DAC_READ_SEARCH,
            ioctls: Ioctls::All,
        };
        view.start(command, rights)
    }
}

/// The files that a call of git sees besides programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// The mirror.
    Mirror,
    /// The mirror and the remote.
    Remote,
}
