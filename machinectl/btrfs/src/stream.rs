//! `btrfs send` streams: their format, and the processes that write them.
//!
//! The paths of commands are read here; `btrfs receive` reads the rest and verifies the
//! checksums. It follows any path, and some versions accept a stream that is cut between two commands, so
//! paths are checked and the end is found here.

mod command;
mod confinement;
mod copy;
mod decompress;
mod format;
mod parts;
mod paths;
mod progress;
mod reader;
mod sender;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use copy::StreamReader;
pub use format::{Header, Parent, StreamError, Violation};
use parts::{PartEnd, PartReader};
pub use reader::{READ_TIMEOUT, TimeoutReader};
pub use sender::Sender;

use crate::{Result, StoreError};
pub use command::{Command, Effect};
use confinement::Confinement;
use format::start_on;
pub use format::{FRAME_LENGTH, START_LENGTH, attribute, parse_frame};
pub use paths::{remove, rename};
pub use progress::Part;
pub use progress::Progress;
pub use sender::BtrfsSend;

/// A stream whose header was read, and the process that writes it, if that is known.
///
/// If the stream is cut or damaged and the sender has failed, the error is the sender's,
/// because it is the cause.
#[derive(Debug)]
pub struct SendStream {
    reader: StreamReader<TimeoutReader>,
    sender: Option<Box<dyn Sender>>,
    /// The parts that were received before; `None` if the sender cannot continue a cut stream.
    progress: Option<Progress>,
}

impl SendStream {
    /// Reads the header of a stream from a file or a pipe. A compressed one is decompressed.
    ///
    /// # Errors
    /// The content is not a stream.
    pub fn open(input: TimeoutReader) -> Result<Self> {
        let (decompressor, content) = decompress::decompress(input)?;
        Self::open_from(decompressor, content)
    }

    /// Starts to send a subvolume of another file system in full.
    ///
    /// # Errors
    /// The subvolume cannot be sent.
    pub fn of_subvolume(path: &Path) -> Result<Self> {
        let (sender, input) = BtrfsSend::start(path, None, &[])?;
        Self::open_from(Some(Box::new(sender)), input)
    }

    /// Starts to list the changes from one read-only subvolume to another, without content.
    pub fn changes(from: &Path, to: &Path) -> Result<Self> {
        let (sender, input) = BtrfsSend::start(to, Some(from), &["--no-data"])?;
        Self::open_from(Some(Box::new(sender)), input)
    }

    /// Reads the header of a sender's stream.
    pub fn open_from(sender: Option<Box<dyn Sender>>, input: TimeoutReader) -> Result<Self> {
        match StreamReader::open(input) {
            Ok(reader) => Ok(Self {
                reader,
                sender,
                progress: None,
            }),
            Err(error) => Err(cause(sender, error)),
        }
    }

    /// Makes the receiver keep what has arrived if the stream is cut: the sender can continue it.
    #[must_use]
    pub fn resumable(self) -> Self {
        let progress = Some(self.start());
        Self { progress, ..self }
    }

    /// Returns the progress of a stream of which nothing was received.
    fn start(&self) -> Progress {
        Progress {
            head: self.reader.head().to_owned(),
            parts: Vec::new(),
        }
    }

    /// Returns the rest of a stream, after what was received before.
    ///
    /// # Errors
    /// The head is not that of a stream.
    pub fn resume(
        progress: Progress,
        sender: Option<Box<dyn Sender>>,
        rest: TimeoutReader,
    ) -> Result<Self> {
        let position = progress.parts.iter().map(|it| it.length).sum();
        Ok(Self {
            reader: StreamReader::resume(&progress.head, position, rest)?,
            sender,
            progress: Some(progress),
        })
    }

    /// Returns what was received before; `None` if the sender cannot continue a cut stream.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// Returns true for the rest of a stream whose beginning was received before.
    pub fn is_rest(&self) -> bool {
        self.progress
            .as_ref()
            .is_some_and(|it| !it.parts.is_empty())
    }

