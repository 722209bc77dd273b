//! Archives. They keep all properties that a content manifest covers.
//!
//! ACLs are kept as extended attributes, which hold the numbers of users. tar's option `--acls`
//! would store their names, which can be other users on the host that extracts the archive.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use sys::command::{self, CommandError};

use crate::Result;
use crate::content_manifest::ATTRIBUTES;
use crate::error::IoContext;
use crate::file_tool::{self, LIMIT};

/// The first bytes of compressed files, and the programs that decompress them with the option
/// `-dc`.
const DECOMPRESSORS: [(&[u8], &str); 9] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x1f\x9d", "gzip"),
    (b"BZh", "bzip2"),
    (b"LZIP", "lzip"),
    (b"\xffLZMA", "lzma"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\x89LZO", "lzop"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];
/// The length of the longest of these beginnings.
const MAGIC_BYTES: usize = 6;

/// Writes an archive of a directory to a file, optionally compressed by zstd.
pub(crate) fn create(directory: &Path, to: File, compressed: bool) -> Result<()> {
    let directory = directory.canonicalize().context("open", directory)?;
    let mut tar = tar("--create");
    tar.arg("--directory").arg(&directory).arg(".");
    if !compressed {
        tar.stdout(to);
        return Ok(file_tool::start_reader(tar, &directory)?.finish(LIMIT)?);
    }
    let (archive, output) = io::pipe().context("create a pipe for", &directory)?;
    tar.stdout(output);
    let mut zstd = compressor();
    zstd.stdin(archive).stdout(to);
    let zstd = file_tool::start_filter(zstd)?;
    let archived = file_tool::start_reader(tar, &directory)?.finish(LIMIT);
    join(archived, zstd.finish(LIMIT))
}

/// Extracts an archive into a directory. Its compression is recognized.
pub(crate) fn extract(archive: &Path, directory: &Path) -> Result<()> {
    let directory = directory.canonicalize().context("open", directory)?;
    let file = sys::trusted::open(archive).context("open", archive)?;
    let decompressor = decompressor(&file).context("read", archive)?;
    let mut tar = tar("--extract");
    tar.args(["--same-owner", "--preserve-permissions"]);
    tar.arg("--directory").arg(&directory);
    let Some(program) = decompressor else {
        tar.stdin(file);
        return Ok(file_tool::start_writer(tar, None, &directory)?.finish(LIMIT)?);
    };
    let (content, output) = io::pipe().context("create a pipe for", archive)?;
    let mut filter = command::prepare(program);
    filter.arg("-dc").stdin(file).stdout(output);
    let filter = file_tool::start_filter(filter)?;
    tar.stdin(content);
    let extracted = file_tool::start_writer(tar, None, &directory)?.finish(LIMIT);
    join(filter.finish(LIMIT), extracted)
}

/// Returns the command that compresses its standard input.
pub(crate) fn compressor() -> Command {
    let mut zstd = command::prepare("zstd");
    zstd.args(["--quiet", "-T0"]).stdin(Stdio::piped());
    zstd
}

/// Returns the program that decompresses a file, or `None` for an unknown beginning.
fn decompressor(file: &File) -> io::Result<Option<&'static str>> {
    let mut start = [0; MAGIC_BYTES];
    let length = file.read_at(&mut start, 0)?;
    let start = &start[..length];
    let mut known = DECOMPRESSORS.iter();
    let known = known.find(|(magic, _)| start.starts_with(magic));
    Ok(known.map(|(_, program)| *program))
}

/// Returns the first failure of a program that writes to a pipe and of the one that reads from
/// it. The end of the reader is no failure of the writer.
fn join(writer: Result<(), CommandError>, reader: Result<(), CommandError>) -> Result<()> {
    match &writer {
        Err(CommandError::Failed { stderr, .. }) if stderr.contains("Broken pipe") => {}
        _ => writer?,
    }
    Ok(reader?)
}

fn tar(operation: &str) -> Command {
    let mut tar = command::prepare("tar");
    tar.args([operation, "--file", "-", "--numeric-owner", "--sparse"]);
    tar.arg("--xattrs");
    tar.args(ATTRIBUTES.map(|pattern| format!("--xattrs-include={pattern}")));
    tar
}
