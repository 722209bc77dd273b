//! One generation: the directory with the indexes, written whole before `current` names it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use super::{CURRENT, GENERATIONS, PUBLIC_KEY, Repository, RepositoryError, STATE};
use crate::index::{self, IndexFile, SUITE};
use crate::signature::{self, FeedKey};
use crate::state::State;

/// The directory of indexes by their hashes, beside an index.
const BY_HASH: &str = "by-hash/SHA256";

/// The files of a generation, by their paths below its directory.
struct Content {
    files: Vec<IndexFile>,
    /// The indexes of apt by their hashes, which are further names of files.
    by_hash: Vec<(String, String)>,
}

impl Repository {
    /// Makes a state current, as the next generation. Returns its number.
    pub(super) fn replace(
        &self,
        mut state: State,
        keys: &[FeedKey],
        now: Timestamp,
    ) -> Result<u64, RepositoryError> {
        state.advance(keys.iter().map(FeedKey::fingerprint).collect(), now);
        let Content { mut files, by_hash } = self.content(&state, keys, now)?;
        let current: BTreeSet<_> = by_hash.iter().map(|(path, _)| path.clone()).collect();
        let mut act = || {
            let before = self.names_by_hash()?;
            let kept = state.retire_indexes(&before, &current, now);
            let text = serde_json::to_vec(&state).map_err(io::Error::other)?;
            files.push(IndexFile {
                path: STATE.to_owned(),
                content: text,
            });
            let directory = self.generation(state.generation);
            self.write(&directory, &files, &by_hash, &kept, state.changed.into())?;
            self.disk
                .sync_directory(&self.directory.join(GENERATIONS))?;
            let target = format!("{GENERATIONS}/{}", state.generation);
            self.disk.switch(&self.directory.join(CURRENT), &target)?;
            self.link_names()
        };
        act().map_err(|source| self.io(source))?;
        self.sweep(&state)?;
        Ok(state.generation)
    }

    /// Does what a crash may have kept from being done after a generation became current.
    pub(super) fn complete(&self, state: &State) -> Result<(), RepositoryError> {
        if state.generation > 0 {
            self.link_names().map_err(|source| self.io(source))?;
        }
        self.sweep(state)
    }

    /// Returns the directory of a generation.
    pub(super) fn generation(&self, number: u64) -> PathBuf {
        self.directory.join(GENERATIONS).join(number.to_string())
    }

    /// Returns the files of the generation with a state, with their signatures.
    fn content(
        &self,
        state: &State,
        keys: &[FeedKey],
        now: Timestamp,
    ) -> Result<Content, RepositoryError> {
        let apt = index::apt(&state.entries).map_err(|source| self.io(source))?;
        let release = index::release(&self.origin, &state.entries, &apt, now);
        let opkg = index::opkg(&state.entries).map_err(|source| self.io(source))?;
        let mut files = vec![file(PUBLIC_KEY, signature::public_keys(keys)?)];
        let signed = signature::clear_signed(keys, &release)?;
        let detached = signature::detached(keys, release.as_bytes())?;
        let suite = format!("dists/{SUITE}");
        files.push(file(&format!("{suite}/InRelease"), signed));
        files.push(file(&format!("{suite}/Release"), release.into_bytes()));
        files.push(file(&format!("{suite}/Release.gpg"), detached.armored));
        let detached = signature::detached(keys, &opkg[0].content)?;
        files.push(file("Packages.asc", detached.armored));
        files.push(file("Packages.sig", detached.binary));
        files.extend(opkg);
        let mut by_hash = Vec::new();
        for IndexFile { path, content } in apt {
            let path = format!("{suite}/{path}");
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            let hash = sys::file::digest_of(&content);
            by_hash.push((format!("{directory}/{BY_HASH}/{hash}"), path.clone()));
            files.push(IndexFile { path, content });
        }
        Ok(Content { files, by_hash })
    }

    /// Returns the paths of the indexes by hash in the current generation, those of older ones among them.
    fn names_by_hash(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let current = self.directory.join(CURRENT);
        let component = format!("dists/{SUITE}/{}", index::COMPONENT);
        for architecture in entries_if_any(&current.join(&component))? {
            let Some(architecture) = name_of(&architecture) else {
                continue;
            };
            let directory = format!("{component}/{architecture}/{BY_HASH}");
            let found = entries_if_any(&current.join(&directory))?;
            let found = found.iter().filter_map(|path| name_of(path));
            names.extend(found.map(|name| format!("{directory}/{name}")));
        }
        Ok(names)
    }

    /// Writes a generation and commits it to the disk.
    fn write(
        &self,
        directory: &Path,
        files: &[IndexFile],
        by_hash: &[(String, String)],
        kept: &BTreeSet<String>,
        changed: SystemTime,
    ) -> io::Result<()> {
        // A crash may have left a part of it.
        self.disk.remove_directory(directory)?;
        let current = self.directory.join(CURRENT);
        let names = by_hash.iter().map(|(name, _)| name).chain(kept);
        let paths = files.iter().map(|file| &file.path).chain(names);
        let mut directories = BTreeSet::from([directory.to_owned()]);
        for path in paths {
            let parents = Path::new(path).ancestors().skip(1);
            directories.extend(parents.map(|parent| directory.join(parent)));
        }
        for directory in &directories {
            self.disk.create_directories(directory)?;
        }
        for IndexFile { path, content } in files {
            self.disk.put(&directory.join(path), content, changed)?;
        }
        for (name, path) in by_hash {
            // Two indexes may be equal: both empty.
            if !directory.join(name).exists() {
                self.disk
                    .link(&directory.join(path), &directory.join(name))?;
            }
        }
        for name in kept {
            self.disk.link(&current.join(name), &directory.join(name))?;
        }
        // Names are committed from the bottom up.
        for directory in directories.iter().rev() {
            self.disk.sync_directory(directory)?;
        }
        Ok(())
    }

    /// Makes the links in the directory of the repository that clients follow.
    fn link_names(&self) -> io::Result<()> {
        for name in super::PUBLIC.iter().filter(|name| **name != index::POOL) {
            let link = self.directory.join(name);
            if link.symlink_metadata().is_err() {
                self.disk.switch(&link, &format!("{CURRENT}/{name}"))?;
            }
        }
        Ok(())
    }

    /// Returns the greatest number of a generation, complete or not.
    pub(super) fn newest_generation(&self) -> Result<u64, RepositoryError> {
        let entries = entries_if_any(&self.directory.join(GENERATIONS));
        let entries = entries.map_err(|source| self.io(source))?;
        let numbers = entries
            .iter()
            .filter_map(|path| name_of(path)?.parse().ok());
        Ok(numbers.max().unwrap_or(0))
    }
}

fn file(path: &str, content: Vec<u8>) -> IndexFile {
    let path = path.to_owned();
    IndexFile { path, content }
}

pub(super) fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// Returns the entries of a directory; none if it is not there.
pub(super) fn entries_if_any(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match sys::file::entries(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries,
    }
}
