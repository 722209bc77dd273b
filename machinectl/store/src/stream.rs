//! Reads a `btrfs send` stream: what it says of itself, and where it ends.
//!
//! Only the frame is read here; `btrfs receive` reads the rest and checks its sums.
//! We must see the end ourselves: a stream cut between two commands would
//! otherwise be taken for a whole one.

pub mod input;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{SpliceFlags, splice};

use crate::{Refusal, RefusalKind, Uuid};
use input::Patient;

const MAGIC: &[u8] = b"btrfs-stream\0";
/// Magic and version.
pub(crate) const START: usize = 17;
/// A command's length, kind and checksum.
pub(crate) const FRAME: usize = 10;
/// The first command holds a name and two identities.
const FIRST_MAX: usize = 8 * 1024;
/// No sender makes a longer command.
const COMMAND_MAX: u32 = 16 << 20;
/// How much is moved at once.
const CHUNK: usize = 256 * 1024;
/// How much of a file is moved at once.
const WINDOW: u64 = 1 << 20;

const SUBVOLUME: u16 = 1;
const SNAPSHOT: u16 = 2;
const END: u16 = 21;

const ATTRIBUTE_UUID: u16 = 1;
const ATTRIBUTE_TRANSACTION: u16 = 2;
const ATTRIBUTE_PATH: u16 = 15;
const ATTRIBUTE_PARENT: u16 = 20;

/// What a stream says of itself before anything of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name that the receiver will give.
    pub name: String,
    /// The identity that the receiver will note.
    pub uuid: Uuid,
    /// The sender's transaction.
    pub transaction: u64,
    /// What it builds on; `None` when it is complete in itself.
    pub parent: Option<Uuid>,
}

/// Why a stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It has no content at all.
    #[error("the stream is empty; did the sender fail?")]
    Empty,
    /// It is something else.
    #[error("this is no `btrfs send` stream{0}")]
    Foreign(Hint),
    /// It ends too early.
    #[error("the stream ends too early, after {0} bytes; send it again")]
    Truncated(u64),
    /// It is not what a sender makes.
    #[error("the stream is damaged: {0}; send it again")]
    Damaged(&'static str),
    /// It cannot be read.
    #[error("cannot read the stream")]
    Read(#[source] io::Error),
}

impl Refusal for StreamError {
    fn kind(&self) -> RefusalKind {
        RefusalKind::BadStream
    }
}

/// What a foreign stream looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Compressed by this program.
    Compressed(&'static str),
    /// Anything.
    None,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compressed(program) => {
                write!(f, ", it is compressed; put `{program} -dc` before it")
            }
            Self::None => Ok(()),
        }
    }
}

impl Hint {
    fn of(start: &[u8]) -> Self {
        let known: [(&[u8], _); 3] = [
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"\x1f\x8b", "gzip"),
            (b"\xfd7zXZ", "xz"),
        ];
        let found = known.iter().find(|(magic, _)| start.starts_with(magic));
        found.map_or(Self::None, |(_, program)| Self::Compressed(program))
    }
}

/// A stream whose beginning has been read.
#[derive(Debug)]
pub struct Stream<R> {
    header: Header,
    head: Vec<u8>,
    rest: R,
}

