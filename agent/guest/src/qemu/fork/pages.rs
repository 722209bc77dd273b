//! The places of a guest's memory: its mapping among those of its QEMU, and the pages that it
//! has changed. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

/// The flag of a present page in `/proc/PID/pagemap`.
const PRESENT: u64 = 1 << 63;
/// The flag of a page that is swapped out.
const SWAPPED: u64 = 1 << 62;
/// The flag of a page of a file.
const OF_FILE: u64 = 1 << 61;
/// The size of an entry of `/proc/PID/pagemap`.
pub(super) const ENTRY_BYTES: usize = 8;

/// A mapped piece of a file.
struct Piece {
    offset: u64,
    addresses: Range<u64>,
}

/// Returns the addresses of the private mapping of a whole file that has this size, by the
/// content of `/proc/PID/maps`. Returns `None` unless there is exactly one.
pub(super) fn private_mapping(maps: &str, size: u64) -> Option<Range<u64>> {
    let mut files: BTreeMap<_, Vec<Piece>> = BTreeMap::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(addresses), Some(rights), Some(offset), Some(device), Some(inode)) = (
            words.next(),
            words.next(),
            words.next(),
            words.next(),
            words.next(),
        ) else {
            continue;
        };
        let is_memory = rights.starts_with("rw") && rights.ends_with('p') && inode != "0";
        let Some(addresses) = parse_range(addresses).filter(|_| is_memory) else {
            continue;
        };
        let offset = u64::from_str_radix(offset, 16).ok()?;
        let pieces = files.entry((device, inode)).or_default();
        pieces.push(Piece { offset, addresses });
    }
    let mut found = files.values().filter_map(|pieces| whole(pieces, size));
    let mapping = found.next();
    mapping.filter(|_| found.next().is_none())
}

fn parse_range(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(number(start)?..number(end)?)
}

/// Returns the addresses of pieces that lie one behind the other in a file of this size and in
/// memory.
fn whole(pieces: &[Piece], size: u64) -> Option<Range<u64>> {
    let start = pieces.first()?.addresses.start;
    let mut end = start;
    for Piece { offset, addresses } in pieces {
        if *offset != end - start || addresses.start != end {
            return None;
        }
        end = addresses.end;
    }
    (end - start == size).then_some(start..end)
}

/// Returns the pages of a private mapping that are not the file's any more, as ranges of page
/// numbers. `entries` are those of `/proc/PID/pagemap`; `first` is the number of the first one.
pub(super) fn changed(entries: &[u8], first: u64, ranges: &mut Vec<Range<u64>>) {
    for (entry, page) in entries.chunks_exact(ENTRY_BYTES).zip(first..) {
        let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
        if entry & (PRESENT | SWAPPED) == 0 || entry & OF_FILE != 0 {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.end == page => last.end += 1,
            _ => ranges.push(page..page + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0000002000 r-xp 00000000 00:20 7 /usr/bin/qemu-system-x86_64
7f0000100000-7f0000104000 rw-p 00000000 00:00 0 
7f0000200000-7f0000204000 rw-p 00000000 00:2a 55 /memory
7f0000300000-7f0000304000 rw-s 00000000 00:2a 56 /shared
";

    #[test]
    fn the_memory_is_the_private_mapping_of_a_whole_file() {
        let size = 0x4000;
        let memory = Some(0x7f00_0020_0000..0x7f00_0020_4000);
        assert_eq!(private_mapping(MAPS, size), memory);
        assert_eq!(private_mapping(MAPS, size * 2), None);
        let split = MAPS.replace(
            "7f0000200000-7f0000204000 rw-p 00000000 00:2a 55 /memory",
            "7f0000200000-7f0000201000 rw-p 00000000 00:2a 55 /memory\n\
             7f0000201000-7f0000204000 rw-p 00001000 00:2a 55 /memory",
        );
        assert_eq!(private_mapping(&split, size), memory);
        for (from, to) in [
            ("rw-p 00000000 00:2a 55", "rw-s 00000000 00:2a 55"),
            ("rw-p 00000000 00:2a 55", "r--p 00000000 00:2a 55"),
            ("rw-p 00000000 00:2a 55", "rw-p 00001000 00:2a 55"),
            ("rw-s 00000000 00:2a 56", "rw-p 00000000 00:2a 56"),
        ] {
            assert_eq!(private_mapping(&MAPS.replace(from, to), size), None, "{to}");
        }
        assert_eq!(private_mapping("", size), None);
    }

    #[test]
    fn changed_pages_are_present_or_swapped_and_not_of_the_file() {
        let entries = [
            0,
            PRESENT,
            PRESENT | 1 << 56,
            PRESENT | OF_FILE,
            SWAPPED,
            OF_FILE,
        ];
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.to_ne_bytes())
            .collect();
        let mut ranges = Vec::new();
        changed(&bytes, 10, &mut ranges);
        assert_eq!(ranges, [11..13, 14..15]);
    }

    proptest! {
        #[test]
        fn the_ranges_do_not_depend_on_the_pieces_that_are_read(
            pages in prop::collection::vec(any::<bool>(), 1..200),
            piece in 1_usize..50,
        ) {
            let entry = |is_changed: &bool| if *is_changed { PRESENT } else { PRESENT | OF_FILE };
            let bytes: Vec<u8> = pages.iter().flat_map(|page| entry(page).to_ne_bytes()).collect();
            let mut ranges = Vec::new();
            for (number, piece_bytes) in bytes.chunks(piece * ENTRY_BYTES).enumerate() {
                changed(piece_bytes, (number * piece) as u64, &mut ranges);
            }
            let listed: Vec<u64> = ranges.iter().cloned().flatten().collect();
            let expected: Vec<u64> = (0..).zip(&pages).filter(|(_, changed)| **changed).map(|(page, _)| page).collect();
            prop_assert_eq!(listed, expected);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
