//! Copies a stream up to its end, and checks its commands on the way.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::num::NonZeroU64;
use std::ops::{ControlFlow, Range};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{SpliceFlags, splice};

use super::command::Command;
use super::format::{
    COMMAND_MAX, END, FIRST_COMMAND_MAX, FRAME_LENGTH, Header, MAGIC, SNAPSHOT, START_LENGTH,
    SUBVOLUME, StreamError, parse_frame, parse_header,
};
use super::progress::Part;
use super::reader::TimeoutReader;
use crate::compression::Compression;

/// The number of bytes that are read and written at once.
const CHUNK: usize = 256 * 1024;
/// The number of bytes of a file that are spliced at once.
const WINDOW: u64 = 1 << 20;
/// The number of bytes of a command that are read first: its frame, and usually its paths.
const COMMAND_START: usize = 512;

/// A check of each command, in the order of the stream.
pub(super) type Inspect<'a> = &'a mut dyn FnMut(&Command<'_>) -> Result<(), StreamError>;

/// A stream whose header was read.
#[derive(Debug)]
pub(super) struct StreamReader<R> {
    header: Header,
    version: u32,
    /// The number of bytes of the stream before the head.
    position: u64,
    /// The bytes that were read so far.
    head: Vec<u8>,
    rest: R,
}

impl<R: Read> StreamReader<R> {
    /// Reads the header of a stream.
    ///
    /// # Errors
    /// The content is not a stream, or its first command does not name a subvolume.
    pub(super) fn open(mut rest: R) -> Result<Self, StreamError> {
        let mut head = Vec::new();
        read_up_to(START_LENGTH, &mut head, &mut rest)?;
        if !head.starts_with(MAGIC) {
            return Err(StreamError::Foreign(Compression::detect(&head)));
        }
        read_up_to(START_LENGTH + FRAME_LENGTH, &mut head, &mut rest)?;
        let (length, kind) = match head[START_LENGTH..].first_chunk() {
            Some(frame) => parse_frame(frame),
            None => return Err(StreamError::Truncated(head.len() as u64)),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > FIRST_COMMAND_MAX {
            return Err(StreamError::Damaged("its first command is too long"));
        }
        read_up_to(START_LENGTH + FRAME_LENGTH + length, &mut head, &mut rest)?;
        let header = parse_header(kind, &head[START_LENGTH + FRAME_LENGTH..])?;
        Ok(Self {
            header,
            version: version(&head),
            position: 0,
            head,
            rest,
        })
    }

    /// Returns a stream of which the beginning, up to this position between two commands, was
    /// received before. `head` is what the stream began with.
    ///
    /// # Errors
    /// The head is not that of a stream.
    pub(super) fn resume(head: &[u8], position: u64, rest: R) -> Result<Self, StreamError> {
        let StreamReader {
            header, version, ..
        } = StreamReader::open(head)?;
        Ok(Self {
            header,
            version,
            position,
            head: Vec::new(),
            rest,
        })
    }

    /// Reads the beginning of the stream and returns true if it consists of these parts. Then the
    /// stream continues behind them.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub(super) fn skip(&mut self, parts: &[Part]) -> Result<bool, StreamError> {
        let head = std::mem::take(&mut self.head);
        let mut bytes = (&head[..]).chain(&mut self.rest);
        for part in parts {
            if part.read(&mut bytes).map_err(StreamError::Read)? != *part {
                return Ok(false);
            }
            self.position += part.length;
        }
        Ok(self.position >= head.len() as u64)
    }

    /// Splits the stream into the commands after its head, and the head.
    pub(super) fn into_commands(self) -> (Vec<u8>, Commands<R>) {
        let commands = Commands {
            total: self.position + self.head.len() as u64,
            version: self.version,
            rest: BufReader::with_capacity(CHUNK, self.rest),
        };
        (self.head, commands)
    }

    /// Returns the header.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the version of the stream's format.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Returns the bytes that were read so far.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Copies the stream up to its end; returns the number of bytes. `inspect` sees the commands
    /// after the header.
    ///
    /// A closed sink is not an error here: its reader, the receiver, reports the reason.
    ///
    /// # Errors
    /// The stream is cut or damaged, or a command is refused. The receiver must then discard
    /// the copied part.
    pub(super) fn copy_to(
        self,
        sink: impl Write,
        mut inspect: Option<Inspect<'_>>,
    ) -> Result<u64, StreamError> {
        let (head, mut commands) = self.into_commands();
        let mut sink = BufWriter::with_capacity(CHUNK, sink);
        if write(&mut sink, &head)?.is_break() {
            return Ok(commands.total);
        }
        let mut command = Vec::new();
        loop {
            let kind = commands.read(&mut command)?;
            if let Some(inspect) = &mut inspect {
                inspect(&commands.parse(kind, &command)?)?;
            }
            if write(&mut sink, &command)?.is_break() {
                return Ok(commands.total);
            }
            if kind == END {
                return flush(sink).map(|()| commands.total);
            }
        }
    }
}

impl Header {
    /// Reads the header of a stream from its beginning.
    ///
    /// # Errors
    /// The bytes are not the beginning of a stream.
    pub fn of_stream(head: &[u8]) -> Result<Self, StreamError> {
        StreamReader::open(head).map(|it| it.header)
    }
}

/// The commands of a stream after its head.
#[derive(Debug)]
pub(super) struct Commands<R> {
    rest: BufReader<R>,
    version: u32,
    /// The number of bytes of the stream that were read.
    total: u64,
}

impl<R: Read> Commands<R> {
    /// Reads the next command with its frame; returns its kind.
    ///
    /// # Errors
    /// The stream is cut or damaged.
    pub(super) fn read(&mut self, command: &mut Vec<u8>) -> Result<u16, StreamError> {
        command.clear();
        command.resize(FRAME_LENGTH, 0);
        self.total += read_full(&mut self.rest, command, self.total)?;
        let (length, kind) = next_command(command)?;
        self.total += read_more(&mut self.rest, command, length, self.total)?;
        Ok(kind)
    }

    /// Parses a command that was read.
    ///
    /// # Errors
    /// The command is damaged.
    pub(super) fn parse<'a>(
        &self,
        kind: u16,
        command: &'a [u8],
    ) -> Result<Command<'a>, StreamError> {
        let bytes = command.get(FRAME_LENGTH..).unwrap_or_default();
        Command::parse_whole(kind, self.version, bytes)
    }
}

