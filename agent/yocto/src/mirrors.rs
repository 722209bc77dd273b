//! Mirrors of git repositories on the host, from which builds get archives of commits.
//!
//! Each repository has a bare mirror. git runs confined: it sees programs, its mirror and, for a
//! repository of the host, that directory, and keeps one capability, to read the files of others.
//! A directory without git becomes a commit of its content.

mod fetch;
mod git;
mod policy;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::layers::{LayerPath, Reference, RepositoryUrl};
use parking_lot::Mutex;
use sys::command::CommandError;
use tempfile::NamedTempFile;

use fetch::{fetch_commit, fetch_reference, is_repository, snapshot};
use git::Git;

pub use policy::{Policy, proxies};

/// The time limits of a question to a remote host, of a transfer, and of work on a mirror.
const ASK_LIMIT: Duration = Duration::from_mins(1);
const FETCH_LIMIT: Duration = Duration::from_hours(1);
const LOCAL_LIMIT: Duration = Duration::from_mins(10);
/// The reference that holds the content of a directory without git.
const SNAPSHOT: &str = "refs/buildhost/snapshot";
/// The time and the author of such a commit, so that equal content is an equal commit.
const EPOCH: &str = "@0 +0000";

/// A failure to use a repository.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The settings do not allow the repository.
    #[error("{0}")]
    Forbidden(String),
    /// The repository cannot be reached, or does not permit access.
    #[error("cannot read the repository {url}")]
    Unreachable {
        /// The address.
        url: RepositoryUrl,
        /// The failure.
        source: CommandError,
    },
    /// The repository has no such branch, tag or commit.
    #[error("the repository {url} has no branch, tag or commit {reference}")]
    NoReference {
        /// The address.
        url: RepositoryUrl,
        /// The reference.
        reference: Reference,
    },
    /// git failed on a mirror.
    #[error("git cannot use the mirror of {url}")]
    Git {
        /// The address.
        url: RepositoryUrl,
        /// The failure.
        source: CommandError,
    },
    /// A file of the host cannot be used.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
}

impl MirrorError {
    /// Returns true if the cause is outside of this host's own files.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Forbidden(_) | Self::Unreachable { .. } | Self::NoReference { .. } => true,
            Self::Git { .. } | Self::File { .. } => false,
        }
    }
}

/// The mirrors of a host. Clones share them.
#[derive(Debug, Clone)]
pub struct Mirrors {
    directory: PathBuf,
    policy: Arc<Policy>,
    /// One lock for each mirror, so that two fetches of one do not meet.
    locks: Arc<Mutex<BTreeMap<PathBuf, Arc<Mutex<()>>>>>,
}

impl Mirrors {
    /// Returns the mirrors in a directory, which need not exist.
    pub fn new(directory: &Path, policy: Policy) -> Self {
        Self {
            directory: directory.to_owned(),
            policy: Arc::new(policy),
            locks: Arc::default(),
        }
    }

