//! Making a volume: a directory on btrfs, or a file with a btrfs of its own.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::error::IoContext;
use crate::{Refusal, RefusalKind, Result, subvolumes};
use sys::command;

/// More than making and mounting a file system takes.
const LIMIT: Duration = Duration::from_mins(2);
/// What `mkfs.btrfs` makes a file system of that is good for anything.
const SIZE_MIN: u64 = 256 << 20;

/// A reason not to make a volume.
#[derive(Debug, thiserror::Error)]
pub enum InitRefusal {
    /// A mount would hide the directory's content.
    #[error("`{}` is not empty and not on btrfs; choose another directory", .0.display())]
    NotEmpty(PathBuf),
    /// The size is too small for a file system.
    #[error("a volume needs at least {}", Size(SIZE_MIN))]
    TooSmall,
}

impl Refusal for InitRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NotEmpty(_) | Self::TooSmall => RefusalKind::Invalid,
        }
    }
}

/// An amount of space, written as `4G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(u64);

impl Size {
    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shifts = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
        let unit = shifts.into_iter().find(|(unit, _)| text.ends_with(*unit));
        let digits = unit.map_or(text, |_| &text[..text.len() - 1]);
        let shift = unit.map_or(0, |(_, shift)| shift);
        let plain: u64 = digits
            .parse()
            .map_err(|_| "write a number and K, M, G or T: `4G`")?;
        match plain.checked_mul(1 << shift) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err("no disk is so large".to_owned()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

/// What it takes to make a directory a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// Nothing.
    Already,
    /// The directory is made on the btrfs that is there.
    Directory,
    /// The file is there from an earlier time and is mounted.
    Mount(PathBuf),
    /// A file is made and mounted.
    Make(PathBuf),
}

impl Init {
    /// What is done, for people.
    pub fn describe(&self, directory: &Path, size: Size) -> String {
        let directory = directory.display();
        match self {
            Self::Already => format!("leave {directory} as it is"),
            Self::Directory => format!("make {directory}"),
            Self::Mount(file) => format!("mount {} at {directory}", file.display()),
            Self::Make(file) => {
                format!(
                    "make a btrfs of {size} in {} and mount it at {directory}",
                    file.display()
                )
            }
        }
    }
}

/// Decides what it takes.
///
/// # Errors
/// When the directory holds something that a mount would hide.
pub fn plan(directory: &Path) -> Result<Init> {
    // The nearest thing that exists tells the file system.
    let there = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() {
        Path::new(".")
    } else {
        there
    };
    if subvolumes::is_btrfs(there).context("look at", there)? {
        let already = directory.is_dir();
        return Ok(if already {
            Init::Already
        } else {
            Init::Directory
        });
    }
    if directory.exists() {
        let mut entries = directory.read_dir().context("list", directory)?;
        if entries.next().is_some() {
            return Err(InitRefusal::NotEmpty(directory.to_owned()).into());
        }
    }
    let file = image(directory);
    Ok(if file.exists() {
        Init::Mount(file)
    } else {
        Init::Make(file)
    })
}

/// The file beside a directory: `default.btrfs` for `default`.
fn image(directory: &Path) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".btrfs");
    directory.with_file_name(name)
}

/// Does it. Killed at any point, it can be repeated.
///
/// # Errors
/// When the file system cannot be made or mounted.
pub fn run(plan: &Init, directory: &Path, size: Size) -> Result<()> {
    fs::create_dir_all(directory).context("make", directory)?;
    match plan {
        Init::Already | Init::Directory => Ok(()),
        Init::Mount(file) => mount(file, directory),
        Init::Make(file) => {
            make(file, size)?;
            mount(file, directory)
        }
    }
}

/// A file gets its name when it holds a whole file system.
fn make(file: &Path, size: Size) -> Result<()> {
    if size.0 < SIZE_MIN {
        return Err(InitRefusal::TooSmall.into());
    }
    let half = file.with_extension("btrfs.new");
    let sparse = File::create(&half).context("make", &half)?;
    sparse.set_len(size.0).context("make", &half)?;
    let mut mkfs = command::prepare("mkfs.btrfs");
    mkfs.args(["--quiet", "--force"]).arg(&half);
    command::run(mkfs, LIMIT)?;
    sparse.sync_all().context("commit", &half)?;
    fs::rename(&half, file).context("put in place", file)
}

fn mount(file: &Path, directory: &Path) -> Result<()> {
    let mut mount = command::prepare("mount");
    mount.args(["-t", "btrfs", "-o", "loop,noatime"]);
    mount.arg(file).arg(directory);
    command::run(mount, LIMIT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!("4G".parse(), Ok(Size(4 << 30)));
        assert_eq!("512M".parse(), Ok(Size(512 << 20)));
        assert_eq!("268435456".parse(), Ok(Size(256 << 20)));
        for text in ["", "G", "4 G", "-4G", "1.5G", "99999999999T", "4é"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