impl StreamReader<TimeoutReader> {
    /// Copies the stream into the pipe of a receiver. Only the start of each command of a
    /// regular file is read; the kernel moves the rest, which saves two copies.
    ///
    /// # Errors
    /// Those of [`StreamReader::copy_to`].
    pub(super) fn splice_to(
        self,
        mut sink: impl Write + AsFd,
        inspect: Inspect<'_>,
    ) -> Result<(), StreamError> {
        let Some(file) = self.rest.regular_file() else {
            return self.copy_to(sink, Some(inspect)).map(drop);
        };
        let version = self.version;
        if write(&mut sink, &self.head)?.is_break() {
            return Ok(());
        }
        let mut position = (&*file).stream_position().map_err(StreamError::Read)?;
        let start = position - self.head.len() as u64;
        let length = file.metadata().map_err(StreamError::Read)?.len();
        let truncated = || StreamError::Truncated(length.saturating_sub(start));
        loop {
            let window = check_window(file, position..length, version, inspect)?;
            let window = window.ok_or_else(truncated)?;
            while position < window.end {
                match splice_range(file, &mut position, window.end, &sink) {
                    Ok(0) => return Err(truncated()),
                    Ok(_) => {}
                    Err(Errno::PIPE) => return Ok(()),
                    Err(error) => return Err(StreamError::Read(error.into())),
                }
            }
            if window.has_end_command {
                return Ok(());
            }
        }
    }
}

/// Checked commands of a file.
struct Window {
    /// The position behind the last of them.
    end: u64,
    /// True if the last of them ends the stream.
    has_end_command: bool,
}

