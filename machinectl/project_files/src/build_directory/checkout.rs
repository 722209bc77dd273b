//! The checkouts of git in which layers and BitBake are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::command;

use crate::places::{Repository, repository};

/// The time limit for each call of git.
const LIMIT: Duration = Duration::from_mins(1);

/// A checkout of a repository.
#[derive(Debug)]
pub(super) struct Checkout {
    /// Its directory.
    pub(super) top: PathBuf,
    /// The address of the repository that it was cloned from.
    remote: Option<String>,
    /// The branch of that repository which it follows.
    upstream: Option<String>,
    /// The branch; `None` if a commit is checked out.
    branch: Option<String>,
    /// The commit.
    commit: String,
    /// Set if there are changes that are not committed.
    is_changed: bool,
    /// The number of commits that the followed branch has not, as far as is known here.
    ahead: u32,
}

impl Checkout {
    /// Returns the directory of the checkout that contains a directory.
    ///
    /// # Errors
    /// The directory is in no checkout.
    pub(super) fn top_of(directory: &Path) -> Result<PathBuf, String> {
        let top = git(directory, &["rev-parse", "--show-toplevel"]).map_err(|error| {
            format!(
                "{} is in no repository, of which builds take commits: {error}",
                directory.display()
            )
        })?;
        Ok(PathBuf::from(top))
    }

    /// Inspects the checkout in a directory.
    ///
    /// # Errors
    /// git fails.
    pub(super) fn inspect(top: PathBuf) -> Result<Self, String> {
        let ask = |arguments: &[&str]| git(&top, arguments).ok().filter(|it| !it.is_empty());
        let upstream = ask(&["rev-parse", "--abbrev-ref", "@{upstream}"]);
        let ahead = ask(&["rev-list", "--count", "@{upstream}..HEAD"]);
        Ok(Self {
            remote: ask(&["config", "--get", "remote.origin.url"]),
            upstream: upstream.and_then(|it| Some(it.split_once('/')?.1.to_owned())),
            branch: ask(&["symbolic-ref", "--quiet", "--short", "HEAD"]),
            commit: git(&top, &["rev-parse", "HEAD"])?,
            is_changed: ask(&["status", "--porcelain"]).is_some(),
            ahead: ahead.and_then(|it| it.parse().ok()).unwrap_or_default(),
            top,
        })
    }

    /// Returns the repository that builds use: the remote one at the branch that is followed, or
    /// else at the commit; the checkout itself if it has no remote one.
    pub(super) fn repository(&self) -> Result<Repository, String> {
        let top = self.top.display().to_string();
        let name = self.top.file_name().unwrap_or_default().to_string_lossy();
        match (&self.remote, &self.upstream, &self.branch) {
            (Some(remote), Some(branch), Some(_)) => repository(&name, remote, branch),
            (Some(remote), ..) => repository(&name, remote, &self.commit),
            (None, _, Some(branch)) => repository(&name, &top, branch),
            (None, _, None) => repository(&name, &top, &self.commit),
        }
    }

    /// Returns remarks about what builds do not have.
    pub(super) fn notes(&self) -> Vec<String> {
        let top = self.top.display();
        let mut notes = Vec::new();
        if self.is_changed {
            notes.push(format!(
                "{top} has changes that are not committed, which builds do not have"
            ));
        }
        if self.ahead > 0 {
            let ahead = self.ahead;
            notes.push(format!(
                "{top} has {ahead} commits that its remote repository has not, and neither have builds"
            ));
        }
        notes
    }
}

/// Returns the output of git in a directory.
fn git(directory: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut git = command::prepare("git");
    git.arg("-C").arg(directory).args(arguments);
    let output = command::run(git, LIMIT).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output).trim().to_owned())
}