    /// Reads the beginning of the stream, and returns true if it consists of these parts. Then only
    /// what follows is copied.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn skip(&mut self, parts: &[Part]) -> Result<bool> {
        Ok(self.reader.skip(parts)?)
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
        let Self { reader, sender, .. } = self;
        reader
            .copy_to(sink, None)
            .map_err(|error| cause(sender, error))
    }

    /// Copies the stream into the pipe of a receiver, and checks that no command reaches
    /// outside the new subvolume. `parent` is the directory of the stream's parent. `applied` sees
    /// each accepted command.
    ///
    /// # Errors
    /// Those of [`SendStream::copy_to`], or a command is refused.
    pub fn receive_into(
        self,
        sink: impl Write + AsFd,
        parent: Option<PathBuf>,
        applied: impl FnMut(&Command<'_>),
    ) -> Result<()> {
        let Self { reader, sender, .. } = self;
        let mut confinement = Confinement::new(reader.header(), parent);
        reader
            .splice_to(sink, &mut checked(&mut confinement, applied))
            .map_err(|error| cause(sender, error))
    }

    /// Starts to receive a resumable stream in parts. `parent` is the directory of its parent, and
    /// `base` the one with what was received before.
    pub fn into_parts(self, parent: Option<PathBuf>, base: Option<PathBuf>) -> PartialReception {
        let header = self.reader.header().clone();
        let confinement = match base {
            Some(base) => Confinement::resumed(&header, parent, base),
            None => Confinement::new(&header, parent),
        };
        let start = self.start();
        PartialReception {
            header,
            version: self.reader.version(),
            parts: PartReader::new(self.reader.into_commands()),
            progress: self.progress.unwrap_or(start),
            confinement,
            sender: self.sender,
        }
    }

    /// Reads the stream up to its end, and shows its commands.
    ///
    /// # Errors
    /// The stream is cut or damaged, or the sender has failed.
    pub fn inspect(self, mut seen: impl FnMut(&Command<'_>)) -> Result<()> {
        let Self { reader, sender, .. } = self;
        let mut inspect = |command: &Command<'_>| {
            seen(command);
            Ok(())
        };
        reader
            .copy_to(std::io::sink(), Some(&mut inspect))
            .map(drop)
            .map_err(|error| cause(sender, error))
    }
}

/// A stream that is received in parts.
#[derive(Debug)]
pub struct PartialReception {
    header: Header,
    version: u32,
    parts: PartReader,
    progress: Progress,
    confinement: Confinement,
    sender: Option<Box<dyn Sender>>,
}

/// The reason why a part has ended.
#[derive(Debug)]
pub enum Received {
    /// The stream has ended, or its receiver has, and reports the reason.
    All,
    /// A part that can be kept. The stream continues.
    Part,
    /// A part that can be kept, of a stream that was cut.
    Cut(StoreError),
}

impl PartialReception {
    /// Copies the next part into the pipe of a receiver, until `is_enough` returns true for its
    /// length. `base` is the subvolume with the parts before; `None` for the first one.
    ///
    /// # Errors
    /// The stream is damaged, a command is refused, or the receiver cannot be written to.
    pub fn receive_part(
        &mut self,
        base: Option<Parent>,
        sink: impl Write,
        is_enough: impl Fn(u64) -> bool,
        applied: impl FnMut(&Command<'_>),
    ) -> Result<Received> {
        let start = base.map(|base| start_on(self.version, &self.header, base));
        let mut inspect = checked(&mut self.confinement, applied);
        let end = self.parts.copy(start, sink, &mut inspect, is_enough);
        match end.map_err(|error| cause(self.sender.take(), error))? {
            PartEnd::Complete => Ok(Received::All),
            PartEnd::Paused => {
                self.progress.parts.push(self.parts.take());
                Ok(Received::Part)
            }
            PartEnd::Cut(error) => {
                self.progress.parts.push(self.parts.take());
                Ok(Received::Cut(cause(self.sender.take(), error)))
            }
        }
    }

    /// Returns what was received.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }
}

/// Returns the check of the commands of a stream. `applied` sees each accepted command.
fn checked(
    confinement: &mut Confinement,
    mut applied: impl FnMut(&Command<'_>),
) -> impl FnMut(&Command<'_>) -> Result<(), StreamError> {
    move |command| {
        confinement.check(command)?;
        applied(command);
        Ok(())
    }
}

/// Returns true if a file that begins with these bytes is a stream.
pub fn is_stream(start: &[u8]) -> bool {
    start.starts_with(format::MAGIC)
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
