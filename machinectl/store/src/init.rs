//! The creation of a volume: a directory on btrfs, or a file with a btrfs of its own.

mod boot_mount;
mod size;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::command;

pub use boot_mount::BootMount;
pub use size::{Size, SizeError};

use btrfs::error::IoContext;
use btrfs::subvolumes;

use crate::{Refusal, RefusalKind, Result, mount_table};

/// The options of the mount.
const OPTIONS: &str = "loop,noatime,nosuid,nodev";
/// The unit of the size of a file, which file systems and loop devices divide.
const BLOCK: u64 = 1 << 20;
/// The time limit for each of `mkfs.btrfs`, `mount` and `systemctl`.
const LIMIT: Duration = Duration::from_mins(2);
/// The minimum size of a useful btrfs.
const SIZE_MIN: Size = Size(256 << 20);

/// A reason not to create a volume.
#[derive(Debug, thiserror::Error)]
pub enum InitRefusal {
    /// A mount would hide the directory's content.
    #[error("`{}` is not empty and not on btrfs; choose another directory", .0.display())]
    NotEmpty(PathBuf),
    /// The size is too small for a file system.
    #[error("a volume needs at least {SIZE_MIN}")]
    TooSmall,
}

impl Refusal for InitRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NotEmpty(_) | Self::TooSmall => RefusalKind::Invalid,
        }
    }
}

/// The steps that make a directory a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitPlan {
    /// None: the directory is a volume.
    Nothing,
    /// None: the file of an earlier call is mounted.
    Mounted(PathBuf),
    /// The directory is created on the existing btrfs.
    CreateDirectory,
    /// The file of an earlier call is mounted.
    Mount(PathBuf),
    /// A file with a btrfs is created and mounted.
    CreateFile(PathBuf),
}

impl InitPlan {
    /// Returns the file that is mounted when the plan was executed; `None` on an existing btrfs.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Nothing | Self::CreateDirectory => None,
            Self::Mounted(file) | Self::Mount(file) | Self::CreateFile(file) => Some(file),
        }
    }

    /// Returns the steps as the predicate of a sentence.
    pub fn describe(&self, directory: &Path, size: Size) -> String {
        let directory = directory.display();
        match self {
            Self::Nothing | Self::Mounted(_) => format!("leave {directory} as it is"),
            Self::CreateDirectory => format!("make {directory}"),
            Self::Mount(file) => format!("mount {} at {directory}", file.display()),
            Self::CreateFile(file) => {
                format!(
                    "make a btrfs of {size} in {} and mount it at {directory}",
                    file.display()
                )
            }
        }
    }
}

/// Determines the steps.
///
/// # Errors
/// The directory has content that a mount would hide.
pub fn plan(directory: &Path) -> Result<InitPlan> {
    // The nearest existing ancestor is on the same file system.
    let ancestor = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("."));
    let file = image_file(directory);
    if subvolumes::is_btrfs(ancestor).context("inspect", ancestor)? {
        return Ok(if !directory.is_dir() {
            InitPlan::CreateDirectory
        } else if file.exists() && is_mount_point(directory)? {
            InitPlan::Mounted(file)
        } else {
            InitPlan::Nothing
        });
    }
    if directory.exists() {
        let mut entries = directory.read_dir().context("list", directory)?;
        if entries.next().is_some() {
            return Err(InitRefusal::NotEmpty(directory.to_owned()).into());
        }
    }
    Ok(if file.exists() {
        InitPlan::Mount(file)
    } else {
        InitPlan::CreateFile(file)
    })
}

fn is_mount_point(directory: &Path) -> Result<bool> {
    let path = directory.canonicalize().context("find", directory)?;
    let mounts = mount_table::read().context("read the mounts of", directory)?;
    Ok(mounts.iter().any(|mount| mount.point == path))
}

/// Returns the path of the file beside a directory: `default.btrfs` for `default`.
pub(crate) fn image_file(directory: &Path) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".btrfs");
    directory.with_file_name(name)
}

/// Executes the steps. After a crash they can be planned and executed again.
///
/// # Errors
/// The file system cannot be created or mounted.
pub fn run(plan: &InitPlan, directory: &Path, size: Size) -> Result<()> {
    fs::create_dir_all(directory).context("create", directory)?;
    match plan {
        InitPlan::Nothing | InitPlan::Mounted(_) => return Ok(()),
        InitPlan::CreateDirectory => {}
        InitPlan::Mount(file) => mount(file, directory)?,
        InitPlan::CreateFile(file) => {
            create_file(file, size)?;
            mount(file, directory)?;
        }
    }
    // Images hold set-uid programs, and files that only root of the machine may read.
    close(directory, 0o700)
}

/// Closes a file or directory to all users but root.
fn close(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).context("close to other users", path)
}

/// Creates a file with a btrfs. The file gets its name after the file system is complete.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator names the file; the rest of an interrupted call is replaced"
)]
fn create_file(file: &Path, size: Size) -> Result<()> {
    if size < SIZE_MIN {
        return Err(InitRefusal::TooSmall.into());
    }
    let temporary = file.with_extension("btrfs.new");
    let sparse = File::create(&temporary).context("create", &temporary)?;
    close(&temporary, 0o600)?;
    sparse
        .set_len(size.0 / BLOCK * BLOCK)
        .context("extend", &temporary)?;
    let mut mkfs = command::prepare("mkfs.btrfs");
    mkfs.args(["--quiet", "--force"]).arg(&temporary);
    command::run(mkfs, LIMIT)?;
    sparse.sync_all().context("commit", &temporary)?;
    fs::rename(&temporary, file).context("rename the new file to", file)
}

fn mount(file: &Path, directory: &Path) -> Result<()> {
    // An earlier version left it open.
    close(file, 0o600)?;
    let mut mount = command::prepare("mount");
    mount.args(["-t", "btrfs", "-o", OPTIONS]);
    mount.arg(file).arg(directory);
    command::run(mount, LIMIT)?;
    Ok(())
}
