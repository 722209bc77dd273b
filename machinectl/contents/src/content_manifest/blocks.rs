//! The hashes of a file's blocks. Holes are not read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use blake3::Hash;
use sys::file;

use super::format::BLOCK;

/// The number of blocks that are read at once.
const CHUNK: u64 = 8;

/// Returns the hashes of those blocks of a file, in ascending order, whose numbers are in a range
/// and which are not all zeros. `size` is the file's size in bytes.
pub(super) fn hash_blocks(
    file: &File,
    size: u64,
    range: Range<u64>,
) -> io::Result<Vec<(u64, Hash)>> {
    let end = range.end.min(size.div_ceil(BLOCK));
    let mut next = range.start;
    let mut hashes = Vec::new();
    let mut bytes = Vec::new();
    while next < end {
        let Some(data) = file::next_data(file, next * BLOCK)? else {
            break;
        };
        let start = data / BLOCK;
        if start >= end {
            break;
        }
        next = end.min(start + CHUNK);
        let length = size.min(next * BLOCK) - start * BLOCK;
        bytes.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        file.read_exact_at(&mut bytes, start * BLOCK)?;
        let block_length = usize::try_from(BLOCK).map_err(io::Error::other)?;
        let blocks = (start..).zip(bytes.chunks(block_length));
        let with_data = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        hashes.extend(with_data.map(|(number, block)| (number, hash(block))));
    }
    Ok(hashes)
}

/// Returns the hash of a block, computed on all processors.
fn hash(block: &[u8]) -> Hash {
    blake3::Hasher::new().update_rayon(block).finalize()
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    /// Returns a file of this size with bytes at these positions.
    fn file(size: u64, data: &[(u64, &[u8])]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for (position, bytes) in data {
            file.seek(SeekFrom::Start(*position)).unwrap();
            file.write_all(bytes).unwrap();
        }
        file.set_len(size).unwrap();
        file
    }

    fn numbers(file: &File, size: u64, range: Range<u64>) -> Vec<u64> {
        let hashes = hash_blocks(file, size, range).unwrap();
        hashes.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn blocks_with_data_are_hashed() {
        let size = 20 * BLOCK + 5;
        let data: &[(u64, &[u8])] = &[
            (BLOCK, b"a"),
            (3 * BLOCK, &[0; 4096]),
            (9 * BLOCK - 1, b"bc"),
            (20 * BLOCK + 4, b"d"),
        ];
        let file = file(size, data);
        assert_eq!(numbers(&file, size, 0..u64::MAX), [1, 8, 9, 20]);
        assert_eq!(numbers(&file, size, 2..9), [8]);
        assert!(numbers(&file, size, 10..20).is_empty());
        let last = hash_blocks(&file, size, 20..21).unwrap();
        assert_eq!(last, [(20, blake3::hash(b"\0\0\0\0d"))]);
        assert!(numbers(&tempfile::tempfile().unwrap(), 0, 0..u64::MAX).is_empty());
    }
}
