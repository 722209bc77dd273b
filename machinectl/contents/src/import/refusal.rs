//! The reasons not to import something.

use std::path::{Path, PathBuf};

use config::FileName;
use config::machine::{FILE as MANIFEST, SYSTEMD_IN_CONTAINER};
use config::text::printable;
use sys::command::CommandError;

use super::format::ForeignFormat;
use btrfs::{Refusal, RefusalKind};

/// The file with the checksums that are published with an image.
pub(super) const SUMS: &str = "SHA256SUMS";
/// The maximum size of a virtual disk, in bytes.
pub(super) const DISK_BYTES_MAX: u64 = 4 << 40;

/// A reason not to import something.
#[derive(Debug, thiserror::Error)]
pub enum ImportRefusal {
    /// The source is neither a regular file nor a directory.
    #[error("`{}` is neither a regular file nor a directory", .0.display())]
    NotFile(PathBuf),
    /// The source can never be a machine.
    #[error("{} {format}", subject(source_file, *compressed))]
    Foreign {
        /// The source.
        source_file: PathBuf,
        /// True if this is said of the content of a compressed file.
        compressed: bool,
        /// The format.
        format: ForeignFormat,
    },
    /// The source differs from the checksum that was published with it.
    #[error(
        "`{}` does not have the SHA-256 that `{SUMS}` beside it states; fetch both again",
        .0.display()
    )]
    WrongChecksum(PathBuf),
    /// The files are none of a machine.
    #[error(
        "`{}` has neither `disk.img` nor `{MANIFEST}`, and a machine needs one of them{}",
        source_file.display(),
        inner.as_ref().map(|it| format!(
            "; its files lie in `{}/` and not at the top: import that directory", printable(it)
        )).unwrap_or_default()
    )]
    NoMachine {
        /// The archive or the directory.
        source_file: PathBuf,
        /// The only directory in it, if it has nothing else.
        inner: Option<String>,
    },
    /// The files are a container image.
    #[error(
        "`{}` is an OCI image, which has layers instead of files; export a container of it, and import a directory with these files in `root` and a `{MANIFEST}` with `type: nspawn`",
        .0.display()
    )]
    ContainerImage(PathBuf),
    /// A file that the manifest names is missing or not a regular file.
    #[error("`{}` lacks `{file}`, which its manifest names", source_file.display())]
    MissingFile {
        /// The source of the machine's files.
        source_file: PathBuf,
        /// The file.
        file: FileName,
    },
    /// A container whose first program is systemd.
    #[error("`{}`: {SYSTEMD_IN_CONTAINER}", .0.display())]
    Systemd(PathBuf),
    /// A disk image reads another file of the host.
    #[error(
        "the disk image `{}` reads another file, `{}`; convert it to a single file first: `qemu-img convert`",
        image.display(),
        printable(file)
    )]
    OtherFile {
        /// The disk image.
        image: PathBuf,
        /// The other file.
        file: String,
    },
    /// A disk image has only differences.
    #[error(
        "the disk image `{}` holds only the differences from another one; convert it to a single file first: `qemu-img convert`",
        .0.display()
    )]
    Differences(PathBuf),
    /// A disk image is only a part of a disk, or only names the parts.
    #[error(
        "the disk image `{}` is one of several files of a disk; convert it to a single file first: `qemu-img convert`",
        .0.display()
    )]
    Part(PathBuf),
    /// A virtual disk is too large.
    #[error("the virtual disk in `{}` has {bytes} bytes, more than {DISK_BYTES_MAX}", image.display())]
    TooLarge {
        /// The disk image.
        image: PathBuf,
        /// Its virtual size.
        bytes: u64,
    },
    /// The content cannot be read.
    #[error("`{}` is damaged or ends too early", source_file.display())]
    Damaged {
        /// The file.
        source_file: PathBuf,
        /// The error of the program that reads it.
        source: CommandError,
    },
}

/// Returns the subject of a sentence about a file or its content.
fn subject(file: &Path, compressed: bool) -> String {
    let file = file.display();
    if compressed {
        format!("the content of `{file}`")
    } else {
        format!("`{file}`")
    }
}

impl Refusal for ImportRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::WrongChecksum(_) | Self::Damaged { .. } => RefusalKind::BadStream,
            Self::NotFile(_)
            | Self::Foreign { .. }
            | Self::NoMachine { .. }
            | Self::ContainerImage(_)
            | Self::MissingFile { .. }
            | Self::Systemd(_)
            | Self::OtherFile { .. }
            | Self::Differences(_)
            | Self::Part(_)
            | Self::TooLarge { .. } => RefusalKind::Invalid,
        }
    }
}
