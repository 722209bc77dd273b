//! Files that are being put. Each is written beside its destination, counted against the
//! guest's quota, and renamed to the destination when it is complete and on disk.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;
use tftpd::ErrorCode;

use super::request::{Refusal, RefusalCause};

const WRITE_BUFFER: usize = 128 * 1024;
/// The prefix of the names of incomplete files.
const INCOMING: &str = ".incoming-";
/// The smallest number of bytes by which a reservation grows.
const RESERVATION_STEP: u64 = 256 * 1024;

/// The path that a file gets when it is complete, and its size limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) path: PathBuf,
    pub(super) size_max: u64,
    pub(super) share: Share,
}

/// The quota that a file counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// That of the files which a guest may put in any number.
    Artifacts,
    /// That of the files with fixed names, such as the log and the result.
    Reports,
}

/// The disk quotas of one guest.
#[derive(Debug)]
pub(super) struct Quotas {
    pub(super) artifacts: Arc<Mutex<Quota>>,
    pub(super) reports: Arc<Mutex<Quota>>,
}

impl Quotas {
    /// Returns the quota of a share.
    pub(super) fn of(&self, share: Share) -> &Arc<Mutex<Quota>> {
        match share {
            Share::Artifacts => &self.artifacts,
            Share::Reports => &self.reports,
        }
    }
}

/// A limit of the bytes and of the number of files.
#[derive(Debug)]
pub(super) struct Quota {
    bytes_max: u64,
    files_max: usize,
    /// The sizes of the complete files. A file that is put again replaces the earlier one.
    complete: HashMap<String, u64>,
    /// The sum of these sizes.
    complete_bytes: u64,
    /// The files that are being put.
    reserved_files: usize,
    /// The bytes that are reserved for them.
    reserved_bytes: u64,
}

impl Quota {
    pub(super) fn new(bytes_max: u64, files_max: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            bytes_max,
            files_max,
            complete: HashMap::new(),
            complete_bytes: 0,
            reserved_files: 0,
            reserved_bytes: 0,
        }))
    }

    fn free(&self) -> u64 {
        let used = self.complete_bytes + self.reserved_bytes;
        self.bytes_max.saturating_sub(used)
    }

    #[cfg(test)]
    pub(super) fn limits(&self) -> (u64, usize) {
        (self.bytes_max, self.files_max)
    }

    /// Counts a complete file.
    fn add(&mut self, name: String, bytes: u64) {
        let replaced = self.complete.insert(name, bytes);
        self.complete_bytes = self.complete_bytes + bytes - replaced.unwrap_or(0);
    }

    /// Returns the refusal of a file that would exceed the number of bytes.
    fn exhausted(&self) -> Refusal {
        let bytes_max = self.bytes_max;
        full(
            "the quota is exhausted",
            RefusalCause::QuotaExhausted { bytes_max },
        )
    }
}

fn lock(quota: &Mutex<Quota>) -> MutexGuard<'_, Quota> {
    quota.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a quota that is reserved for one file.
#[derive(Debug)]
struct Reservation {
    quota: Arc<Mutex<Quota>>,
    bytes: u64,
}

impl Reservation {
    /// Reserves one file of a quota. A file that is put again counts once.
    fn new(quota: &Arc<Mutex<Quota>>, name: &str) -> Result<Self, Refusal> {
        let mut locked = lock(quota);
        let replaced = usize::from(locked.complete.contains_key(name));
        if locked.complete.len() + locked.reserved_files >= locked.files_max + replaced {
            let files_max = locked.files_max;
            return Err(full(
                "too many files",
                RefusalCause::TooManyFiles { files_max },
            ));
        }
        locked.reserved_files += 1;
        Ok(Self {
            quota: Arc::clone(quota),
            bytes: 0,
        })
    }

    /// Reserves `bytes` more, or [`RESERVATION_STEP`] if that is more and still free.
    fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        let mut quota = lock(&self.quota);
        let free = quota.free();
        if bytes > free {
            return Err(quota.exhausted());
        }
        let step = bytes.max(RESERVATION_STEP).min(free);
        quota.reserved_bytes += step;
        self.bytes += step;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut quota = lock(&self.quota);
        quota.reserved_bytes -= self.bytes;
        quota.reserved_files -= 1;
    }
}

/// A file that is being put. Dropping it removes it.
#[derive(Debug)]
pub(super) struct StagedFile {
    file: BufWriter<NamedTempFile>,
    destination: Destination,
    name: String,
    reservation: Reservation,
    pub(super) bytes: u64,
}

