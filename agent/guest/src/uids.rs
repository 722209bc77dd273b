//! The users of virtual machines: each running guest has a number of its own, so that a
//! guest that breaks out of QEMU reaches no process and no file of another one.
//!
//! The number is recorded in the guest's run directory before QEMU starts, and is free again
//! when that directory is removed. The record is root's: QEMU can neither change it nor give
//! its number to another guest. A later agent finds it there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use config::GuestTag;
use config::settings::UidRange;
use parking_lot::Mutex;

use crate::error::GuestError;
use crate::spec::User;

/// The name of the record in a run directory.
const FILE: &str = "uid";

/// The allocator of the users of an agent's guests.
#[derive(Debug)]
pub struct Uids {
    range: UidRange,
    /// The directory with the run directories of all guests.
    guests: PathBuf,
    /// Held while a number is chosen and recorded.
    allocating: Mutex<()>,
}

impl Uids {
    /// Returns the allocator of numbers in a range, for the guests whose run directories are
    /// in a directory.
    pub fn new(range: UidRange, guests: PathBuf) -> Self {
        Self {
            range,
            guests,
            allocating: Mutex::new(()),
        }
    }

    /// Returns the user of the guest with this run directory, which exists. No other guest
    /// has this user until the directory is removed.
    ///
    /// # Errors
    /// When all users are taken, or a record cannot be read or written.
    pub fn allocate(&self, run_dir: &Path) -> Result<User, GuestError> {
        let _allocating = self.allocating.lock();
        let failed = |path: PathBuf| |source| GuestError::RunDir { path, source };
        let own = run_dir.join(FILE);
        if let Some(uid) = recorded(&own).map_err(failed(own.clone()))? {
            return Ok(User { uid, gid: uid });
        }
        let mut taken = BTreeSet::new();
        let run_dirs = sys::file::entries(&self.guests).map_err(failed(self.guests.clone()))?;
        for path in run_dirs.iter().map(|run_dir| run_dir.join(FILE)) {
            taken.extend(recorded(&path).map_err(failed(path))?);
        }
        let uid = choose(self.range, preference(run_dir), &taken).ok_or(GuestError::NoUid)?;
        sys::file::replace(&own, uid.to_string().as_bytes()).map_err(failed(own))?;
        Ok(User { uid, gid: uid })
    }
}

/// Returns the number that a record holds, or `None` if there is no record.
fn recorded(path: &Path) -> io::Result<Option<u32>> {
    match sys::trusted::read_text(path) {
        Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(error),
        },
    }
}

/// Returns the position at which the search for a guest's number begins: its build's number,
/// so that numbers are not used again soon.
fn preference(run_dir: &Path) -> u64 {
    let name = run_dir.file_name().and_then(|name| name.to_str());
    match name.and_then(|name| name.parse().ok()) {
        Some(GuestTag::Build(build) | GuestTag::Fork(build)) => build.0,
        Some(GuestTag::Copy(copy)) => copy.build.0,
        Some(GuestTag::Auxiliary(auxiliary)) => auxiliary.build.0,
        Some(GuestTag::Bootstrap(number) | GuestTag::Ready(number)) => number,
        None => 0,
    }
}

/// Returns the first number of a range that is not taken, from a position on and around the
/// end of the range.
fn choose(range: UidRange, position: u64, taken: &BTreeSet<u32>) -> Option<u32> {
    let count = u64::from(range.last - range.first) + 1;
    let offset = u32::try_from(position % count).unwrap_or_default();
    let start = range.first + offset;
    (start..=range.last)
        .chain(range.first..start)
        .find(|uid| !taken.contains(uid))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const RANGE: UidRange = UidRange {
        first: 1_900_000_000,
        last: 1_900_000_003,
    };

    fn run_dir(guests: &Path, tag: &str) -> PathBuf {
        let path = guests.join(tag);
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn no_two_guests_have_the_same_user_even_after_a_restart() {
        let guests = tempfile::tempdir().unwrap();
        let guests = guests.path();
        // Builds 1 and 5 would begin at the same number; a container has no record.
        let tags = ["1", "5", "5-a1", "b1"];
        run_dir(guests, "container");
        let uids: BTreeSet<_> = tags
            .iter()
            .map(|tag| {
                // A new agent for each.
                let uids = Uids::new(RANGE, guests.to_owned());
                uids.allocate(&run_dir(guests, tag)).unwrap().uid
            })
            .collect();
        assert_eq!(uids, (RANGE.first..=RANGE.last).collect());
        let uids = Uids::new(RANGE, guests.to_owned());
        let full = uids.allocate(&run_dir(guests, "9"));
        assert!(matches!(full, Err(GuestError::NoUid)), "{full:?}");
        let kept = uids.allocate(&guests.join("5")).unwrap();
        fs::remove_dir_all(guests.join("1")).unwrap();
        let next = uids.allocate(&guests.join("9")).unwrap();
        assert_eq!(next.uid, RANGE.first + 1);
        assert_ne!(kept, next);
    }

    #[test]
    fn simultaneous_starts_get_different_users() {
        let guests = tempfile::tempdir().unwrap();
        let range = UidRange {
            last: RANGE.first + 63,
            ..RANGE
        };
        let uids = Uids::new(range, guests.path().to_owned());
        let allocated: BTreeSet<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..64)
                .map(|number| {
                    let run_dir = run_dir(guests.path(), &format!("7-a{number}"));
                    scope.spawn(|| uids.allocate(&{ run_dir }).unwrap().uid)
                })
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert_eq!(allocated.len(), 64);
    }

    #[test]
    fn a_damaged_record_stops_the_allocation_with_its_path() {
        let guests = tempfile::tempdir().unwrap();
        let damaged = run_dir(guests.path(), "1").join(FILE);
        sys::file::replace(&damaged, b"root").unwrap();
        let uids = Uids::new(RANGE, guests.path().to_owned());
        let error = uids.allocate(&run_dir(guests.path(), "2")).unwrap_err();
        let expected = damaged.display().to_string();
        assert!(error.to_string().contains(&expected), "{error}");
    }
}
