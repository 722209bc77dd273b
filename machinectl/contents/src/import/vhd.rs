//! The footer of a VHD image of a fixed size: such an image is the raw disk with a footer behind it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const FOOTER: usize = 512;
const MAGIC: &[u8] = b"conectix";
/// The type of an image of a fixed size.
const FIXED: u32 = 2;
/// The positions of numbers in the footer.
const SIZE: usize = 48;
const TYPE: usize = 60;
const CHECKSUM: usize = 64;

/// Cuts the footer off a disk if it has one.
pub(super) fn cut_footer(disk: &File) -> io::Result<()> {
    let mut footer = [0; FOOTER];
    let length = disk.metadata()?.len();
    let Some(start) = length.checked_sub(FOOTER as u64) else {
        return Ok(());
    };
    disk.read_exact_at(&mut footer, start)?;
    match disk_size(&footer) {
        Some(size) if size <= start => disk.set_len(size),
        _ => Ok(()),
    }
}

/// Returns the size of the disk before a footer; `None` if this is not one of a fixed size.
fn disk_size(footer: &[u8; FOOTER]) -> Option<u64> {
    let word = |position: usize| footer[position..].first_chunk().copied();
    let bytes = footer.iter().enumerate();
    let bytes = bytes.filter(|(position, _)| !(CHECKSUM..CHECKSUM + 4).contains(position));
    let sum: u32 = bytes.map(|(_, byte)| u32::from(*byte)).sum();
    let is_footer = footer.starts_with(MAGIC)
        && word(TYPE).map(u32::from_be_bytes) == Some(FIXED)
        && word(CHECKSUM).map(u32::from_be_bytes) == Some(!sum);
    let size = footer[SIZE..].first_chunk().copied();
    size.map(u64::from_be_bytes).filter(|_| is_footer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer(kind: u32, size: u64) -> [u8; FOOTER] {
        let mut footer = [0; FOOTER];
        footer[..8].copy_from_slice(MAGIC);
        footer[SIZE..SIZE + 8].copy_from_slice(&size.to_be_bytes());
        footer[TYPE..TYPE + 4].copy_from_slice(&kind.to_be_bytes());
        let sum: u32 = footer.iter().copied().map(u32::from).sum();
        footer[CHECKSUM..CHECKSUM + 4].copy_from_slice(&(!sum).to_be_bytes());
        footer
    }

    #[test]
    fn a_valid_footer_is_cut_off() {
        let mut damaged = footer(FIXED, 4096);
        damaged[100] = 1;
        for (footer, expected) in [
            (footer(FIXED, 4096), 4096),
            (footer(FIXED, 1024), 1024),
            (footer(FIXED, 5000), 4608),
            (footer(3, 4096), 4608),
            (damaged, 4608),
        ] {
            let disk = tempfile::tempfile().unwrap();
            disk.write_all_at(&footer, 4096).unwrap();
            cut_footer(&disk).unwrap();
            assert_eq!(disk.metadata().unwrap().len(), expected);
        }
        let short = tempfile::tempfile().unwrap();
        cut_footer(&short).unwrap();
    }
}
