//! Making a revision of what is no subvolume: a disk image, a directory, an archive.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::FileName;
use config::machine::{FILE as MANIFEST, Kind, Machine, MachineError};
use config::manifest::{self, Manifest};

use crate::error::IoContext;
use crate::{Refusal, RefusalKind, Result};
use sys::{command, file};

/// More than copying any image takes.
const LIMIT: Duration = Duration::from_hours(2);
/// How a disk image in QEMU's own format begins.
const QCOW: &[u8] = b"QFI\xfb";

/// A reason not to make a revision of an imported directory.
#[derive(Debug, thiserror::Error)]
pub enum ImportRefusal {
    /// A file is missing that the machine needs.
    #[error("`{}` lacks `{}`", .0.display(), .1)]
    Lacks(PathBuf, String),
    /// The machine's manifest cannot be parsed.
    #[error("`{}` is not the manifest of a machine", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: MachineError,
    },
}

impl Refusal for ImportRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Lacks(..) | Self::Manifest { .. } => RefusalKind::Invalid,
        }
    }
}

/// What a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    base: Base,
    /// A kernel to boot it with.
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk for that.
    pub initrd: Option<PathBuf>,
    /// A manifest, instead of one that is made up.
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
    /// Sees what a path is: a directory, an archive by its name (`.tar`, also
    /// compressed), or a disk image by its content.
    ///
    /// # Errors
    /// When it cannot be read.
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
            if start == QCOW {
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

    /// Fills an empty directory and checks that a machine came out.
    pub(crate) fn fill(&self, directory: &Path) -> Result<()> {
        let disk = directory.join(FileName::disk());
        match &self.base {
            Base::Raw(image) => copy(image, &disk)?,
            Base::Qcow(image) => {
                let mut convert = command::prepare("qemu-img");
                convert.args(["convert", "-O", "raw"]).args([image, &disk]);
                command::run(convert, LIMIT)?;
            }
            Base::Directory(from) => copy(&from.join("."), directory)?,
            Base::Archive(from) => {
                let mut tar = command::prepare("tar");
                tar.args([
                    "--extract",
                    "--preserve-permissions",
                    "--numeric-owner",
                    "--sparse",
                ]);
                tar.arg("--file")
                    .arg(from)
                    .arg("--directory")
                    .arg(directory);
                command::run(tar, LIMIT)?;
            }
        }
        for (from, name) in [(&self.kernel, "vmlinuz"), (&self.initrd, "initrd")] {
            if let Some(from) = from {
                copy(from, &directory.join(name))?;
            }
        }
        self.describe(directory)?;
        check(directory)
    }

    /// Puts the manifest there, unless the base has brought one.
    fn describe(&self, directory: &Path) -> Result<()> {
        let path = directory.join(MANIFEST);
        if let Some(manifest) = &self.manifest {
            return copy(manifest, &path);
        }
        if path.exists() {
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

/// Copies with owners, modes and holes; without copying at all where it can.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut cp = command::prepare("cp");
    cp.args(["--archive", "--reflink=auto", "--sparse=auto"]);
    cp.arg("-H").arg(from).arg(to);
    command::run(cp, LIMIT)?;
    Ok(())
}

/// What was imported must say what it is, and hold what it says.
fn check(directory: &Path) -> Result<()> {
    let path = directory.join(MANIFEST);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImportRefusal::Lacks(directory.to_owned(), MANIFEST.to_owned()).into());
        }
        text => text.context("read", &path)?,
    };
    let machine = Machine::parse(&text).map_err(|source| ImportRefusal::Manifest {
        path: path.clone(),
        source,
    })?;
    let boot = machine
        .boot
        .iter()
        .flat_map(|boot| [Some(&boot.kernel), boot.initrd.as_ref()]);
    // A container may be a directory tree instead of a disk.
    let disk = (machine.kind == Kind::Kvm).then_some(&machine.disk);
    for name in boot.flatten().chain(disk) {
        if !directory.join(name).is_file() {
            return Err(ImportRefusal::Lacks(directory.to_owned(), name.to_string()).into());
        }
    }
    Ok(())
}
