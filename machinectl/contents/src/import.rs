//! Imports: revisions of disk images, directories and archives.
//!
//! The content of a file determines its format, not its name.

mod checksum;
mod dependency;
mod disk;
mod format;
mod refusal;
mod source;
mod sparse;
mod vhd;

use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::FileName;
use config::machine::{FILE as MANIFEST, INIT, Kind, is_systemd};
use config::manifest::{self, Manifest};
use parking_lot::Mutex;
use sys::command::{self, CommandError};
use sys::file;

pub use format::ForeignFormat;
pub use refusal::ImportRefusal;
use source::{ContentKind, SourceFile};

use crate::archive;
use crate::machine_manifest::machine_manifest_of;
use btrfs::error::IoContext;
use btrfs::file_tool::{self, LIMIT};
use btrfs::{Result, StoreError};

/// The file that marks the directory of a container image.
const OCI_LAYOUT: &str = "oci-layout";
/// The messages of tar about archives that it cannot read.
const DAMAGED_ARCHIVE: [&str; 4] = [
    "Unexpected EOF in archive",
    "does not look like a tar archive",
    "Skipping to next header",
    "Archive contains",
];

/// The files that an imported machine is made of.
#[derive(Debug)]
pub struct Import {
    path: PathBuf,
    base: Base,
    /// The kernel to boot it with.
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The manifest, instead of a generated one.
    pub manifest: Option<PathBuf>,
}

#[derive(Debug)]
enum Base {
    Directory,
    File(SourceFile, ImportProgress),
}

/// The progress of an import, for another thread.
#[derive(Debug, Clone)]
pub struct ImportProgress {
    input: Arc<File>,
    output: Arc<Mutex<Option<File>>>,
}

impl ImportProgress {
    /// Returns the number of bytes to read; 0 if it is not known.
    pub fn total(&self) -> u64 {
        self.input.metadata().map_or(0, |it| it.len())
    }

    /// Returns the number of bytes that were read. While a disk image is converted, it is estimated
    /// from what is written.
    pub fn bytes(&self) -> u64 {
        let read = (&*self.input).stream_position().unwrap_or(0);
        let written = self.output.lock();
        let written = written.as_ref().and_then(|file| file.metadata().ok());
        let written = written.map_or(0, |it| it.blocks().saturating_mul(512));
        written.min(self.total()).max(read)
    }

    /// Estimates the progress from the size of a file from now on.
    fn watch_output(&self, output: &File) {
        *self.output.lock() = output.try_clone().ok();
    }
}

impl Import {
    /// Returns the import of a path: a directory; or a disk image or an archive, which may be
    /// compressed.
    ///
    /// # Errors
    /// The path cannot be read, or its content can never be a machine.
    pub fn of(path: &Path) -> Result<Self> {
        let metadata = path.metadata().context("open", path)?;
        let base = if metadata.is_dir() {
            if path.join(OCI_LAYOUT).symlink_metadata().is_ok() {
                return Err(ImportRefusal::ContainerImage(path.to_owned()).into());
            }
            Base::Directory
        } else if metadata.is_file() {
            let source = SourceFile::open(path)?;
            let input = source.file.try_clone().context("open", path)?;
            let progress = ImportProgress {
                input: Arc::new(input),
                output: Arc::default(),
            };
            Base::File(source, progress)
        } else {
            return Err(ImportRefusal::NotFile(path.to_owned()).into());
        };
        Ok(Self {
            path: path.to_owned(),
            base,
            kernel: None,
            initrd: None,
            manifest: None,
        })
    }

    /// Verifies the file by the file `SHA256SUMS` in its directory. Returns false if it has no
    /// checksum there.
    ///
    /// # Errors
    /// The checksum is another one.
    pub fn verify_checksum(&self) -> Result<bool> {
        match &self.base {
            Base::Directory => Ok(false),
            Base::File(source, _) => {
                (&source.file).rewind().context("read", &self.path)?;
                checksum::verify(&self.path, &source.file)
            }
        }
    }

    /// Returns the progress of the import of a file and of its verification.
    pub fn progress(&self) -> Option<ImportProgress> {
        match &self.base {
            Base::Directory => None,
            Base::File(_, progress) => Some(progress.clone()),
        }
    }

