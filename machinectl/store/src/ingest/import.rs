//! Imports: revisions of disk images, directories and archives.

mod qcow;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use config::FileName;
use config::machine::{FILE as MANIFEST, Kind};
use config::manifest::{self, Manifest};
use config::text::printable;
use serde_json::json;
use sys::confined::{self, Limits};
use sys::{command, file};

use qcow::{HEADER_BYTES, Header};

use crate::error::IoContext;
use crate::file_tool::{self, LIMIT};
use crate::{Refusal, RefusalKind, Result, archive, machine_manifest};

/// The maximum size of a virtual disk, in bytes.
const DISK_BYTES_MAX: u64 = 4 << 40;
/// The maximum address space of the converter of disk images, in bytes.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// The bit of a mode that lets all users read a file.
const READABLE_BY_ALL: u32 = 0o004;

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
            sys::trusted::open(&path).context("open", &path)?;
            Base::Archive(path)
        } else {
            let mut start = Vec::new();
            let file = sys::trusted::open(&path).context("open", &path)?;
            file.take(4)
                .read_to_end(&mut start)
                .context("read", &path)?;
            if start == qcow::MAGIC {
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
        let directory = &directory.canonicalize().context("open", directory)?;
        let disk = directory.join(FileName::disk());
        match &self.base {
            Base::Raw(image) => copy(image, directory, &disk)?,
            Base::Qcow(image) => convert(image, &disk)?,
            Base::Directory(from) => copy(from, directory, directory)?,
            Base::Archive(from) => archive::extract(from, directory)?,
        }
        for (from, name) in [(&self.kernel, "vmlinuz"), (&self.initrd, "initrd")] {
            if let Some(from) = from {
                copy(from, directory, &directory.join(name))?;
            }
        }
        self.write_manifest(directory)?;
        check(directory)
    }

    /// Writes the manifest, unless the imported files include one.
    fn write_manifest(&self, directory: &Path) -> Result<()> {
        let path = directory.join(MANIFEST);
        if let Some(manifest) = &self.manifest {
            return copy(manifest, directory, &path);
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

/// Converts a qcow2 image to a raw disk. The converter is confined, because it parses the image.
fn convert(image: &Path, disk: &Path) -> Result<()> {
    let mut input = readable_when_confined(image, disk)?;
    let bytes = virtual_size(image, &mut input)?;
    let output = File::create_new(disk).context("create", disk)?;
    output.set_len(bytes).context("resize", disk)?;
    let owner = output.metadata().context("inspect", disk)?.uid();
    fchown(&output, Some(confined::user()), None).context("change the owner of", disk)?;
    let mut convert = command::prepare("qemu-img");
    // The format is explicit, so that QEMU does not guess another one from the content.
    let source = json!({
        "driver": "qcow2",
        "backing": null,
        "file": { "driver": "file", "filename": confined::path(0) },
    });
    convert.args(["convert", "-n", "--target-is-zero", "-O", "raw"]);
    convert.args([format!("json:{source}"), confined::path(1)]);
    let limits = Limits {
        memory_bytes: MEMORY_BYTES_MAX,
        cpu_seconds: LIMIT.as_secs(),
        file_bytes: bytes,
    };
    let files = vec![input, output.try_clone().context("open", disk)?];
    confined::confine(&mut convert, limits, files).context("confine the converter of", image)?;
    let converted = command::run(convert, LIMIT);
    fchown(&output, Some(owner), None).context("change the owner of", disk)?;
    converted?;
    Ok(())
}

/// Opens a disk image such that a confined program can open it again. The user of that program
/// needs the permission, so an image that not every user may read is copied to a file without a
/// name on the new disk's file system, which shares the content where it can.
fn readable_when_confined(image: &Path, disk: &Path) -> Result<File> {
    let mut file = sys::trusted::open(image).context("open", image)?;
    let mode = file.metadata().context("inspect", image)?.mode();
    if mode & READABLE_BY_ALL != 0 {
        return Ok(file);
    }
    let directory = disk.parent().unwrap_or(disk);
    let mut copy = tempfile::tempfile_in(directory).context("create a file in", directory)?;
    io::copy(&mut file, &mut copy).context("copy", image)?;
    copy.rewind().context("read the copy of", image)?;
    fchown(&copy, Some(confined::user()), None).context("change the owner of a copy of", image)?;
    Ok(copy)
}

/// Returns the size of the virtual disk of an image. Checks that it reads no other file of the
/// host, and that its disk is not too large.
fn virtual_size(image: &Path, file: &mut File) -> Result<u64> {
    let mut start = Vec::new();
    file.take(HEADER_BYTES)
        .read_to_end(&mut start)
        .context("read", image)?;
    let image = || image.to_owned();
    match Header::parse(&start) {
        None => Err(ImportRefusal::Unknown(image()).into()),
        Some(Header {
            other_file: Some(file),
            ..
        }) => Err(ImportRefusal::OtherFile {
            image: image(),
            file,
        }
        .into()),
        Some(Header { size, .. }) if size > DISK_BYTES_MAX => Err(ImportRefusal::TooLarge {
            image: image(),
            bytes: size,
        }
        .into()),
        Some(Header { size, .. }) => Ok(size),
    }
}

/// Copies a file or the content of a directory, with owners, modes and holes, into a directory or
/// to a file in it. Shares the content where the file system can. Replaces a file or a link at
/// the target, and never follows the link.
fn copy(from: &Path, directory: &Path, to: &Path) -> Result<()> {
    let from = from.canonicalize().context("open", from)?;
    let mut cp = command::prepare("cp");
    cp.args(["--archive", "--reflink=auto", "--sparse=auto"]);
    cp.args(["--remove-destination", "--no-target-directory", "--"]);
    cp.arg(&from).arg(to);
    Ok(file_tool::start_writer(cp, Some(&from), directory)?.finish(LIMIT)?)
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