/// Checks commands in a range of a file for about a window. Returns `None` if the range ends
/// before.
fn check_window(
    file: &File,
    range: Range<u64>,
    version: u32,
    inspect: Inspect<'_>,
) -> Result<Option<Window>, StreamError> {
    let from = range.start;
    // Reads of single commands would make the kernel stop reading ahead.
    let _ = fadvise(file, from, NonZeroU64::new(WINDOW), Advice::WillNeed);
    let mut window = Window {
        end: from,
        has_end_command: false,
    };
    let mut bytes = vec![0; COMMAND_START];
    while !window.has_end_command && window.end - from < WINDOW {
        let count = read_at(file, &mut bytes[..COMMAND_START], window.end)?;
        if count < FRAME_LENGTH {
            return Ok(None);
        }
        let (length, kind) = next_command(&bytes)?;
        let known = &bytes[FRAME_LENGTH..count.min(FRAME_LENGTH + length)];
        if let Some(command) = Command::parse(kind, length, version, known)? {
            inspect(&command)?;
        } else {
            let start = window.end + FRAME_LENGTH as u64;
            if start + length as u64 > range.end {
                return Ok(None);
            }
            bytes.resize(bytes.len().max(length), 0);
            if read_at(file, &mut bytes[..length], start)? < length {
                return Ok(None);
            }
            inspect(&Command::parse_whole(kind, version, &bytes[..length])?)?;
        }
        window.end += (FRAME_LENGTH + length) as u64;
        window.has_end_command = kind == END;
    }
    Ok(Some(window))
}

/// Returns the version of a stream's format.
fn version(head: &[u8]) -> u32 {
    let bytes = head.get(MAGIC.len()..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Returns the length and the kind of a command that is not the first.
fn next_command(frame: &[u8]) -> Result<(usize, u16), StreamError> {
    let frame = frame.first_chunk().ok_or(StreamError::Empty)?;
    let (length, kind) = parse_frame(frame);
    if length > COMMAND_MAX {
        return Err(StreamError::Damaged("a command is too long"));
    }
    if kind == SUBVOLUME || kind == SNAPSHOT {
        return Err(StreamError::Damaged("it names a second subvolume"));
    }
    Ok((usize::try_from(length).unwrap_or(usize::MAX), kind))
}

/// Moves the start of a range of a file into a pipe; returns the number of bytes.
fn splice_range(
    file: &File,
    position: &mut u64,
    end: u64,
    sink: impl AsFd,
) -> Result<usize, Errno> {
    let count = usize::try_from(end - *position).unwrap_or(usize::MAX);
    retry_on_intr(|| {
        splice(
            file,
            Some(position),
            &sink,
            None,
            count,
            SpliceFlags::empty(),
        )
    })
}

pub(super) fn write(sink: &mut impl Write, bytes: &[u8]) -> Result<ControlFlow<()>, StreamError> {
    match sink.write_all(bytes) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(StreamError::Write(error)),
    }
}

pub(super) fn flush(mut sink: impl Write) -> Result<(), StreamError> {
    match sink.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(StreamError::Write(error)),
        _ => Ok(()),
    }
}

fn read(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, StreamError> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(StreamError::Read),
        }
    }
}

/// Fills a buffer; `total` bytes were read before. Returns the number of bytes.
fn read_full(reader: &mut impl Read, buffer: &mut [u8], total: u64) -> Result<u64, StreamError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(reader, &mut buffer[filled..])? {
            0 => return Err(StreamError::Truncated(total + filled as u64)),
            count => filled += count,
        }
    }
    Ok(filled as u64)
}

/// Appends so many bytes; `total` bytes were read before. Returns their number. Memory is taken for
/// what arrives, whatever length a sender announces.
fn read_more(
    reader: &mut impl Read,
    buffer: &mut Vec<u8>,
    length: usize,
    total: u64,
) -> Result<u64, StreamError> {
    let length = length as u64;
    match reader.take(length).read_to_end(buffer) {
        Ok(count) if (count as u64) < length => Err(StreamError::Truncated(total + count as u64)),
        Ok(_) => Ok(length),
        Err(error) => Err(StreamError::Read(error)),
    }
}

/// Reads a file at a position until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], position: u64) -> Result<usize, StreamError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StreamError::Read(error)),
        }
    }
    Ok(filled)
}

/// Extends the head to a length.
fn read_up_to(
    length: usize,
    head: &mut Vec<u8>,
    reader: &mut impl Read,
) -> Result<(), StreamError> {
    let mut filled = head.len();
    head.resize(length, 0);
    while filled < length {
        match read(reader, &mut head[filled..])? {
            0 if filled == 0 => return Err(StreamError::Empty),
            0 if !head[..filled].starts_with(&MAGIC[..filled.min(MAGIC.len())]) => {
                return Err(StreamError::Foreign(Compression::detect(head)));
            }
            0 => return Err(StreamError::Truncated(filled as u64)),
            count => filled += count,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
