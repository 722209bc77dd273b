//! Files that no other writes than the host: those of the kernel, of the system's settings, and of
//! this program itself; and those that an operator names.
//!
//! They are opened plainly: links are followed, and their sizes are not limited. Files of images,
//! archives and guests are opened by [`crate::untrusted`]. A lint keeps the functions of `std` out
//! of the crates that handle both, so that each place names the kind of its file.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a file or a directory for reading.
///
/// # Errors
/// It does not exist or may not be read.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    File::open(path)
}

/// Opens an existing file for writing, such as a setting of the kernel.
///
/// # Errors
/// It does not exist or may not be written.
pub fn open_for_writing(path: impl AsRef<Path>) -> io::Result<File> {
    File::options().write(true).open(path)
}

/// Opens an existing file for reading and writing, such as a device or a named pipe.
///
/// # Errors
/// It does not exist, or may not be read and written.
pub fn open_read_write(path: impl AsRef<Path>) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Opens a file for appending; creates it if it does not exist.
///
/// # Errors
/// It may not be written.
pub fn append(path: impl AsRef<Path>) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Reads a file.
///
/// # Errors
/// It cannot be read.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    fs::read(path)
}

/// Reads a text file.
///
/// # Errors
/// It cannot be read, or it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read_to_string(path)
}
