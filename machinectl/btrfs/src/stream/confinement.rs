//! The paths of a stream's commands, checked before `btrfs receive` applies them.
//!
//! `btrfs receive` runs as root and follows the paths of a stream, wherever they lead. A
//! stream of `btrfs send` names entries below its own subvolume only, never through a symbolic
//! link. A stream that does otherwise is an attack.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{Command, Effect};
use super::format::{Header, StreamError, Violation};
use super::paths::take_below;
use crate::Uuid;

/// The maximum length of a path; that of the kernel.
const PATH_MAX: usize = 4096;

/// The state of an entry that the stream has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    /// A symbolic link of the stream.
    Link,
    /// Anything else of the stream, or nothing any more.
    Other,
    /// An entry of the base, which had this path there.
    OfBase(Vec<u8>),
}

/// Checks the commands of one stream in their order.
#[derive(Debug)]
pub(super) struct Confinement {
    own: Uuid,
    /// The UUID and the directory of the parent.
    parent: Option<(Uuid, PathBuf)>,
    /// The directory of the subvolume to which the commands are applied: the parent, or what
    /// arrived of the stream before.
    base: Option<PathBuf>,
    /// The entries that the stream has changed, by their path. An entry that is not here has
    /// the state of its directory: in a directory of the base it is the base's, and in one
    /// of the stream it is not a link.
    changes: BTreeMap<Vec<u8>, Entry>,
}

impl Confinement {
    /// Returns the confinement of a stream with this header. `parent` is the directory of its
    /// parent.
    pub(super) fn new(header: &Header, parent: Option<PathBuf>) -> Self {
        let parent = header.parent.map(|it| it.uuid).zip(parent);
        Self {
            own: header.uuid,
            base: parent.as_ref().map(|it| it.1.clone()),
            parent,
            changes: BTreeMap::new(),
        }
    }

    /// Returns the confinement of the rest of a stream. `base` is the directory with what arrived
    /// before.
    pub(super) fn resumed(header: &Header, parent: Option<PathBuf>, base: PathBuf) -> Self {
        Self {
            base: Some(base),
            ..Self::new(header, parent)
        }
    }

    /// Checks a command, and records its effect on the paths of later ones.
    ///
    /// # Errors
    /// The command reaches outside its subvolume.
    pub(super) fn check(&mut self, command: &Command<'_>) -> Result<(), StreamError> {
        let path = command.path;
        match command.effect {
            Effect::Frame => Ok(()),
            Effect::Create | Effect::Remove => {
                self.check_parents(path)?;
                self.set(path, Entry::Other);
                Ok(())
            }
            Effect::CreateLink => {
                self.check_parents(path)?;
                self.set(path, Entry::Link);
                Ok(())
            }
            Effect::HardLink => {
                self.check_parents(path)?;
                self.check_parents(command.path_link)?;
                let existing = self.entry(command.path_link);
                self.set(path, existing);
                Ok(())
            }
            Effect::Rename => {
                self.check_parents(path)?;
                self.check_parents(command.path_to)?;
                self.rename(path, command.path_to);
                Ok(())
            }
            Effect::ChangeEntry => self.check_top_or(path, Self::check_parents),
            Effect::ChangeFile => self.check_top_or(path, Self::check_file),
            Effect::Clone => {
                self.check_file(path)?;
                self.check_clone_source(command.clone_uuid, command.clone_path)
            }
        }
    }

    /// Applies a check, except to the empty path, which is the subvolume itself.
    fn check_top_or(
        &self,
        path: &[u8],
        check: impl FnOnce(&Self, &[u8]) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        if path.is_empty() {
            Ok(())
        } else {
            check(self, path)
        }
    }

    /// Checks that a path is inside the subvolume, and that its directories are not links.
    fn check_parents(&self, path: &[u8]) -> Result<(), StreamError> {
        check_form(path)?;
        self.check_no_links(path, slashes(path).count())
    }

    /// As [`Self::check_parents`], for a command that follows a link at the path itself.
    fn check_file(&self, path: &[u8]) -> Result<(), StreamError> {
        check_form(path)?;
        self.check_no_links(path, usize::MAX)
    }

