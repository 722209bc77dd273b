//! Files that are being put: beside their place, counted, and moved there when
//! they are complete and on disk.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;
use tftpd::ErrorCode;

use super::namespace::Destination;
use super::request::Refusal;

/// What has been put by one guest so far, and what is still being put.
#[derive(Debug)]
pub(super) struct Quota {
    bytes_max: u64,
    files_max: usize,
    /// Bytes of finished files by name, so that a second put replaces the first.
    finished: HashMap<String, u64>,
    /// Files that are under way, and the bytes set aside for them.
    open_files: usize,
    open: u64,
}

impl Quota {
    pub(super) fn new(bytes_max: u64, files_max: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            bytes_max,
            files_max,
            finished: HashMap::new(),
            open_files: 0,
            open: 0,
        }))
    }

    fn left(&self) -> u64 {
        let used = self.finished.values().sum::<u64>() + self.open;
        self.bytes_max.saturating_sub(used)
    }
}

fn lock(quota: &Mutex<Quota>) -> MutexGuard<'_, Quota> {
    quota.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One file that is being put. Dropping it takes it away.
#[derive(Debug)]
pub(super) struct StagedFile {
    file: BufWriter<NamedTempFile>,
    destination: Destination,
    name: String,
    reservation: Reservation,
    pub(super) bytes: u64,
}

/// The part of a quota that is set aside for one file.
#[derive(Debug)]
struct Reservation {
    quota: Arc<Mutex<Quota>>,
    bytes: u64,
}

impl Reservation {
    /// Sets a place aside, unless all are taken. A file that is put again has one.
    fn begin(quota: &Arc<Mutex<Quota>>, name: &str) -> Result<Self, Refusal> {
        let mut held = lock(quota);
        let again = usize::from(held.finished.contains_key(name));
        if held.finished.len() + held.open_files >= held.files_max + again {
            return Err(full("too many files"));
        }
        held.open_files += 1;
        Ok(Self {
            quota: Arc::clone(quota),
            bytes: 0,
        })
    }

    fn grow(&mut self, need: u64) -> Result<(), Refusal> {
        let mut quota = lock(&self.quota);
        let left = quota.left();
        if need > left {
            return Err(full("all that may be put has been put"));
        }
        let take = need.max(RESERVE).min(left);
        quota.open += take;
        self.bytes += take;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut quota = lock(&self.quota);
        quota.open -= self.bytes;
        quota.open_files -= 1;
    }
}

const BUFFER: usize = 128 * 1024;
/// What the name of a file begins with that is not whole.
const INCOMING: &str = ".incoming-";
/// The quota is asked once for so many bytes.
const RESERVE: u64 = 256 * 1024;

/// Removes what puts have left in a directory whose server was killed.
pub(super) fn sweep(directory: &Path) -> io::Result<()> {
    let entries = match sys::file::entries(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let half = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with(INCOMING))
    };
    entries
        .into_iter()
        .filter(half)
        .try_for_each(fs::remove_file)
}

