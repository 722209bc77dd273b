//! Imports: revisions of disk images, directories and archives.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::FileName;
use config::machine::{FILE as MANIFEST, Kind};
use config::manifest::{self, Manifest};
use config::text::printable;
use serde_json::Value;

use sys::{command, file};

use crate::error::IoContext;
use crate::{Refusal, RefusalKind, Result, archive, machine_manifest};

/// The time limit for each copy.
const LIMIT: Duration = Duration::from_hours(2);
/// The maximum size of a virtual disk, in bytes.
const DISK_BYTES_MAX: u64 = 4 << 40;
/// The time limit for reading the properties of a disk image.
const INFO_LIMIT: Duration = Duration::from_mins(1);
/// The magic of disk images in QEMU's own format.
const QCOW_MAGIC: &[u8] = b"QFI\xfb";

/// A reason not to import something.
#[derive(Debug, thiserror::Error)]
pub enum ImportRefusal {
    /// A file that the manifest names is missing or not a regular file.
    #[error("`{}` lacks `{file}`, which its manifest names", directory.display())]
    MissingFile {
        /// The directory of the revision.
        directory: PathBuf,
        /// The file.
        file: FileName,
    },
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
    /// A virtual disk is too large.
    #[error("the virtual disk in `{}` has {bytes} bytes, more than {DISK_BYTES_MAX}", image.display())]
    TooLarge {
        /// The disk image.
        image: PathBuf,
        /// Its virtual size.
        bytes: u64,
    },
    /// The properties of a disk image cannot be determined.
    #[error("cannot determine the properties of the disk image `{}`", .0.display())]
    Unknown(PathBuf),
}

impl Refusal for ImportRefusal {
    fn kind(&self) -> RefusalKind {
        RefusalKind::Invalid
    }
}

/// The files that an imported machine is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    base: Base,
    /// The kernel to boot it with.
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The manifest, instead of a generated one.
    pub manifest: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Base {
    Raw(PathBuf),
    Qcow(PathBuf),
    Directory(PathBuf),
    Archive(PathBuf),
}

impl Import {
    /// Returns the import of a path: a directory, an archive by its name (`.tar`, also
    /// compressed), or else a disk image.
    ///
    /// # Errors
    /// The path cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let path = path.to_owned();
        let base = if path.is_dir() {
            Base::Directory(path)
        } else if name.ends_with(".tar") || name.contains(".tar.") || name.ends_with(".tgz") {
            File::open(&path).context("open", &path)?;
            Base::Archive(path)
        } else {
            let mut start = Vec::new();
            let file = File::open(&path).context("open", &path)?;
            file.take(4)
                .read_to_end(&mut start)
                .context("read", &path)?;
            if start == QCOW_MAGIC {
                Base::Qcow(path)
            } else {
                Base::Raw(path)
            }
        };
        Ok(Self {
            base,
            kernel: None,
            initrd: None,
            manifest: None,
        })
    }

    /// Writes the machine into an empty directory and checks it.
    pub(crate) fn fill(&self, directory: &Path) -> Result<()> {
        let disk = directory.join(FileName::disk());
        match &self.base {
            Base::Raw(image) => copy(image, &disk)?,
            Base::Qcow(image) => {
                check_qcow(image)?;
                let mut convert = command::prepare("qemu-img");
                // With an explicit format, QEMU does not guess another one from the content.
                convert.args(["convert", "-f", "qcow2", "-O", "raw"]);
                convert.args([image, &disk]);
                command::run(convert, LIMIT)?;
            }
            Base::Directory(from) => copy(&from.join("."), directory)?,
            Base::Archive(from) => {
                command::run(archive::extract(from, directory), LIMIT)?;
            }
        }
        for (from, name) in [(&self.kernel, "vmlinuz"), (&self.initrd, "initrd")] {
            if let Some(from) = from {
                copy(from, &directory.join(name))?;
            }
        }
        self.write_manifest(directory)?;
        check(directory)
    }

    /// Writes the manifest, unless the imported files include one.
    fn write_manifest(&self, directory: &Path) -> Result<()> {
        let path = directory.join(MANIFEST);
        if let Some(manifest) = &self.manifest {
            return copy(manifest, &path);
        }
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        let mut manifest = Manifest::new()
            .with("id", &"imported")
            .with("summary", &"An imported machine");
        if self.kernel.is_some() {
            manifest = manifest.with("kernel", &"vmlinuz");
            if self.initrd.is_some() {
                manifest = manifest.with("initrd", &"initrd");
            }
        }
        let text = manifest::print(&[manifest]);
        file::replace(&path, text.as_bytes()).context("write", &path)
    }
}

/// Checks that a disk image reads no other file of the host, and that its disk is not too
/// large.
fn check_qcow(image: &Path) -> Result<()> {
    let mut info = command::prepare("qemu-img");
    info.args(["info", "--output=json", "--force-share", "-f", "qcow2"]);
    info.arg(image);
    let output = command::run(info, INFO_LIMIT)?;
    let unknown = || ImportRefusal::Unknown(image.to_owned());
    let info: Value = serde_json::from_slice(&output).map_err(|_| unknown())?;
    let data_file = &info["format-specific"]["data"]["data-file"];
    for other in [
        &info["full-backing-filename"],
        &info["backing-filename"],
        data_file,
    ] {
        if let Some(file) = other.as_str() {
            return Err(ImportRefusal::OtherFile {
                image: image.to_owned(),
                file: file.to_owned(),
            }
            .into());
        }
    }
    match info["virtual-size"].as_u64() {
        Some(bytes) if bytes > DISK_BYTES_MAX => Err(ImportRefusal::TooLarge {
            image: image.to_owned(),
            bytes,
        }
        .into()),
        Some(_) => Ok(()),
        None => Err(unknown().into()),
    }
}

/// Copies with owners, modes and holes. Shares the content where the file system can. Replaces
/// a file or a link at the target, and never follows the link.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut cp = command::prepare("cp");
    cp.args(["--archive", "--reflink=auto", "--sparse=auto"]);
    cp.args(["--remove-destination", "--no-target-directory"]);
    cp.arg("-H").arg(from).arg(to);
    command::run(cp, LIMIT)?;
    Ok(())
}

/// Checks that the manifest is valid and that the files that it names exist.
fn check(directory: &Path) -> Result<()> {
    let machine = machine_manifest(directory)?;
    let boot = machine
        .boot
        .iter()
        .flat_map(|boot| [Some(&boot.kernel), boot.initrd.as_ref()]);
    // A container may be a directory tree instead of a disk.
    let disk = (machine.kind == Kind::Kvm).then_some(&machine.disk);
    match boot
        .flatten()
        .chain(disk)
        .find(|name| sys::untrusted::open(directory, name).is_err())
    {
        Some(file) => Err(ImportRefusal::MissingFile {
            directory: directory.to_owned(),
            file: file.clone(),
        }
        .into()),
        None => Ok(()),
    }
}