    /// Checks that the first entries of a path are not links. A path is followed once, however
    /// deep it is.
    fn check_no_links(&self, path: &[u8], count: usize) -> Result<(), StreamError> {
        for entry in self.entries(path).take(count) {
            let is_link = match entry {
                Entry::Link => true,
                Entry::Other => false,
                Entry::OfBase(origin) => is_link_in(self.base.as_deref(), &origin)?,
            };
            if is_link {
                return Err(StreamError::outside(path, Violation::ThroughLink));
            }
        }
        Ok(())
    }

    fn check_clone_source(&self, uuid: Option<Uuid>, path: &[u8]) -> Result<(), StreamError> {
        if uuid == Some(self.own) {
            return self.check_file(path);
        }
        let Some((_, parent)) = self.parent.as_ref().filter(|it| uuid == Some(it.0)) else {
            return Err(StreamError::outside(path, Violation::CloneSource));
        };
        check_form(path)?;
        for end in slashes(path).chain([path.len()]) {
            if is_link_in(Some(parent), &path[..end])? {
                return Err(StreamError::outside(path, Violation::ThroughLink));
            }
        }
        Ok(())
    }

    /// Returns the states of the directories of a path from the top, and the state of the path
    /// itself at the end.
    fn entries<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = Entry> + 'a {
        // The top directory is the base's.
        let mut entry = match self.base {
            Some(_) => Entry::OfBase(Vec::new()),
            None => Entry::Other,
        };
        let mut start = 0;
        slashes(path).chain([path.len()]).map(move |end| {
            entry = match (self.changes.get(&path[..end]), &entry) {
                (Some(changed), _) => changed.clone(),
                (None, Entry::OfBase(directory)) => {
                    Entry::OfBase([directory, &path[start..end]].concat())
                }
                (None, Entry::Link | Entry::Other) => Entry::Other,
            };
            start = end;
            entry.clone()
        })
    }

    /// Returns the state of an entry.
    fn entry(&self, path: &[u8]) -> Entry {
        self.entries(path).last().unwrap_or(Entry::Other)
    }

    /// Sets the state of an entry, and forgets what was below it.
    fn set(&mut self, path: &[u8], entry: Entry) {
        take_below(&mut self.changes, path);
        self.changes.remove(path);
        // Only differences are stored: a full stream creates millions of files.
        if self.entry(path) != entry {
            self.changes.insert(path.to_owned(), entry);
        }
    }

    /// Moves an entry with all that is below it.
    fn rename(&mut self, from: &[u8], to: &[u8]) {
        let (moved, below) = (self.entry(from), take_below(&mut self.changes, from));
        self.set(from, Entry::Other);
        self.set(to, moved);
        for (rest, entry) in below {
            self.changes.insert([to, &rest].concat(), entry);
        }
    }
}

/// Returns true for a symbolic link of a directory. The directories of the path must not be links.
fn is_link_in(directory: Option<&Path>, path: &[u8]) -> Result<bool, StreamError> {
    let Some(directory) = directory else {
        return Ok(false);
    };
    let path = directory.join(Path::new(std::ffi::OsStr::from_bytes(path)));
    match fs::symlink_metadata(path) {
        Ok(data) => Ok(data.is_symlink()),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(StreamError::Parent(error)),
    }
}

/// Returns the positions of the slashes in a path.
fn slashes(path: &[u8]) -> impl DoubleEndedIterator<Item = usize> {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at)
}

/// Checks that a path is relative, with whole names only.
fn check_form(path: &[u8]) -> Result<(), StreamError> {
    let is_name = |name: &[u8]| !name.is_empty() && name != b"." && name != b"..";
    let is_path = path.len() < PATH_MAX
        && !path.contains(&0)
        && path.split(|byte| *byte == b'/').all(is_name);
    if is_path {
        Ok(())
    } else {
        Err(StreamError::outside(path, Violation::Path))
    }
}

fn is_missing(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())
}

#[cfg(test)]
mod tests;
