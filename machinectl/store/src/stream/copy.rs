//! Copies a stream up to its end.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{SpliceFlags, splice};

use super::format::{
    Compression, FIRST_COMMAND_MAX, FRAME_LENGTH, FrameScanner, Header, MAGIC, START_LENGTH,
    StreamError, parse_frame, parse_header,
};
use super::reader::TimeoutReader;

/// The number of bytes that are copied at once.
const CHUNK: usize = 256 * 1024;
/// The number of bytes of a file that are spliced at once.
const WINDOW: u64 = 1 << 20;

/// A stream whose header was read.
#[derive(Debug)]
pub struct StreamReader<R> {
    header: Header,
    /// The bytes that were read so far.
    head: Vec<u8>,
    rest: R,
}

impl<R: Read> StreamReader<R> {
    /// Reads the header of a stream.
    ///
    /// # Errors
    /// The content is not a stream, or its first command does not name a subvolume.
    pub fn open(mut rest: R) -> Result<Self, StreamError> {
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
        Ok(Self { header, head, rest })
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Copies the stream up to its end; returns the number of bytes.
    ///
    /// A sink that accepts no more is no error here: the receiver knows the reason.
    ///
    /// # Errors
    /// The stream is cut or damaged. The receiver must then discard the copied part.
    pub fn copy_to(mut self, mut sink: impl Write) -> Result<u64, StreamError> {
        let mut scanner = FrameScanner::default();
        let mut total = 0;
        let mut chunk = self.head.split_off(START_LENGTH);
        if write(&mut sink, &self.head)?.is_break() {
            return Ok(total);
        }
        loop {
            let used = scanner.feed(&chunk)?;
            if write(&mut sink, &chunk[..used])?.is_break() {
                return Ok(total);
            }
            total += used as u64;
            if scanner.has_ended() {
                return Ok(total);
            }
            chunk.resize(CHUNK, 0);
            let count = read(&mut self.rest, &mut chunk)?;
            chunk.truncate(count);
            if count == 0 {
                return Err(StreamError::Truncated(total + START_LENGTH as u64));
            }
        }
    }
}

impl StreamReader<TimeoutReader> {
    /// Copies the stream into a pipe. Only the frames of a regular file are read; the kernel
    /// moves the rest, which saves two copies.
    ///
    /// # Errors
    /// Those of [`StreamReader::copy_to`].
    pub fn splice_to(self, mut sink: impl Write + AsFd) -> Result<(), StreamError> {
        let Some(file) = self.rest.regular_file() else {
            return self.copy_to(sink).map(drop);
        };
        let mut scanner = FrameScanner::default();
        scanner.feed(&self.head[START_LENGTH..])?;
        if write(&mut sink, &self.head)?.is_break() {
            return Ok(());
        }
        let mut position = (&*file).stream_position().map_err(StreamError::Read)?;
        let start = position - self.head.len() as u64;
        let length = file.metadata().map_err(StreamError::Read)?.len();
        let truncated = || StreamError::Truncated(length.saturating_sub(start));
        while !scanner.has_ended() {
            let end = scan_window(&mut scanner, file, position)?.ok_or_else(truncated)?;
            while position < end {
                match splice_range(file, &mut position, end, &sink) {
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

/// Scans commands of a file for about a window. Returns the position of the next frame;
/// `None` if the file ends before.
fn scan_window(
    scanner: &mut FrameScanner,
    file: &File,
    from: u64,
) -> Result<Option<u64>, StreamError> {
    // Reads of single frames would make the kernel stop reading ahead.
    let _ = fadvise(file, from, NonZeroU64::new(WINDOW), Advice::WillNeed);
    let mut position = from;
    while !scanner.has_ended() && position - from < WINDOW {
        let mut frame = [0; FRAME_LENGTH];
        match file.read_exact_at(&mut frame, position) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(StreamError::Read(error)),
        }
        scanner.feed(&frame)?;
        position += (FRAME_LENGTH + scanner.skip_command()) as u64;
    }
    Ok(Some(position))
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

fn write(sink: &mut impl Write, bytes: &[u8]) -> Result<ControlFlow<()>, StreamError> {
    match sink.write_all(bytes) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
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
mod tests {
    use proptest::prelude::*;

    use super::super::format::{
        ATTRIBUTE_PARENT, ATTRIBUTE_PATH, ATTRIBUTE_TRANSACTION, ATTRIBUTE_UUID, END, SNAPSHOT,
        SUBVOLUME,
    };
    use super::*;
    use crate::Uuid;

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

    fn copy(bytes: &[u8]) -> Result<Vec<u8>, StreamError> {
        let mut sink = Vec::new();
        StreamReader::open(bytes)?.copy_to(&mut sink)?;
        Ok(sink)
    }

    #[test]
    fn the_header_has_the_fields_of_the_first_command() {
        let parent = Uuid::from_u128(5);
        let bytes = start("linux-2", Some(parent));
        let header = Header {
            name: "linux-2".into(),
            uuid: Uuid::from_u128(7),
            transaction: 9,
            parent: Some(parent),
        };
        assert_eq!(StreamReader::open(&bytes[..]).unwrap().header(), &header);
    }

    #[test]
    fn a_stream_is_copied_up_to_its_end_command() {
        let bytes = whole("linux-1");
        assert_eq!(copy(&bytes).unwrap(), bytes);
        let more = [&bytes[..], b"more"].concat();
        assert_eq!(copy(&more).unwrap(), bytes);
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_is_refused() {
        let bytes = whole("linux-1");
        for length in 1..bytes.len() {
            let error = copy(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error, StreamError::Truncated(_)),
                "{length}: {error}"
            );
        }
        assert!(matches!(copy(b"").unwrap_err(), StreamError::Empty));
    }

    /// Copies the stream from a file into a pipe.
    fn splice(bytes: &[u8]) -> Result<Vec<u8>, StreamError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let (mut out, sink) = io::pipe().unwrap();
        let reader = std::thread::spawn(move || {
            let mut passed = Vec::new();
            out.read_to_end(&mut passed).map(|_| passed)
        });
        let input = TimeoutReader::open(file.path()).unwrap();
        let spliced = StreamReader::open(input).and_then(|stream| stream.splice_to(sink));
        let passed = reader.join().unwrap().unwrap();
        spliced.map(|()| passed)
    }

    #[test]
    fn splicing_a_file_equals_copying_it() {
        let bytes = whole("linux-1");
        let more = [&bytes[..], b"more"].concat();
        assert_eq!(splice(&more).unwrap(), bytes);
        for length in 1..bytes.len() {
            let (spliced, copied) = (splice(&bytes[..length]), copy(&bytes[..length]));
            assert_eq!(
                spliced.unwrap_err().to_string(),
                copied.unwrap_err().to_string()
            );
        }
        let second = [
            bytes.strip_suffix(&command(END, b"")[..]).unwrap(),
            &start("../evil", None)[START_LENGTH..],
        ];
        assert!(matches!(
            splice(&second.concat()).unwrap_err(),
            StreamError::Damaged(_)
        ));
    }

    #[test]
    fn a_file_longer_than_a_window_is_spliced() {
        let mut bytes = start("linux-1", None);
        for number in 0..40_u8 {
            bytes.extend(command(15, &vec![number; 100_000]));
        }
        bytes.extend(command(END, b""));
        assert!(splice(&bytes).unwrap() == bytes);
    }

    #[test]
    fn foreign_content_is_recognized() {
        let table: [(&[u8], &str); 4] = [
            (b"hello", "the input is no `btrfs send` stream"),
            (
                b"\x28\xb5\x2f\xfd and more of it, compressed",
                "put `zstd -dc` before it",
            ),
            (b"\x1f\x8b", "put `gzip -dc` before it"),
            (&[0; 100], "the input is no `btrfs send` stream"),
        ];
        for (bytes, expected) in table {
            let error = copy(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_second_subvolume_in_a_stream_is_refused() {
        let second = start("../evil", None).split_off(START_LENGTH);
        let bytes = [start("linux-1", None), second, command(END, b"")].concat();
        assert!(matches!(copy(&bytes).unwrap_err(), StreamError::Damaged(_)));
    }

    proptest! {
        #[test]
        fn no_flipped_bit_makes_the_reader_panic(at in 0_usize..420, bit in 0_u8..8) {
            let mut bytes = whole("linux-1");
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            let _ = copy(&bytes);
        }
    }
}
