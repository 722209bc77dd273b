//! The removal of what a repository no longer needs. Only names that a repository makes are touched.

use std::io;
use std::path::Path;

use super::generation::{entries_if_any, name_of};
use super::{GENERATIONS, Repository, RepositoryError};
use crate::disk::INCOMPLETE;
use crate::index::POOL;
use crate::package::PackageKind;
use crate::state::State;

impl Repository {
    /// Removes files of packages that nothing names, older generations, and what a crash has left. The
    /// generation before the current one stays: a client may be on the way through the link.
    pub(super) fn sweep(&self, state: &State) -> Result<(), RepositoryError> {
        let sweep = || {
            for path in entries_if_any(&self.directory.join(GENERATIONS))? {
                let number = name_of(&path).and_then(|name| name.parse::<u64>().ok());
                let is_kept = |number| (number..=number + 1).contains(&state.generation);
                if number.is_some_and(|number| !is_kept(number)) {
                    self.disk.remove_directory(&path)?;
                }
            }
            self.sweep_pool(state)
        };
        sweep().map_err(|source| self.io(source))
    }

    fn sweep_pool(&self, state: &State) -> io::Result<()> {
        let kept = state.files();
        for directory in entries_if_any(&self.directory.join(POOL))? {
            let Some(hash) = name_of(&directory).filter(|name| is_hash(name)) else {
                continue;
            };
            let mut left = 0_u32;
            for path in entries_if_any(&directory)? {
                let name = name_of(&path).unwrap_or_default();
                let is_own = PackageKind::of_file(name).is_some() || name.starts_with(INCOMPLETE);
                if is_own && !kept.contains(&format!("{POOL}/{hash}/{name}")) {
                    self.disk.remove_file(&path)?;
                } else {
                    left += 1;
                }
            }
            if left == 0 {
                self.disk.remove_directory(&directory)?;
            }
        }
        Ok(())
    }
}

/// Returns true for the name of a directory of the pool.
fn is_hash(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the paths of all packages in the pool, below the directory of the repository.
pub(super) fn packages(directory: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    for hash in entries_if_any(&directory.join(POOL))? {
        let Some(hash_name) = name_of(&hash).filter(|name| is_hash(name)) else {
            continue;
        };
        for path in entries_if_any(&hash)? {
            let name = name_of(&path).filter(|name| PackageKind::of_file(name).is_some());
            paths.extend(name.map(|name| format!("{POOL}/{hash_name}/{name}")));
        }
    }
    Ok(paths)
}
