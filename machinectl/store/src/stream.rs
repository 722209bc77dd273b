//! `btrfs send` streams: their format, and the processes that write them.
//!
//! The paths of commands are read here; `btrfs receive` reads the rest and verifies the
//! checksums. It follows any path and accepts a stream that is cut between two commands, so
//! paths are checked and the end is found here.

mod command;
mod confinement;
mod copy;
mod format;
mod reader;
mod sender;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use copy::StreamReader;
pub use format::{Compression, Header, Parent, StreamError, Violation};
pub use reader::{READ_TIMEOUT, TimeoutReader};
pub use sender::Sender;

use crate::{Result, StoreError};
use confinement::Confinement;
pub(crate) use format::{FRAME_LENGTH, START_LENGTH, attribute, parse_frame};
pub(crate) use sender::BtrfsSend;

/// A stream whose header was read, and the process that writes it, if that is known.
///
/// If the stream is cut or damaged and the sender has failed, the error is the sender's,
/// because it is the cause.
#[derive(Debug)]
pub struct SendStream {
    reader: StreamReader<TimeoutReader>,
    sender: Option<Box<dyn Sender>>,
}

impl SendStream {
    /// Reads the header of a stream from a file or a pipe.
    ///
    /// # Errors
    /// The content is not a stream.
    pub fn open(input: TimeoutReader) -> Result<Self> {
        Self::open_from(None, input)
    }

    /// Starts to send a subvolume of another file system in full.
    ///
    /// # Errors
    /// The subvolume cannot be sent.
    pub fn of_subvolume(path: &Path) -> Result<Self> {
        let (sender, input) = BtrfsSend::start(path, None, &[])?;
        Self::open_from(Some(Box::new(sender)), input)
    }

    /// Reads the header of a sender's stream.
    pub(crate) fn open_from(sender: Option<Box<dyn Sender>>, input: TimeoutReader) -> Result<Self> {
        match StreamReader::open(input) {
            Ok(reader) => Ok(Self { reader, sender }),
            Err(error) => Err(cause(sender, error)),
        }
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// Copies the stream up to its end; returns the number of bytes.
    ///
    /// # Errors
    /// The stream is cut or damaged, or the sender has failed.
    pub fn copy_to(self, sink: impl Write) -> Result<u64> {
        let Self { reader, sender } = self;
        reader
            .copy_to(sink, None)
            .map_err(|error| cause(sender, error))
    }

    /// Copies the stream into the pipe of a receiver, and checks that no command reaches
    /// outside the new subvolume. `parent` is the directory of the stream's parent.
    ///
    /// # Errors
    /// Those of [`SendStream::copy_to`], or a command is refused.
    pub fn receive_into(self, sink: impl Write + AsFd, parent: Option<PathBuf>) -> Result<()> {
        let Self { reader, sender } = self;
        let confinement = Confinement::new(reader.header(), parent);
        reader
            .splice_to(sink, confinement)
            .map_err(|error| cause(sender, error))
    }
}

/// Returns the sender's error if it has failed, or else the stream's. A refused command and a
/// failure to write end the sender, and not the other way round.
fn cause(sender: Option<Box<dyn Sender>>, error: StreamError) -> StoreError {
    if matches!(error, StreamError::Outside { .. } | StreamError::Write(_)) {
        return error.into();
    }
    match sender.map(Sender::finish) {
        Some(Err(failure)) => failure,
        Some(Ok(())) | None => error.into(),
    }
}