impl<R: Read> Stream<R> {
    /// Reads the beginning of a stream.
    ///
    /// # Errors
    /// When it is no stream, or its first command does not name a subvolume.
    pub fn open(mut rest: R) -> Result<Self, StreamError> {
        let mut head = Vec::new();
        fill(&mut rest, &mut head, START)?;
        if !head.starts_with(MAGIC) {
            return Err(StreamError::Foreign(Hint::of(&head)));
        }
        fill(&mut rest, &mut head, START + FRAME)?;
        let (length, kind) = frame(&head[START..]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > FIRST_MAX {
            return Err(StreamError::Damaged("its first command is too long"));
        }
        fill(&mut rest, &mut head, START + FRAME + length)?;
        let header = header(kind, &head[START + FRAME..])?;
        Ok(Self { header, head, rest })
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Passes the whole stream on, up to its end.
    ///
    /// # Errors
    /// When it ends too early or is damaged. What was passed on must then not be
    /// used. A sink that cannot take any more is no error here: it knows why.
    pub fn pour(mut self, mut sink: impl Write) -> Result<u64, StreamError> {
        let mut walk = Walk::default();
        let mut total = 0;
        let mut chunk = self.head.split_off(START);
        if write(&mut sink, &self.head)?.is_break() {
            return Ok(total);
        }
        loop {
            let used = walk.feed(&chunk)?;
            if write(&mut sink, &chunk[..used])?.is_break() {
                return Ok(total);
            }
            total += used as u64;
            if walk.ended {
                return Ok(total);
            }
            chunk.resize(CHUNK, 0);
            let count = read(&mut self.rest, &mut chunk)?;
            chunk.truncate(count);
            if count == 0 {
                return Err(StreamError::Truncated(total + START as u64));
            }
        }
    }
}

impl Stream<Patient> {
    /// As [`Stream::pour`], into a pipe. Of a file only the frames pass through our
    /// hands; the kernel hands over the rest, which spares two copies.
    ///
    /// # Errors
    /// Those of [`Stream::pour`].
    pub fn pipe(self, mut sink: impl Write + AsFd) -> Result<(), StreamError> {
        let Some(file) = self.rest.file() else {
            return self.pour(sink).map(drop);
        };
        let mut walk = Walk::default();
        walk.feed(&self.head[START..])?;
        if write(&mut sink, &self.head)?.is_break() {
            return Ok(());
        }
        let mut at = (&*file).stream_position().map_err(StreamError::Read)?;
        let start = at - self.head.len() as u64;
        let length = file.metadata().map_err(StreamError::Read)?.len();
        let truncated = || StreamError::Truncated(length.saturating_sub(start));
        while !walk.ended {
            let end = walk.over(file, at)?.ok_or_else(truncated)?;
            while at < end {
                match hand_over(file, &mut at, end, &sink) {
                    Ok(0) => return Err(truncated()),
                    Ok(_) => {}
                    Err(Errno::PIPE) => return Ok(()),
                    Err(error) => return Err(StreamError::Read(error.into())),
                }
            }
        }
        Ok(())
    }
}

/// Moves what lies between two places of a file into a pipe, or the first part of it.
fn hand_over(file: &File, at: &mut u64, end: u64, sink: impl AsFd) -> Result<usize, Errno> {
    let count = usize::try_from(end - *at).unwrap_or(usize::MAX);
    retry_on_intr(|| splice(file, Some(at), &sink, None, count, SpliceFlags::empty()))
}

fn write(sink: &mut impl Write, bytes: &[u8]) -> Result<std::ops::ControlFlow<()>, StreamError> {
    match sink.write_all(bytes) {
        Ok(()) => Ok(std::ops::ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(std::ops::ControlFlow::Break(()))
        }
        Err(error) => Err(StreamError::Read(error)),
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

/// Reads until the head is so long.
fn fill(reader: &mut impl Read, head: &mut Vec<u8>, length: usize) -> Result<(), StreamError> {
    let mut filled = head.len();
    head.resize(length, 0);
    while filled < length {
        match read(reader, &mut head[filled..])? {
            0 if filled == 0 => return Err(StreamError::Empty),
            0 if !head[..filled].starts_with(&MAGIC[..filled.min(MAGIC.len())]) => {
                return Err(StreamError::Foreign(Hint::of(head)));
            }
            0 => return Err(StreamError::Truncated(filled as u64)),
            count => filled += count,
        }
    }
    Ok(())
}

/// The length and the kind of a command.
pub(crate) fn frame(bytes: &[u8]) -> (u32, u16) {
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    (length, u16::from_le_bytes([bytes[4], bytes[5]]))
}

/// What the first command says.
fn header(kind: u16, mut bytes: &[u8]) -> Result<Header, StreamError> {
    if kind != SUBVOLUME && kind != SNAPSHOT {
        return Err(StreamError::Damaged("it does not begin with a subvolume"));
    }
    let (mut name, mut uuid, mut transaction, mut parent) = (None, None, None, None);
    while let Some((attribute, value, rest)) = attribute(bytes) {
        match attribute {
            ATTRIBUTE_PATH => name = String::from_utf8(value.to_owned()).ok(),
            ATTRIBUTE_UUID => uuid = Uuid::from_slice(value).ok(),
            ATTRIBUTE_TRANSACTION => transaction = value.try_into().ok().map(u64::from_le_bytes),
            ATTRIBUTE_PARENT => parent = Uuid::from_slice(value).ok(),
            _ => {}
        }
        bytes = rest;
    }
    let whole = bytes.is_empty() && (kind == SNAPSHOT) == parent.is_some();
    match (name, uuid, transaction) {
        (Some(name), Some(uuid), Some(transaction)) if whole => Ok(Header {
            name,
            uuid,
            transaction,
            parent,
        }),
        _ => Err(StreamError::Damaged("its first command cannot be read")),
    }
}

/// The next attribute of a command, and what follows it.
pub(crate) fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (kind, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    Some((u16::from_le_bytes(*kind), value, rest))
}

/// Walks over the commands that pass by.
#[derive(Debug, Default)]
struct Walk {
    frame: Vec<u8>,
    left: usize,
    commands: u64,
    ended: bool,
}

impl Walk {
    /// Takes the next bytes; tells how many of them belong to the stream.
    fn feed(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        let mut used = 0;
        while !self.ended && used < bytes.len() {
            let rest = &bytes[used..];
            if self.left > 0 {
                let skipped = self.left.min(rest.len());
                self.left -= skipped;
                used += skipped;
            } else {
                let taken = (FRAME - self.frame.len()).min(rest.len());
                self.frame.extend_from_slice(&rest[..taken]);
                used += taken;
                if self.frame.len() == FRAME {
                    self.command()?;
                }
            }
        }
        Ok(used)
    }

    /// Walks over commands of a file for about a window; tells where the next one
    /// begins, or that the file ends before its frame does.
    fn over(&mut self, file: &File, from: u64) -> Result<Option<u64>, StreamError> {
        // A frame here and there would look to the kernel as if we needed no more.
        let _ = fadvise(file, from, NonZeroU64::new(WINDOW), Advice::WillNeed);
        let mut at = from;
        while !self.ended && at - from < WINDOW {
            let mut frame = [0; FRAME];
            match file.read_exact_at(&mut frame, at) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(StreamError::Read(error)),
            }
            self.feed(&frame)?;
            at += (FRAME + std::mem::take(&mut self.left)) as u64;
        }
        Ok(Some(at))
    }

    fn command(&mut self) -> Result<(), StreamError> {
        let (length, kind) = frame(&self.frame);
        self.frame.clear();
        if length > COMMAND_MAX {
            return Err(StreamError::Damaged("a command is too long"));
        }
        if self.commands > 0 && (kind == SUBVOLUME || kind == SNAPSHOT) {
            return Err(StreamError::Damaged("it names a second subvolume"));
        }
        self.commands += 1;
        self.left = usize::try_from(length).unwrap_or(usize::MAX);
        self.ended = kind == END;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    fn value(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        [&kind.to_le_bytes()[..], &length.to_le_bytes(), value].concat()
    }

    fn start(name: &str, parent: Option<Uuid>) -> Vec<u8> {
        let mut payload = value(ATTRIBUTE_PATH, name.as_bytes());
        payload.extend(value(ATTRIBUTE_UUID, Uuid::from_u128(7).as_bytes()));
        payload.extend(value(ATTRIBUTE_TRANSACTION, &9_u64.to_le_bytes()));
        if let Some(parent) = parent {
            payload.extend(value(ATTRIBUTE_PARENT, parent.as_bytes()));
        }
        let kind = if parent.is_some() {
            SNAPSHOT
        } else {
            SUBVOLUME
        };
        [MAGIC, &1_u32.to_le_bytes(), &command(kind, &payload)].concat()
    }

    fn whole(name: &str) -> Vec<u8> {
        [
            start(name, None),
            command(15, b"content"),
            command(15, &[7; 300]),
            command(END, b""),
        ]
        .concat()
    }

    fn pour(bytes: &[u8]) -> Result<Vec<u8>, StreamError> {
        let mut sink = Vec::new();
        Stream::open(bytes)?.pour(&mut sink)?;
        Ok(sink)
    }

    #[test]
    fn a_stream_says_what_it_is() {
        let parent = Uuid::from_u128(5);
        let bytes = start("linux-2", Some(parent));
        let header = Header {
            name: "linux-2".into(),
            uuid: Uuid::from_u128(7),
            transaction: 9,
            parent: Some(parent),
        };
        assert_eq!(Stream::open(&bytes[..]).unwrap().header(), &header);
    }

    #[test]
    fn a_whole_stream_passes_and_what_follows_it_does_not() {
        let bytes = whole("linux-1");
        assert_eq!(pour(&bytes).unwrap(), bytes);
        let more = [&bytes[..], b"more"].concat();
        assert_eq!(pour(&more).unwrap(), bytes);
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_is_refused() {
        let bytes = whole("linux-1");
        for length in 1..bytes.len() {
            let error = pour(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error, StreamError::Truncated(_)),
                "{length}: {error}"
            );
        }
        assert!(matches!(pour(b"").unwrap_err(), StreamError::Empty));
    }

    /// What comes out of a pipe when the stream lies in a file.
    fn pipe(bytes: &[u8]) -> Result<Vec<u8>, StreamError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let (mut out, sink) = io::pipe().unwrap();
        let reader = std::thread::spawn(move || {
            let mut passed = Vec::new();
            out.read_to_end(&mut passed).map(|_| passed)
        });
        let input = Patient::open(file.path()).unwrap();
        let piped = Stream::open(input).and_then(|stream| stream.pipe(sink));
        let passed = reader.join().unwrap().unwrap();
        piped.map(|()| passed)
    }

    #[test]
    fn a_file_is_handed_over_as_it_would_be_poured() {
        let bytes = whole("linux-1");
        let more = [&bytes[..], b"more"].concat();
        assert_eq!(pipe(&more).unwrap(), bytes);
        for length in 1..bytes.len() {
            let (piped, poured) = (pipe(&bytes[..length]), pour(&bytes[..length]));
            assert_eq!(
                piped.unwrap_err().to_string(),
                poured.unwrap_err().to_string()
            );
        }
        let second = [
            bytes.strip_suffix(&command(END, b"")[..]).unwrap(),
            &start("../evil", None)[START..],
        ];
        assert!(matches!(
            pipe(&second.concat()).unwrap_err(),
            StreamError::Damaged(_)
        ));
    }

    #[test]
    fn a_long_file_passes_window_by_window() {
        let mut bytes = start("linux-1", None);
        for number in 0..40_u8 {
            bytes.extend(command(15, &vec![number; 100_000]));
        }
        bytes.extend(command(END, b""));
        assert!(pipe(&bytes).unwrap() == bytes);
    }

    #[test]
    fn what_is_no_stream_is_told_apart() {
        let table: [(&[u8], &str); 4] = [
            (b"hello", "this is no `btrfs send` stream"),
            (
                b"\x28\xb5\x2f\xfd and more of it, compressed",
                "put `zstd -dc` before it",
            ),
            (b"\x1f\x8b", "put `gzip -dc` before it"),
            (&[0; 100], "this is no `btrfs send` stream"),
        ];
        for (bytes, words) in table {
            let error = pour(bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_second_subvolume_in_a_stream_is_refused() {
        let second = start("../evil", None).split_off(START);
        let bytes = [start("linux-1", None), second, command(END, b"")].concat();
        assert!(matches!(pour(&bytes).unwrap_err(), StreamError::Damaged(_)));
    }

    proptest! {
        #[test]
        fn no_flipped_bit_makes_the_reader_fall_over(at in 0_usize..420, bit in 0_u8..8) {
            let mut bytes = whole("linux-1");
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            let _ = pour(&bytes);
        }
    }
}
