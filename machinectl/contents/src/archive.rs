//! Archives. They keep all properties that a content manifest covers.
//!
//! ACLs are kept as extended attributes, which hold the numbers of users. tar's option `--acls`
//! would store their names, which can be other users on the host that extracts the archive.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use sys::command::{self, CommandError};

use crate::content_manifest::ATTRIBUTES;
use btrfs::Result;
use btrfs::compression::has_lost_its_reader;
use btrfs::error::IoContext;
use btrfs::file_tool::{self, LIMIT};

/// Writes an archive of a directory to a file, optionally compressed by zstd.
///
/// # Errors
/// The directory cannot be read, or the file cannot be written.
pub fn create(directory: &Path, to: File, compressed: bool) -> Result<()> {
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

/// Extracts an archive, a file or a pipe, into a directory.
///
/// # Errors
/// The archive is damaged, or the directory cannot be written.
pub fn extract(archive: File, directory: &Path) -> Result<()> {
    let directory = directory.canonicalize().context("open", directory)?;
    let mut tar = tar("--extract");
    tar.args(["--same-owner", "--preserve-permissions"]);
    tar.arg("--directory").arg(&directory);
    tar.stdin(archive);
    Ok(file_tool::start_writer(tar, None, &directory)?.finish(LIMIT)?)
}

/// Returns the command that compresses its standard input.
pub fn compressor() -> Command {
    let mut zstd = command::prepare("zstd");
    zstd.args(["--quiet", "-T0"]).stdin(Stdio::piped());
    zstd
}

/// Returns the first failure of a program that writes to a pipe and of the one that reads from
/// it. The end of the reader is no failure of the writer.
fn join(writer: Result<(), CommandError>, reader: Result<(), CommandError>) -> Result<()> {
    match writer {
        Err(error) if has_lost_its_reader(&error) => {}
        result => result?,
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