impl StagedFile {
    /// Begins a file. `told` is the size that the client says it will have.
    pub(super) fn begin(
        name: &str,
        destination: Destination,
        told: Option<u64>,
        quota: &Arc<Mutex<Quota>>,
    ) -> Result<Self, Refusal> {
        let reservation = Reservation::begin(quota, name)?;
        if told.is_some_and(|size| size > destination.size_max.min(lock(quota).left())) {
            return Err(full("the file is too large"));
        }
        let directory = destination.path.parent().unwrap_or(Path::new("/"));
        let file = tempfile::Builder::new()
            .prefix(INCOMING)
            .tempfile_in(directory)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER, file),
            destination,
            name: name.to_owned(),
            reservation,
            bytes: 0,
        })
    }

    /// Adds what came.
    pub(super) fn write(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let after = self.bytes + payload.len() as u64;
        if after > self.destination.size_max {
            return Err(full("the file is too large"));
        }
        if after > self.reservation.bytes {
            self.reservation.grow(after - self.reservation.bytes)?;
        }
        self.file
            .write_all(payload)
            .map_err(|error| failed(&error))?;
        self.bytes = after;
        Ok(())
    }

    /// Brings the file to disk; nothing is seen of it yet.
    pub(super) fn sync(&mut self) -> Result<(), Refusal> {
        let synced = self.file.flush().and_then(|()| {
            let file = self.file.get_ref().as_file();
            rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(0o644))?;
            file.sync_all()
        });
        synced.map_err(|error| failed(&error))
    }

    /// Moves the file to its place, which is on disk then too.
    pub(super) fn publish(self) -> Result<(), Refusal> {
        let (file, _) = self.file.into_parts();
        move_to(file, &self.destination.path).map_err(|error| failed(&error))?;
        let mut quota = lock(&self.reservation.quota);
        quota.finished.insert(self.name, self.bytes);
        Ok(())
    }
}

fn move_to(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    file.persist(path)?;
    File::open(directory)?.sync_all()
}

fn full(reason: &str) -> Refusal {
    Refusal::new(ErrorCode::DiskFull, reason)
}

/// What the guest is told of a failure of ours: nothing of our paths.
fn failed(error: &io::Error) -> Refusal {
    tracing::warn!(%error, "cannot store what a guest puts");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full("the disk is full"),
        _ => Refusal::new(ErrorCode::NotDefined, "the file cannot be stored"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(
        directory: &Path,
        quota: &Arc<Mutex<Quota>>,
        name: &str,
        size: usize,
    ) -> Result<(), String> {
        let destination = Destination {
            path: directory.join(name),
            size_max: 600_000,
        };
        let mut staged = StagedFile::begin(name, destination, None, quota).map_err(|r| r.reason)?;
        for chunk in vec![7; size].chunks(1000) {
            staged.write(chunk).map_err(|r| r.reason)?;
        }
        staged
            .sync()
            .and_then(|()| staged.publish())
            .map_err(|r| r.reason)
    }

    #[test]
    fn what_was_left_half_is_swept_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        for name in [".incoming-abc", "incoming-abc", "log"] {
            File::create(place.path().join(name)).unwrap();
        }
        sweep(place.path()).unwrap();
        let mut left = sys::file::entries(place.path()).unwrap();
        left.sort();
        assert_eq!(
            left,
            ["incoming-abc", "log"].map(|name| place.path().join(name))
        );
        sweep(&place.path().join("missing")).unwrap();
    }

    #[test]
    fn files_that_are_under_way_count() {
        let directory = tempfile::tempdir().unwrap();
        let quota = Quota::new(1000, 2);
        let begin = |name: &str| {
            let destination = Destination {
                path: directory.path().join(name),
                size_max: 10,
            };
            StagedFile::begin(name, destination, None, &quota)
        };
        let (first, second) = (begin("a").unwrap(), begin("b").unwrap());
        assert_eq!(begin("c").unwrap_err().reason, "too many files");
        drop(second);
        first.publish().unwrap();
        drop(begin("a").unwrap());
        drop(begin("c").unwrap());
    }

    #[test]
    fn limits_hold_for_one_file_for_all_bytes_and_for_all_files() {
        let directory = tempfile::tempdir().unwrap();
        let quota = Quota::new(1_000_000, 3);
        let put = |name: &str, size| put(directory.path(), &quota, name, size);
        assert_eq!(put("b", 600_001).unwrap_err(), "the file is too large");
        put("a", 600_000).unwrap();
        assert_eq!(
            put("b", 500_000).unwrap_err(),
            "all that may be put has been put"
        );
        put("b", 399_000).unwrap();
        put("a", 10).unwrap();
        put("c", 500_000).unwrap();
        assert_eq!(put("d", 0).unwrap_err(), "too many files");
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(lock(&quota).open, 0);
    }
}
