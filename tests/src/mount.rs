//! Real btrfs on a loop file, in a mount namespace of the test's own: whatever ends
//! the test, the kernel takes the mount and the loop device away with it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use sys::command;
use tempfile::{NamedTempFile, TempDir};

/// More than any command of the harness takes.
const LIMIT: Duration = Duration::from_mins(1);

/// A file that holds a file system.
#[derive(Debug)]
pub struct Image(NamedTempFile);

impl Image {
    /// Makes a btrfs of so many MiB; the file is sparse.
    ///
    /// # Panics
    /// When the disk is full or btrfs-progs are not installed.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn btrfs(mebibytes: u64) -> Self {
        let prefix = format!("buildhost-test-{}-", std::process::id());
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".img")
            .tempfile();
        let file = file.expect("an image file");
        file.as_file()
            .set_len(mebibytes << 20)
            .expect("a sparse file");
        let mut mkfs = command::prepare("mkfs.btrfs");
        mkfs.arg("--quiet").arg(file.path());
        command::run(mkfs, LIMIT).expect("mkfs.btrfs");
        Self(file)
    }

    /// A copy of a file with a file system.
    ///
    /// # Panics
    /// When the disk is full.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn copy_of(path: &Path) -> Self {
        let file = tempfile::Builder::new().suffix(".img").tempfile();
        let file = file.expect("an image file");
        crate::recorded_disk::copy(path, file.path());
        Self(file)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A mounted image. Its loop device goes with the mount.
#[derive(Debug)]
pub struct Mount {
    // Dropped in this order, after the unmounting; the image may be taken out.
    directory: TempDir,
    image: Option<Image>,
}

impl Mount {
    /// Mounts a fresh btrfs of so many MiB where only this test sees it.
    pub fn btrfs(mebibytes: u64) -> Self {
        Self::image(Image::btrfs(mebibytes), "")
    }

    /// Mounts an image, with more options if need be.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn image(image: Image, options: &str) -> Self {
        enter_own_namespace();
        let prefix = format!("buildhost-test-{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir();
        let directory = directory.expect("a mount point");
        let mut mount = command::prepare("mount");
        mount.args(["-t", "btrfs", "-o", &format!("loop,{options}")]);
        mount.args([image.path(), directory.path()]);
        command::run(mount, LIMIT).expect("mount");
        let image = Some(image);
        Self { directory, image }
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Unmounts it and gives the image back.
    ///
    /// # Panics
    /// When somebody uses it.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn unmount(mut self) -> Image {
        umount2(self.directory.path(), MntFlags::empty()).expect("nobody uses it");
        self.image.take().expect("it was mounted")
    }

    /// Makes a directory in it.
    ///
    /// # Panics
    /// When the file system is full.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}

/// Gives this thread, and what it starts, mounts of its own.
///
/// # Panics
/// Without root.
#[expect(clippy::expect_used, reason = "a test cannot go on without it")]
pub fn enter_own_namespace() {
    thread_local!(static ENTERED: Cell<bool> = const { Cell::new(false) });
    if ENTERED.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, which needs root");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("private mounts");
}
