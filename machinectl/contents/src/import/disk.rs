//! The disk of an imported machine, from a disk image of any format.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::json;
use sys::command::{self, CommandError};
use sys::confined::{self, Limits};
use tempfile::NamedTempFile;

use super::ImportProgress;
use super::refusal::{DISK_BYTES_MAX, ImportRefusal};
use super::source::{self, SourceFile};
use super::{sparse, vhd};
use btrfs::error::IoContext;
use btrfs::file_tool::{self, INPUT, LIMIT, OUTPUT};
use btrfs::stream::TimeoutReader;
use btrfs::{Result, StoreError};

/// The maximum address space of the converter of disk images, in bytes.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// The maximum size of the converter's description of an image.
const INFO_BYTES_MAX: u64 = 16 << 20;
/// The bit of a mode that lets all users read a file.
const READABLE_BY_ALL: u32 = 0o004;

/// Writes the content of a raw image to a new disk.
pub(super) fn write_raw(image: &SourceFile, disk: &Path) -> Result<()> {
    let output = File::create_new(disk).context("create", disk)?;
    write_content(image, &output, disk)?;
    vhd::cut_footer(&output).context("resize", disk)
}

/// Converts an image of another format to a new raw disk. The converter is confined, because it
/// parses the image.
pub(super) fn convert(
    image: &SourceFile,
    driver: &str,
    disk: &Path,
    progress: &ImportProgress,
) -> Result<()> {
    let readable = Readable::of(image, disk)?;
    let bytes = virtual_size(image, driver, readable.file())?;
    let output = File::create_new(disk).context("create", disk)?;
    output.set_len(bytes).context("resize", disk)?;
    progress.watch_output(&output);
    let owner = output.metadata().context("inspect", disk)?.uid();
    fchown(&output, Some(confined::user()), None).context("change the owner of", disk)?;
    let mut convert = command::prepare("qemu-img");
    convert.args(["convert", "-n", "--target-is-zero", "-O", "raw"]);
    convert.args([&node(driver), OUTPUT]);
    let running =
        file_tool::start_converter(convert, limits(bytes), readable.file(), Some(&output));
    let converted = running.and_then(|it| it.finish(LIMIT).map_err(|error| damaged(image, error)));
    fchown(&output, Some(owner), None).context("change the owner of", disk)?;
    converted
}

/// Returns the size of the virtual disk of an image, unless it is too large.
fn virtual_size(image: &SourceFile, driver: &str, file: &File) -> Result<u64> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(rename = "virtual-size")]
        virtual_size: u64,
    }
    let mut info = command::prepare("qemu-img");
    info.args(["info", "--output=json", &node(driver)]);
    info.stdout(Stdio::piped());
    let mut running = file_tool::start_converter(info, limits(0), file, None)?;
    let mut json = Vec::new();
    if let Some(output) = running.child.stdout.take() {
        TimeoutReader::pipe(output)?
            .take(INFO_BYTES_MAX)
            .read_to_end(&mut json)
            .context("read the size of", &image.path)?;
    }
    running
        .finish(LIMIT)
        .map_err(|error| damaged(image, error))?;
    let info: Info = serde_json::from_slice(&json)
        .map_err(Into::into)
        .context("read the size of", &image.path)?;
    if info.virtual_size > DISK_BYTES_MAX {
        return Err(ImportRefusal::TooLarge {
            image: image.path.clone(),
            bytes: info.virtual_size,
        }
        .into());
    }
    Ok(info.virtual_size)
}

/// Returns the description of the converter's input. The format is explicit, so that QEMU does not
/// guess another one from the content, and a file that the image names is not opened.
fn node(driver: &str) -> String {
    let node = json!({
        "driver": driver,
        "backing": null,
        "file": { "driver": "file", "filename": INPUT },
    });
    format!("json:{node}")
}

fn limits(file_bytes: u64) -> Limits {
    Limits {
        memory_bytes: MEMORY_BYTES_MAX,
        cpu_seconds: LIMIT.as_secs(),
        file_bytes,
    }
}

/// Returns the error of a converter that has read an image: if it could write, the image is at
/// fault.
fn damaged(image: &SourceFile, error: CommandError) -> StoreError {
    match error {
        CommandError::Failed { ref stderr, .. }
            if error.system_error().is_none() && !stderr.contains("error while writing") =>
        {
            ImportRefusal::Damaged {
                source_file: image.path.clone(),
                source: error,
            }
            .into()
        }
        error => error.into(),
    }
}

/// An image that the converter's user may read.
enum Readable<'a> {
    /// The image itself.
    Original(&'a File),
    /// A copy, which is deleted when it is dropped. It shares the content where it can.
    Copy(NamedTempFile),
}

impl<'a> Readable<'a> {
    /// Returns the image itself if every user may read it; else a copy beside the new disk.
    fn of(image: &'a SourceFile, disk: &Path) -> Result<Self> {
        let mode = image
            .file
            .metadata()
            .context("inspect", &image.path)?
            .mode();
        if image.compression.is_none() && mode & READABLE_BY_ALL != 0 {
            return Ok(Self::Original(&image.file));
        }
        let directory = disk.parent().unwrap_or(disk);
        let copy = NamedTempFile::new_in(directory).context("create a file in", directory)?;
        write_content(image, copy.as_file(), copy.path())?;
        let user = confined::user();
        fchown(&copy, Some(user), None).context("change the owner of", copy.path())?;
        Ok(Self::Copy(copy))
    }

    fn file(&self) -> &File {
        match self {
            Self::Original(file) => file,
            Self::Copy(copy) => copy.as_file(),
        }
    }
}

/// Writes the content of an image to an empty file, with holes in place of zeros.
fn write_content(image: &SourceFile, output: &File, path: &Path) -> Result<()> {
    let copy = sparse::Copy {
        from: &image.path,
        to: path,
        output,
        bytes_max: DISK_BYTES_MAX,
    };
    if image.compression.is_none() {
        return copy.file(&image.file);
    }
    let (decompressor, content) = image.content()?;
    // Its end of the pipe is closed before the decompressor is awaited.
    let copied = TimeoutReader::pipe(content).and_then(|mut content| copy.stream(&mut content));
    source::join(decompressor, copied)
}
