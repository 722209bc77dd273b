//! Compressed files, and the confined programs that decompress them.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use sys::command::{self, CommandError, Running};

use crate::error::IoContext;
use crate::{Refusal, RefusalKind, Result, file_tool};

/// A compression format that is recognized by its magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// bzip2.
    Bzip2,
    /// gzip, and the format of `compress`, which gzip reads.
    Gzip,
    /// lzip.
    Lzip,
    /// The format before XZ.
    Lzma,
    /// lzop.
    Lzop,
    /// XZ.
    Xz,
    /// Zstandard.
    Zstd,
}

/// The first bytes of compressed files.
const MAGIC: [(&[u8], Compression); 9] = [
    (b"\x1f\x8b", Compression::Gzip),
    (b"\x1f\x9d", Compression::Gzip),
    (b"BZh", Compression::Bzip2),
    (b"LZIP", Compression::Lzip),
    (b"\xffLZMA", Compression::Lzma),
    (b"\x5d\x00\x00", Compression::Lzma),
    (b"\x89LZO", Compression::Lzop),
    (b"\xfd7zXZ", Compression::Xz),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
];
/// The length of the longest magic.
pub const MAGIC_BYTES: usize = 5;

/// A reason why compressed data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CompressionRefusal {
    /// The decompressor reports that the data is damaged.
    #[error("the data that {compression} compressed is damaged or ends too early")]
    Damaged {
        /// The format.
        compression: Compression,
        /// The decompressor's error.
        source: CommandError,
    },
}

impl Refusal for CompressionRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Damaged { .. } => RefusalKind::BadStream,
        }
    }
}

impl Compression {
    /// Returns the format of data that begins with these bytes.
    pub fn detect(start: &[u8]) -> Option<Self> {
        let mut known = MAGIC.iter();
        let known = known.find(|(magic, _)| start.starts_with(magic));
        known.map(|(_, compression)| *compression)
    }

    /// Returns the program that decompresses with the option `-dc`.
    fn program(self) -> &'static str {
        match self {
            Self::Bzip2 => "bzip2",
            Self::Gzip => "gzip",
            Self::Lzip => "lzip",
            Self::Lzma => "lzma",
            Self::Lzop => "lzop",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// Starts to decompress a file or a pipe. The second value is the pipe with the content.
    ///
    /// # Errors
    /// The caller is not root, or the program is not installed.
    pub fn decompress(self, input: OwnedFd) -> Result<(Decompressor, OwnedFd)> {
        let program = self.program();
        let (content, output) = io::pipe().context("create a pipe for", program)?;
        let mut filter = command::prepare(program);
        filter.arg("-dc").stdin(Stdio::from(input)).stdout(output);
        let decompressor = Decompressor {
            compression: self,
            running: file_tool::start_filter(filter)?,
        };
        Ok((decompressor, content.into()))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// A running decompressor. Dropping it kills the program.
#[derive(Debug)]
pub struct Decompressor {
    compression: Compression,
    running: Running,
}

impl Decompressor {
    /// Waits for the end of the program. The closed end of its output is no failure: its reader
    /// reports the reason.
    ///
    /// # Errors
    /// The data is damaged, or the program does not end within the limit.
    pub fn finish(self, limit: Duration) -> Result<()> {
        match self.running.finish(limit) {
            Err(error) if has_lost_its_reader(&error) => Ok(()),
            Err(source @ CommandError::Failed { .. }) => Err(CompressionRefusal::Damaged {
                compression: self.compression,
                source,
            }
            .into()),
            result => Ok(result?),
        }
    }
}

/// Returns true if a program failed because the reader of its output has ended.
pub fn has_lost_its_reader(error: &CommandError) -> bool {
    match error {
        CommandError::Failed { status, stderr, .. } => {
            status.signal() == Some(Signal::PIPE.as_raw()) || stderr.contains("Broken pipe")
        }
        CommandError::Start { .. } | CommandError::TimedOut { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognized_by_their_first_bytes() {
        for (magic, compression) in MAGIC {
            assert!(magic.len() <= MAGIC_BYTES);
            let start = [magic, b"more"].concat();
            assert_eq!(Compression::detect(&start), Some(compression));
        }
        for other in [&b""[..], b"\x28", b"hello", &[0; 512]] {
            assert_eq!(Compression::detect(other), None);
        }
    }
}
