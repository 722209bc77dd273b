//! Real btrfs on a loop device, in a mount namespace of the test. However the test ends, the
//! kernel removes the mount and the loop device.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use sys::command;
use tempfile::TempDir;

use crate::image::Image;

/// The time limit for commands of the harness.
const LIMIT: Duration = Duration::from_mins(1);

/// A mounted image. The kernel removes the loop device with the mount.
#[derive(Debug)]
pub struct Mount {
    // The fields are dropped in this order, after `drop` has unmounted the image.
    directory: TempDir,
    image: Option<Image>,
}

impl Mount {
    /// Creates a btrfs of this many MiB and mounts it in the namespace of this test.
    pub fn btrfs(mebibytes: u64) -> Self {
        Self::image(Image::btrfs(mebibytes), "")
    }

    /// Mounts an image with additional mount options.
    pub fn image(image: Image, options: &str) -> Self {
        enter_own_namespace();
        let prefix = format!("buildhost-test-{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir();
        let directory = directory.expect("a mount point");
        let mut mount = command::prepare("mount");
        mount.args(["-t", "btrfs", "-o", &format!("loop,nosuid,nodev,{options}")]);
        mount.args([image.path(), directory.path()]);
        command::run(mount, LIMIT).expect("mount");
        let image = Some(image);
        Self { directory, image }
    }

    /// Returns the mount point.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Unmounts the image and returns it. Nothing may use the mount any more.
    pub fn unmount(mut self) -> Image {
        umount2(self.directory.path(), MntFlags::empty()).expect("an unused mount");
        self.image.take().expect("an image until it is unmounted")
    }

    /// Creates a directory below the mount point, if it is missing, and returns its path.
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

/// Moves this thread, and all processes that it starts from now on, into a new mount namespace.
pub fn enter_own_namespace() {
    thread_local!(static ENTERED: Cell<bool> = const { Cell::new(false) });
    if ENTERED.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, which needs root");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("private mounts");
}
