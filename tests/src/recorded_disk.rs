//! A disk whose every write is recorded, so that the power can be cut after any of
//! them: qemu-storage-daemon's `blklogwrites`, exported by FUSE, under a loop device.
//!
//! The log has the form of the kernel's dm-log-writes: a block that says how many
//! entries there are, then for each entry a block that describes it and its data.
//! Writes are replayed in their order; that a real disk may reorder what has not
//! been flushed is not shown.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use sys::command;
use tempfile::TempDir;

use crate::mount::{Image, Mount, enter_own_namespace};
use crate::wait_until;

const BLOCK: usize = 512;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
const LIMIT: Duration = Duration::from_mins(1);

/// A btrfs on a disk that is recorded.
#[derive(Debug)]
pub struct RecordedDisk {
    directory: TempDir,
    daemon: Child,
}

/// One thing that the disk was told.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data are in the log.
    data: u64,
}

impl Told {
    /// Whether everything before it is safe.
    pub fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }
}

impl RecordedDisk {
    /// Records a disk that begins as a copy of an image, and mounts it.
    ///
    /// # Panics
    /// When it cannot.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn start(image: &Path) -> Self {
        enter_own_namespace();
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        copy(image, &at("before"));
        copy(image, &at("disk"));
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

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// Everything that the disk was told until now.
    ///
    /// # Panics
    /// When the log cannot be read.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn told(&self) -> Vec<Told> {
        read(&self.directory.path().join("log")).expect("the log")
    }

    /// A replay from the beginning.
    pub fn replay(&self) -> Replay<'_> {
        let disk = self.directory.path().join("replayed");
        copy(&self.directory.path().join("before"), &disk);
        Replay {
            recorded: self,
            told: self.told(),
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

/// The disk at any moment of the past, going forward only.
#[derive(Debug)]
pub struct Replay<'a> {
    recorded: &'a RecordedDisk,
    told: Vec<Told>,
    disk: PathBuf,
    done: usize,
}

impl Replay<'_> {
    /// Everything that the disk was told.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// The file system as it is when the power is cut after so many entries.
    ///
    /// # Panics
    /// When it cannot be mounted: a power cut must not do that.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn cut(&mut self, entries: usize) -> Mount {
        let log = File::open(self.recorded.directory.path().join("log")).expect("the log");
        let disk = File::options()
            .write(true)
            .open(&self.disk)
            .expect("the disk");
        for told in &self.told[self.done..entries] {
            let length = usize::try_from(told.sectors).expect("a length") * BLOCK;
            let mut data = vec![0; length];
            if told.flags & DISCARD == 0 {
                log.read_exact_at(&mut data, told.data)
                    .expect("the log's data");
            }
            disk.write_all_at(&data, told.sector * BLOCK as u64)
                .expect("the disk");
        }
        self.done = self.done.max(entries);
        Mount::image(Image::copy_of(&self.disk), "")
    }
}

#[expect(clippy::expect_used, reason = "a test cannot go on without it")]
pub(crate) fn copy(from: &Path, to: &Path) {
    let mut cp = command::prepare("cp");
    cp.arg("--sparse=always").args([from, to]);
    command::run(cp, LIMIT).expect("cp");
}

fn read(path: &Path) -> io::Result<Vec<Told>> {
    let mut log = Vec::new();
    File::open(path)?.read_to_end(&mut log)?;
    let word = |at: usize| {
        let bytes = log.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    // The count in the first block may be older than the entries.
    let mut told = Vec::new();
    let mut at = BLOCK;
    while let (Some(sector), Some(sectors), Some(flags)) = (word(at), word(at + 8), word(at + 16)) {
        if sectors == 0 && flags == 0 {
            break;
        }
        let data = at + BLOCK;
        told.push(Told {
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
    Ok(told)
}
