//! A disk that records every write, so that a test can cut the power after any of them: the driver
//! `blklogwrites` of qemu-storage-daemon, exported by FUSE, under a loop device.
//!
//! The log has the format of the kernel's dm-log-writes: a block with the number of entries, then
//! for each entry a block that describes it, followed by its data. Writes are replayed in their
//! order, although a real disk may reorder writes between two flushes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use sys::command;
use tempfile::TempDir;

use crate::image::{Image, copy_sparse};
use crate::mount::{Mount, enter_own_namespace};
use crate::wait_until;

const BLOCK: usize = 512;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
const LIMIT: Duration = Duration::from_mins(1);

/// A btrfs on a disk that records its writes.
#[derive(Debug)]
pub struct RecordedDisk {
    directory: TempDir,
    daemon: Child,
}

/// An entry of the log: a write, a flush or a discard.
#[derive(Debug, Clone, Copy)]
pub struct LogEntry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// The offset of the entry's data in the log.
    data: u64,
}

impl LogEntry {
    /// Returns true if all earlier writes are durable after this entry.
    pub fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }
}

impl RecordedDisk {
    /// Mounts a copy of an image and records its writes from now on.
    pub fn start(image: &Path) -> Self {
        enter_own_namespace();
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        copy_sparse(image, &at("before"));
        copy_sparse(image, &at("disk"));
        for name in ["log", "export"] {
            File::create(at(name)).expect("a file");
        }
        fs::create_dir(at("mount")).expect("a mount point");
        let node = |name: &str| format!("file,node-name={name},filename={}", at(name).display());
        let logged = "blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512";
        let export = at("export").display().to_string();
        let export = format!("fuse,id=export,node-name=logged,mountpoint={export},writable=on");
        let mut daemon = command::prepare("qemu-storage-daemon");
        daemon.args(["--blockdev", &node("disk"), "--blockdev", &node("log")]);
        daemon.args(["--blockdev", logged, "--export", &export]);
        let daemon = daemon.spawn().expect("qemu-storage-daemon");
        let size = fs::metadata(image).expect("the image").len();
        wait_until("the disk is exported", || {
            fs::metadata(at("export")).is_ok_and(|data| data.len() == size)
        });
        let mut mount = command::prepare("mount");
        mount
            .args(["-t", "btrfs", "-o", "loop"])
            .args([at("export"), at("mount")]);
        command::run(mount, LIMIT).expect("mount");
        Self { directory, daemon }
    }

    /// Returns the mount point.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// Returns the log until now.
    pub fn log(&self) -> Vec<LogEntry> {
        read_log(&self.directory.path().join("log")).expect("the log")
    }

    /// Starts a replay of the log on a fresh copy of the image.
    pub fn replay(&self) -> Replay<'_> {
        let disk = self.directory.path().join("replayed");
        copy_sparse(&self.directory.path().join("before"), &disk);
        Replay {
            recorded: self,
            log: self.log(),
            disk,
            done: 0,
        }
    }
}

impl Drop for RecordedDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = umount2(&self.directory.path().join("export"), MntFlags::MNT_DETACH);
    }
}

/// A replay of the log, which can only advance.
#[derive(Debug)]
pub struct Replay<'a> {
    recorded: &'a RecordedDisk,
    log: Vec<LogEntry>,
    disk: PathBuf,
    done: usize,
}

impl Replay<'_> {
    /// Returns the log.
    pub fn log(&self) -> &[LogEntry] {
        &self.log
    }

    /// Mounts the file system as a power cut after this number of entries leaves it.
    pub fn cut(&mut self, entries: usize) -> Mount {
        let log = File::open(self.recorded.directory.path().join("log")).expect("the log");
        let disk = File::options()
            .write(true)
            .open(&self.disk)
            .expect("the disk");
        for entry in &self.log[self.done..entries] {
            let length = usize::try_from(entry.sectors).expect("a length") * BLOCK;
            let mut data = vec![0; length];
            if entry.flags & DISCARD == 0 {
                log.read_exact_at(&mut data, entry.data)
                    .expect("the log's data");
            }
            disk.write_all_at(&data, entry.sector * BLOCK as u64)
                .expect("the disk");
        }
        self.done = self.done.max(entries);
        Mount::image(Image::copy_of(&self.disk), "")
    }
}

/// Reads a log up to its last entry: the number of entries in the first block may be outdated.
fn read_log(path: &Path) -> io::Result<Vec<LogEntry>> {
    let mut log = Vec::new();
    File::open(path)?.read_to_end(&mut log)?;
    let number = |at: usize| {
        let bytes = log.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let mut entries = Vec::new();
    let mut at = BLOCK;
    while let (Some(sector), Some(sectors), Some(flags)) =
        (number(at), number(at + 8), number(at + 16))
    {
        if sectors == 0 && flags == 0 {
            break;
        }
        let data = at + BLOCK;
        entries.push(LogEntry {
            sector,
            sectors,
            flags,
            data: data as u64,
        });
        let length = if flags & DISCARD == 0 {
            usize::try_from(sectors).unwrap_or(0)
        } else {
            0
        };
        at = data + length * BLOCK;
    }
    Ok(entries)
}
