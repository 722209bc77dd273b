//! Staging: a toolchain is prepared beside the others and published in one step.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::{FileName, ToolchainName};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{ToolchainRefusal, is_missing, load};
use crate::Result;
use btrfs::error::IoContext;

/// The prefix of staged directories. No name of a toolchain can begin with it.
const PREFIX: &str = ".buildhost.";

/// Checks that a directory can become a toolchain; returns the names of its files.
pub(super) fn check(from: &Path) -> Result<Vec<FileName>> {
    let source = sys::trusted::open(from).context("open", from)?;
    let names = load::names(&source, from)?;
    for name in &names {
        load::open(&source, from, name)?;
    }
    if names.is_empty() {
        return Err(ToolchainRefusal::Empty(from.to_owned()).into());
    }
    Ok(names)
}

/// Copies the files and links of a directory into a staged one and commits it to the disk.
pub(super) fn copy(from: &Path, root: &Path, name: &ToolchainName) -> Result<PathBuf> {
    // All files are checked before the first is written.
    let names = check(from)?;
    let staged = root.join(format!("{PREFIX}new-{name}"));
    fs::create_dir(&staged).context("create", &staged)?;
    for name in &names {
        let (from, to) = (from.join(name), staged.join(name));
        match fs::read_link(&from) {
            // A link stays a link; `load` checks its target again.
            Ok(target) if target.is_relative() => {
                std::os::unix::fs::symlink(target, &to).context("create the link", &to)?;
            }
            _ => copy_file(&from, &to)?,
        }
    }
    let directory = sys::trusted::open(&staged).context("open", &staged)?;
    rustix::fs::syncfs(&directory)
        .map_err(io::Error::from)
        .context("commit", &staged)?;
    Ok(staged)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator names the directory, and its links are meant to be followed"
)]
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).context("copy", from)?;
    // Guests fetch it over the network, so it is not secret.
    fs::set_permissions(to, fs::Permissions::from_mode(0o644)).context("set the mode of", to)
}

/// Gives a staged toolchain its name. The old one of that name is then staged.
pub(super) fn publish(staged: &Path, target: &Path) -> Result<()> {
    let flags = match target.symlink_metadata() {
        Ok(_) => RenameFlags::EXCHANGE,
        Err(error) if is_missing(&error) => RenameFlags::NOREPLACE,
        Err(error) => return Err(error).context("inspect", target),
    };
    let renamed = renameat_with(CWD, staged, CWD, target, flags);
    renamed
        .map_err(io::Error::from)
        .context("publish", target)?;
    sync_parent(target)
}

/// Stages a published toolchain in one step, so that [`clear`] removes it.
pub(super) fn unpublish(target: &Path, root: &Path, name: &ToolchainName) -> Result<()> {
    let staged = root.join(format!("{PREFIX}old-{name}"));
    fs::rename(target, &staged).context("stage", target)?;
    sync_parent(target)
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    sys::trusted::open(parent)
        .and_then(|parent| parent.sync_all())
        .context("commit", parent)
}

/// Removes everything that is staged. The caller holds the lock.
pub(super) fn clear(root: &Path) -> Result<()> {
    for entry in root.read_dir().context("list", root)? {
        let entry = entry.context("list", root)?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        let removed = if path.is_symlink() || path.is_file() {
            fs::remove_file(&path)
        } else {
            fs::remove_dir_all(&path)
        };
        removed.context("remove", &path)?;
    }
    Ok(())
}
