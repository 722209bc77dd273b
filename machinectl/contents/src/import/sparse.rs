//! Copies with holes in place of zeros.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{SeekFrom as Find, ioctl_ficlone, seek};
use sys::file;

use super::refusal::ImportRefusal;
use btrfs::Result;
use btrfs::error::IoContext;
use btrfs::file_tool::LIMIT;

/// The number of bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// The unit of holes.
const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A copy to an empty file.
pub(super) struct Copy<'a> {
    /// The source.
    pub(super) from: &'a Path,
    /// The path of the output.
    pub(super) to: &'a Path,
    /// The empty file.
    pub(super) output: &'a File,
    /// The maximum number of bytes.
    pub(super) bytes_max: u64,
}

impl Copy<'_> {
    /// Copies a file. Shares its content where the file system can.
    pub(super) fn file(&self, mut input: &File) -> Result<()> {
        let length = input.metadata().context("inspect", self.from)?.len();
        self.check(length)?;
        if ioctl_ficlone(self.output, input).is_ok() {
            return Ok(());
        }
        let mut position = 0;
        while let Some(data) = next_range(input, position).context("read", self.from)? {
            input
                .seek(SeekFrom::Start(data.start))
                .context("read", self.from)?;
            self.range(&mut input.take(data.end - data.start), data.start)?;
            position = data.end;
        }
        self.output.set_len(length).context("resize", self.to)
    }

    /// Copies a stream to its end.
    pub(super) fn stream(&self, input: &mut impl Read) -> Result<()> {
        let length = self.range(input, 0)?;
        self.output.set_len(length).context("resize", self.to)
    }

    /// Copies a reader to its end, to a position. Returns the position of the end.
    fn range(&self, input: &mut impl Read, mut position: u64) -> Result<u64> {
        let deadline = Instant::now() + LIMIT;
        let mut chunk = Vec::with_capacity(CHUNK);
        loop {
            chunk.clear();
            let piece = input.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
            piece.context("read", self.from)?;
            if chunk.is_empty() {
                return Ok(position);
            }
            for data in data_ranges(&chunk) {
                let start = position + data.start as u64;
                let written = self.output.write_all_at(&chunk[data], start);
                written.context("write", self.to)?;
            }
            position += chunk.len() as u64;
            self.check(position)?;
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into()).context("read", self.from);
            }
        }
    }

    fn check(&self, bytes: u64) -> Result<()> {
        if bytes > self.bytes_max {
            let image = self.from.to_owned();
            return Err(ImportRefusal::TooLarge { image, bytes }.into());
        }
        Ok(())
    }
}

/// Returns the next range of a file that is not a hole.
fn next_range(input: &File, position: u64) -> io::Result<Option<Range<u64>>> {
    let Some(start) = file::next_data(input, position)? else {
        return Ok(None);
    };
    let end = seek(input, Find::Hole(start))?;
    Ok(Some(start..end))
}

/// Returns the ranges of whole blocks that are not zeros.
fn data_ranges(chunk: &[u8]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (index, block) in chunk.chunks(BLOCK).enumerate() {
        if *block == ZEROS[..block.len()] {
            continue;
        }
        let start = index * BLOCK;
        match ranges.last_mut().filter(|it| it.end == start) {
            Some(last) => last.end = start + block.len(),
            None => ranges.push(start..start + block.len()),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Copies bytes as a stream and as a file. Returns the number of blocks that each copy takes.
    fn copy(bytes: &[u8], bytes_max: u64) -> Result<[u64; 2]> {
        let mut input = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut input, bytes).unwrap();
        let mut blocks = [0; 2];
        for (index, blocks) in blocks.iter_mut().enumerate() {
            let output = tempfile::tempfile().unwrap();
            let copy = Copy {
                from: Path::new("from"),
                to: Path::new("to"),
                output: &output,
                bytes_max,
            };
            match index {
                0 => copy.stream(&mut &*bytes)?,
                _ => copy.file(&input)?,
            }
            let mut copied = vec![0; bytes.len()];
            output.read_exact_at(&mut copied, 0).unwrap();
            assert!(copied == bytes);
            let metadata = output.metadata().unwrap();
            assert_eq!(metadata.len(), bytes.len() as u64);
            *blocks = metadata.blocks();
        }
        Ok(blocks)
    }

    #[test]
    fn zeros_become_holes_and_everything_else_is_copied() {
        let mut bytes = vec![0; 5 * CHUNK + 77];
        copy(&bytes, u64::MAX).unwrap();
        for position in [0, BLOCK, CHUNK - 1, CHUNK, 3 * CHUNK + 5, 5 * CHUNK + 70] {
            bytes[position] = 1;
        }
        let blocks = copy(&bytes, u64::MAX).unwrap();
        assert!(blocks.iter().all(|blocks| *blocks < 200), "{blocks:?}");
        copy(b"", u64::MAX).unwrap();
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        copy(&[1; 1000], 1000).unwrap();
        assert!(copy(&[0; 1001], 1000).is_err());
    }

    #[test]
    fn adjacent_blocks_are_one_range() {
        let mut chunk = vec![0; 4 * BLOCK + 10];
        assert!(data_ranges(&chunk).is_empty());
        for position in [BLOCK, 2 * BLOCK, 4 * BLOCK + 9] {
            chunk[position] = 1;
        }
        let expected = [BLOCK..3 * BLOCK, 4 * BLOCK..4 * BLOCK + 10];
        assert_eq!(data_ranges(&chunk), expected);
    }
}
