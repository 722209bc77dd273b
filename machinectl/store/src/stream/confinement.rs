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
    /// An entry of the parent, which had this path there.
    OfParent(Vec<u8>),
}

/// Checks the commands of one stream in their order.
#[derive(Debug)]
pub(super) struct Confinement {
    own: Uuid,
    /// The UUID and the directory of the parent.
    parent: Option<(Uuid, PathBuf)>,
    /// The entries that the stream has changed, by their path. An entry that is not here has
    /// the state of its directory: in a directory of the parent it is the parent's, and in one
    /// of the stream it is not a link.
    changes: BTreeMap<Vec<u8>, Entry>,
}

impl Confinement {
    /// Returns the confinement of a stream with this header. `parent` is the directory of its
    /// parent.
    pub(super) fn new(header: &Header, parent: Option<PathBuf>) -> Self {
        Self {
            own: header.uuid,
            parent: header.parent.map(|it| it.uuid).zip(parent),
            changes: BTreeMap::new(),
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
                Entry::OfParent(origin) => self.is_link_in_parent(&origin)?,
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
        let is_parent = self
            .parent
            .as_ref()
            .is_some_and(|(it, _)| uuid == Some(*it));
        if !is_parent {
            return Err(StreamError::outside(path, Violation::CloneSource));
        }
        check_form(path)?;
        for end in slashes(path).chain([path.len()]) {
            if self.is_link_in_parent(&path[..end])? {
                return Err(StreamError::outside(path, Violation::ThroughLink));
            }
        }
        Ok(())
    }

    /// Returns true for a symbolic link of the parent. The directories of the path must not be
    /// links.
    fn is_link_in_parent(&self, path: &[u8]) -> Result<bool, StreamError> {
        let Some((_, directory)) = &self.parent else {
            return Ok(false);
        };
        let path = directory.join(Path::new(std::ffi::OsStr::from_bytes(path)));
        match fs::symlink_metadata(path) {
            Ok(data) => Ok(data.is_symlink()),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(StreamError::Parent(error)),
        }
    }

    /// Returns the states of the directories of a path from the top, and the state of the path
    /// itself at the end.
    fn entries<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = Entry> + 'a {
        // The top directory is the parent's.
        let mut entry = match self.parent {
            Some(_) => Entry::OfParent(Vec::new()),
            None => Entry::Other,
        };
        let mut start = 0;
        slashes(path).chain([path.len()]).map(move |end| {
            entry = match (self.changes.get(&path[..end]), &entry) {
                (Some(changed), _) => changed.clone(),
                (None, Entry::OfParent(directory)) => {
                    Entry::OfParent([directory, &path[start..end]].concat())
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
        self.take_below(path);
        self.changes.remove(path);
        // Only differences are stored: a full stream creates millions of files.
        if self.entry(path) != entry {
            self.changes.insert(path.to_owned(), entry);
        }
    }

    /// Moves an entry with all that is below it.
    fn rename(&mut self, from: &[u8], to: &[u8]) {
        let (moved, below) = (self.entry(from), self.take_below(from));
        self.set(from, Entry::Other);
        self.set(to, moved);
        for (rest, entry) in below {
            self.changes.insert([to, &rest].concat(), entry);
        }
    }

    /// Removes and returns the changed entries below a path, by the rest of their paths.
    fn take_below(&mut self, path: &[u8]) -> Vec<(Vec<u8>, Entry)> {
        // The slash is followed by `0`.
        let range = [path, b"/"].concat()..[path, b"0"].concat();
        let below: Vec<_> = self
            .changes
            .range(range)
            .map(|(path, _)| path.clone())
            .collect();
        below
            .into_iter()
            .filter_map(|it| Some((it[path.len()..].to_owned(), self.changes.remove(&it)?)))
            .collect()
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
