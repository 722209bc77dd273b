//! The ways of a commit into a mirror.

use std::io;
use std::path::Path;

use config::layers::{Reference, RepositoryUrl};

use super::git::Git;
use super::{
    ASK_LIMIT, FETCH_LIMIT, LOCAL_LIMIT, MirrorError, SNAPSHOT, file_error, git_error, unreachable,
};

/// Returns true if a directory of the host is a git repository.
pub(super) fn is_repository(path: &Path) -> bool {
    path.join(".git").exists() || (path.join("HEAD").is_file() && path.join("objects").is_dir())
}

/// Brings a branch, a tag or `HEAD` into a mirror.
pub(super) fn fetch_reference(
    url: &RepositoryUrl,
    reference: &Reference,
    git: &Git,
) -> Result<Reference, MirrorError> {
    let (branch, tag) = (
        format!("refs/heads/{reference}"),
        format!("refs/tags/{reference}"),
    );
    let peeled = format!("{tag}^{{}}");
    let patterns: Vec<&str> = match reference.as_str() {
        "HEAD" => vec!["HEAD"],
        _ => vec![&branch, &tag, &peeled],
    };
    let asked = git.ask_remote(&patterns, ASK_LIMIT);
    let answer = asked.map_err(unreachable(url))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let found = |wanted: &str| {
        let line = answer.lines().filter_map(|line| line.split_once('\t'));
        let mut line = line.filter(|(_, name)| *name == wanted);
        line.next()
            .and_then(|(hash, _)| hash.parse::<Reference>().ok())
    };
    let missing = || MirrorError::NoReference {
        url: url.clone(),
        reference: reference.clone(),
    };
    let names = ["HEAD", branch.as_str(), peeled.as_str(), tag.as_str()];
    let mut candidates = names
        .into_iter()
        .filter_map(|name| Some((name, found(name)?)));
    let (name, commit) = candidates.next().ok_or_else(missing)?;
    if !commit.is_commit() {
        return Err(missing());
    }
    if !has_commit(&commit, git) {
        let name = name.trim_end_matches("^{}");
        let target = match name {
            "HEAD" => "refs/buildhost/head",
            name => name,
        };
        let refspec = format!("+{name}:{target}");
        git.fetch(&[&refspec], FETCH_LIMIT)
            .map_err(unreachable(url))?;
    }
    // The branch may have moved since it was asked for; the older commit is one of its ancestors.
    if has_commit(&commit, git) {
        Ok(commit)
    } else {
        Err(missing())
    }
}

/// Brings a commit into a mirror.
pub(super) fn fetch_commit(
    url: &RepositoryUrl,
    commit: &Reference,
    git: &Git,
) -> Result<Reference, MirrorError> {
    if has_commit(commit, git) {
        return Ok(commit.clone());
    }
    let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    git.fetch(&all, FETCH_LIMIT).map_err(unreachable(url))?;
    if !has_commit(commit, git) {
        // A commit that no branch has any more, from a server that gives it.
        let refspec = format!("{commit}:refs/buildhost/{commit}");
        let _ = git.fetch(&[&refspec], FETCH_LIMIT);
    }
    if has_commit(commit, git) {
        return Ok(commit.clone());
    }
    Err(MirrorError::NoReference {
        url: url.clone(),
        reference: commit.clone(),
    })
}

fn has_commit(commit: &Reference, git: &Git) -> bool {
    let object = format!("{commit}^{{commit}}");
    git.run(&["cat-file", "-e", &object], LOCAL_LIMIT).is_ok()
}

/// Makes a commit of the content of a directory without git.
pub(super) fn snapshot(
    url: &RepositoryUrl,
    reference: &Reference,
    git: &Git,
    path: &Path,
) -> Result<Reference, MirrorError> {
    if reference.is_commit() && has_commit(reference, git) {
        return Ok(reference.clone());
    }
    if reference.as_str() != "HEAD" {
        return Err(MirrorError::Forbidden(format!(
            "{url} is a directory without git, which has only `HEAD`, and not `{reference}`"
        )));
    }
    let failed = git_error(url);
    let index = git.mirror().join("buildhost-index");
    match std::fs::remove_file(&index) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file_error(&index)(error));
        }
        _ => {}
    }
    git.snapshot(&["add", "--all", "--force", "."], path, &index, LOCAL_LIMIT)
        .map_err(unreachable(url))?;
    let tree = git
        .snapshot(&["write-tree"], path, &index, LOCAL_LIMIT)
        .map_err(&failed)?;
    let tree = String::from_utf8_lossy(&tree).trim().to_owned();
    let arguments = ["commit-tree", "-m", "snapshot", &tree];
    let commit = git
        .snapshot(&arguments, path, &index, LOCAL_LIMIT)
        .map_err(&failed)?;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    git.run(
        &["update-ref", &format!("{SNAPSHOT}/{commit}"), &commit],
        LOCAL_LIMIT,
    )
    .map_err(&failed)?;
    commit.parse().map_err(|_| MirrorError::NoReference {
        url: url.clone(),
        reference: reference.clone(),
    })
}