impl StagedFile {
    /// Creates an empty file. `announced` is the size that the client has announced.
    pub(super) fn create(
        name: &str,
        destination: Destination,
        announced: Option<u64>,
        quota: &Arc<Mutex<Quota>>,
    ) -> Result<Self, Refusal> {
        let reservation = Reservation::new(quota, name)?;
        if announced.is_some_and(|size| size > destination.size_max) {
            return Err(too_large(&destination));
        }
        let locked = lock(quota);
        if announced.is_some_and(|size| size > locked.free()) {
            return Err(locked.exhausted());
        }
        drop(locked);
        let directory = destination.path.parent().unwrap_or(Path::new("/"));
        let file = tempfile::Builder::new()
            .prefix(INCOMING)
            .tempfile_in(directory)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            file: BufWriter::with_capacity(WRITE_BUFFER, file),
            destination,
            name: name.to_owned(),
            reservation,
            bytes: 0,
        })
    }

    /// Appends a payload.
    pub(super) fn write(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let size = self.bytes + payload.len() as u64;
        if size > self.destination.size_max {
            return Err(too_large(&self.destination));
        }
        if size > self.reservation.bytes {
            self.reservation.grow(size - self.reservation.bytes)?;
        }
        self.file
            .write_all(payload)
            .map_err(|error| failed(&error))?;
        self.bytes = size;
        Ok(())
    }

    /// Syncs the content to disk. The file does not have its final name yet.
    pub(super) fn sync(&mut self) -> Result<(), Refusal> {
        let flushed = self.file.flush();
        let synced = flushed.and_then(|()| self.file.get_ref().as_file().sync_all());
        synced.map_err(|error| failed(&error))
    }

    /// Renames the file to its destination, and syncs the rename to disk.
    pub(super) fn publish(self) -> Result<(), Refusal> {
        let (file, _) = self.file.into_parts();
        rename(file, &self.destination.path).map_err(|error| failed(&error))?;
        lock(&self.reservation.quota).add(self.name, self.bytes);
        Ok(())
    }
}

fn rename(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    file.persist(path)?;
    sys::trusted::open(directory)?.sync_all()
}

/// Removes the incomplete files of a server that was killed from a directory.
pub(super) fn sweep(directory: &Path) -> io::Result<()> {
    let entries = match sys::file::entries(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let is_incomplete = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(INCOMING))
    };
    entries
        .into_iter()
        .filter(is_incomplete)
        .try_for_each(fs::remove_file)
}

fn full(reason: &str, cause: RefusalCause) -> Refusal {
    Refusal::of_put(ErrorCode::DiskFull, reason, cause)
}

fn too_large(destination: &Destination) -> Refusal {
    let bytes_max = destination.size_max;
    full(
        "the file is too large",
        RefusalCause::TooLarge { bytes_max },
    )
}

/// Logs a failure of the host and returns the refusal, which shows no path of the host.
fn failed(error: &io::Error) -> Refusal {
    tracing::warn!(
        error = error as &dyn Error,
        "cannot store a file of the guest"
    );
    // Not the code of a quota: the guest is not at fault.
    let reason = if sys::error_report::is_full(error.kind()) {
        "the host's disk is full"
    } else {
        "the file cannot be stored"
    };
    Refusal::of_put(ErrorCode::NotDefined, reason, RefusalCause::Host)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
            share: Share::Artifacts,
        };
        let mut staged =
            StagedFile::create(name, destination, None, quota).map_err(|r| r.reason)?;
        for chunk in vec![7; size].chunks(1000) {
            staged.write(chunk).map_err(|r| r.reason)?;
        }
        staged
            .sync()
            .and_then(|()| staged.publish())
            .map_err(|r| r.reason)
    }

    #[test]
    fn only_incomplete_files_are_swept() {
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
    fn incomplete_files_count_toward_the_quota() {
        let directory = tempfile::tempdir().unwrap();
        let quota = Quota::new(1000, 2);
        let create = |name: &str| {
            let destination = Destination {
                path: directory.path().join(name),
                size_max: 10,
                share: Share::Artifacts,
            };
            StagedFile::create(name, destination, None, &quota)
        };
        let (first, second) = (create("a").unwrap(), create("b").unwrap());
        assert_eq!(create("c").unwrap_err().reason, "too many files");
        drop(second);
        first.publish().unwrap();
        drop(create("a").unwrap());
        drop(create("c").unwrap());
    }

    #[test]
    fn the_size_of_a_file_the_total_size_and_the_number_of_files_are_limited() {
        let directory = tempfile::tempdir().unwrap();
        let quota = Quota::new(1_000_000, 3);
        let put = |name: &str, size| put(directory.path(), &quota, name, size);
        assert_eq!(put("b", 600_001).unwrap_err(), "the file is too large");
        put("a", 600_000).unwrap();
        assert_eq!(put("b", 500_000).unwrap_err(), "the quota is exhausted");
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
        assert_eq!(lock(&quota).reserved_bytes, 0);
    }
}