    /// Writes the machine into an empty directory and checks it.
    ///
    /// # Errors
    /// The files cannot be copied, or are none of a machine.
    pub fn fill(&self, directory: &Path) -> Result<()> {
        let directory = &directory.canonicalize().context("open", directory)?;
        let disk = directory.join(FileName::disk());
        match &self.base {
            Base::Directory => copy(&self.path, directory, directory)?,
            Base::File(source, progress) => match source.kind {
                ContentKind::Archive => extract(source, directory)?,
                ContentKind::Disk(format) => match format.driver() {
                    None => disk::write_raw(source, &disk)?,
                    Some(driver) => disk::convert(source, driver, &disk, progress)?,
                },
            },
        }
        self.check_files(directory)?;
        for (from, name) in [(&self.kernel, "vmlinuz"), (&self.initrd, "initrd")] {
            if let Some(from) = from {
                copy(from, directory, &directory.join(name))?;
            }
        }
        self.write_manifest(directory)?;
        self.check(directory)
    }

    /// Checks that a directory has files of a machine.
    fn check_files(&self, directory: &Path) -> Result<()> {
        let has = |name: &str| directory.join(name).symlink_metadata().is_ok();
        if has(OCI_LAYOUT) {
            return Err(ImportRefusal::ContainerImage(self.path.clone()).into());
        }
        if self.manifest.is_some() || has(MANIFEST) || has(FileName::disk().as_str()) {
            return Ok(());
        }
        Err(ImportRefusal::NoMachine {
            source_file: self.path.clone(),
            inner: only_directory(directory),
        }
        .into())
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
        let text = manifest::print_local(&[manifest]);
        file::replace(&path, text.as_bytes()).context("write", &path)
    }

    /// Checks that the manifest is valid and that the files that it names exist.
    fn check(&self, directory: &Path) -> Result<()> {
        let machine = machine_manifest_of(directory, &self.path)?;
        let boot = machine
            .boot
            .iter()
            .flat_map(|boot| [Some(&boot.kernel), boot.initrd.as_ref()]);
        if machine.kind == Kind::Nspawn {
            let init = sys::untrusted::resolve_in_root(&directory.join(&machine.disk), INIT);
            if init.is_ok_and(|init| is_systemd(&init)) {
                return Err(ImportRefusal::Systemd(self.path.clone()).into());
            }
        }
        // A container may be a directory tree instead of a disk.
        let disk = (machine.kind == Kind::Kvm).then_some(&machine.disk);
        match boot
            .flatten()
            .chain(disk)
            .find(|name| sys::untrusted::open(directory, name).is_err())
        {
            Some(file) => Err(ImportRefusal::MissingFile {
                source_file: self.path.clone(),
                file: file.clone(),
            }
            .into()),
            None => Ok(()),
        }
    }
}

/// Extracts an archive into a directory.
fn extract(source: &SourceFile, directory: &Path) -> Result<()> {
    let (decompressor, content) = source.content()?;
    let extracted = archive::extract(content.into(), directory);
    source::join(decompressor, extracted).map_err(|error| match error {
        StoreError::Command(error) if is_damaged_archive(&error) => ImportRefusal::Damaged {
            source_file: source.path.clone(),
            source: error,
        }
        .into(),
        error => error,
    })
}

fn is_damaged_archive(error: &CommandError) -> bool {
    match error {
        CommandError::Failed { stderr, .. } => {
            let mut known = DAMAGED_ARCHIVE.iter();
            known.any(|message| stderr.contains(message))
        }
        CommandError::Start { .. } | CommandError::TimedOut { .. } => false,
    }
}

/// Returns the name of the only entry of a directory, if that is a directory.
fn only_directory(directory: &Path) -> Option<String> {
    let entries = file::entries(directory).ok()?;
    let [entry] = entries.as_slice() else {
        return None;
    };
    let is_directory = entry.symlink_metadata().is_ok_and(|it| it.is_dir());
    let name = entry.file_name().filter(|_| is_directory)?;
    Some(name.to_string_lossy().into_owned())
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
