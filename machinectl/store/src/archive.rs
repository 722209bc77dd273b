//! The command lines of tar, which keep all properties that a content manifest covers.
//!
//! ACLs are kept as extended attributes, which hold the numbers of users. The option `--acls`
//! would store their names, which can be other users on the host that extracts the archive.

use std::path::Path;
use std::process::Command;

use sys::command;

use crate::content_manifest::ATTRIBUTES;

/// Returns the command that writes an archive of a directory to its standard output.
pub(crate) fn create(directory: &Path) -> Command {
    let mut tar = tar("--create");
    tar.args(["--file", "-", "--directory"]).arg(directory);
    tar.arg(".");
    tar
}

/// Returns the command that extracts an archive into a directory. tar recognizes its compression.
pub(crate) fn extract(archive: &Path, directory: &Path) -> Command {
    let mut tar = tar("--extract");
    tar.arg("--preserve-permissions");
    tar.arg("--file").arg(archive);
    tar.arg("--directory").arg(directory);
    tar
}

fn tar(operation: &str) -> Command {
    let mut tar = command::prepare("tar");
    // A colon in the name of a file names another host otherwise.
    tar.args([operation, "--force-local", "--numeric-owner", "--sparse"]);
    tar.arg("--xattrs");
    tar.args(ATTRIBUTES.map(|pattern| format!("--xattrs-include={pattern}")));
    tar
}