    /// Removes the locks that git left when it was killed.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn prepare(&self) -> Result<(), MirrorError> {
        let path = &self.directory;
        let removed = sys::file::private_directory(path).and_then(|()| remove_locks(path));
        removed.map_err(file_error(path))
    }

    /// Checks that the settings allow a repository.
    ///
    /// # Errors
    /// They do not; the text names the setting.
    pub fn check(&self, url: &RepositoryUrl) -> Result<(), MirrorError> {
        self.policy.check(url).map_err(MirrorError::Forbidden)
    }

    /// Brings a branch, a tag or a commit into the mirror of a repository. Returns the commit.
    ///
    /// # Errors
    /// The repository is not allowed or cannot be reached, or has no such reference.
    pub fn update(
        &self,
        url: &RepositoryUrl,
        reference: &Reference,
    ) -> Result<Reference, MirrorError> {
        self.check(url)?;
        let git = self.git(url)?;
        let lock = Arc::clone(
            self.locks
                .lock()
                .entry(git.mirror().to_owned())
                .or_default(),
        );
        let _guard = lock.lock();
        Self::create(url, &git)?;
        match url.local_path().map(Path::new) {
            Some(path) if !is_repository(path) => snapshot(url, reference, &git, path),
            _ if reference.is_commit() => fetch_commit(url, reference, &git),
            _ => fetch_reference(url, reference, &git),
        }
    }

    /// Returns the text of a file of a commit; `None` if the commit has no such file.
    ///
    /// # Errors
    /// git fails.
    pub fn read_file(
        &self,
        url: &RepositoryUrl,
        commit: &Reference,
        directory: &LayerPath,
        name: &str,
    ) -> Result<Option<String>, MirrorError> {
        let git = self.git(url)?;
        let path = match directory.as_str() {
            "" => name.to_owned(),
            directory => format!("{directory}/{name}"),
        };
        let object = format!("{commit}:{path}");
        // A link is not followed, and a directory is no file.
        match git.run(&["cat-file", "blob", &object], LOCAL_LIMIT) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(CommandError::Failed { .. }) => Ok(None),
            Err(source) => Err(git_error(url)(source)),
        }
    }

    /// Writes an archive of a commit to a new file in a directory. Equal commits have equal
    /// archives. Its files are below the directory `prefix`; the file has at most `bytes_max`
    /// bytes.
    ///
    /// # Errors
    /// git fails, or the file cannot be written.
    pub fn archive(
        &self,
        url: &RepositoryUrl,
        commit: &Reference,
        prefix: &str,
        directory: &Path,
        bytes_max: u64,
    ) -> Result<NamedTempFile, MirrorError> {
        let file = NamedTempFile::new_in(directory).map_err(file_error(directory))?;
        let output = file.as_file().try_clone().map_err(file_error(directory))?;
        let prefix = format!("--prefix={prefix}/");
        let arguments = ["archive", "--format=tar", &prefix, commit.as_str()];
        self.git(url)?
            .run_into(&arguments, output, bytes_max, LOCAL_LIMIT)
            .map_err(git_error(url))?;
        Ok(file)
    }

    /// Returns true if one commit of a mirror is an ancestor of another one.
    ///
    /// # Errors
    /// git fails, such as for a commit that the mirror does not have.
    pub fn is_ancestor(
        &self,
        url: &RepositoryUrl,
        older: &Reference,
        newer: &Reference,
    ) -> Result<bool, MirrorError> {
        let arguments = [
            "merge-base",
            "--is-ancestor",
            older.as_str(),
            newer.as_str(),
        ];
        match self.git(url)?.run(&arguments, LOCAL_LIMIT) {
            Ok(_) => Ok(true),
            Err(CommandError::Failed { status, .. }) if status.code() == Some(1) => Ok(false),
            Err(source) => Err(git_error(url)(source)),
        }
    }

    /// Returns the commits of a mirror from one to another, the oldest first: each is one step
    /// on the first line of descent.
    ///
    /// # Errors
    /// git fails, such as for a commit that the mirror does not have.
    pub fn commits_between(
        &self,
        url: &RepositoryUrl,
        from: &Reference,
        to: &Reference,
    ) -> Result<Vec<Reference>, MirrorError> {
        let range = format!("{from}..{to}");
        let arguments = ["rev-list", "--first-parent", "--reverse", &range];
        let output = self
            .git(url)?
            .run(&arguments, LOCAL_LIMIT)
            .map_err(git_error(url))?;
        let text = String::from_utf8_lossy(&output).into_owned();
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    fn git(&self, url: &RepositoryUrl) -> Result<Git, MirrorError> {
        let hash = sys::file::digest_of(url.as_str().as_bytes());
        let name = format!("{}-{}.git", url.base_name(), &hash.as_str()[..16]);
        let mirror = self.directory.join(name);
        let git = Git::new(&mirror, url, Arc::clone(&self.policy));
        git.map_err(file_error(&mirror))
    }

    /// Creates the mirror of a repository if it does not exist.
    fn create(url: &RepositoryUrl, git: &Git) -> Result<(), MirrorError> {
        let mirror = git.mirror();
        if mirror.join("HEAD").exists() {
            return Ok(());
        }
        let config = mirror.join(git::CONFIG);
        sys::file::private_directory(mirror)
            .and_then(|()| sys::file::replace(&config, git::CONFIG_TEXT.as_bytes()))
            .map_err(file_error(mirror))?;
        git.run(
            &["init", "--quiet", "--bare", "--initial-branch=mirror"],
            LOCAL_LIMIT,
        )
        .map_err(git_error(url))?;
        Ok(())
    }
}

fn unreachable(url: &RepositoryUrl) -> impl Fn(CommandError) -> MirrorError + use<> {
    let url = url.clone();
    move |source| MirrorError::Unreachable {
        url: url.clone(),
        source,
    }
}

fn git_error(url: &RepositoryUrl) -> impl Fn(CommandError) -> MirrorError + use<> {
    let url = url.clone();
    move |source| MirrorError::Git {
        url: url.clone(),
        source,
    }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> MirrorError + use<> {
    let path = path.to_owned();
    move |source| MirrorError::File {
        path: path.clone(),
        source,
    }
}

/// Removes the lock files below a directory.
fn remove_locks(directory: &Path) -> io::Result<()> {
    for path in sys::file::entries(directory)? {
        let metadata = std::fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            // Objects have no locks.
            if path.file_name().is_none_or(|name| name != "objects") {
                remove_locks(&path)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == "lock")
        {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
