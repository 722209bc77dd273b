//! The header and the descriptor of VMDK images: the properties on which the import depends.
//!
//! A descriptor names the files that hold the disk. An image of one file has a descriptor inside,
//! and QEMU takes the disk from the file itself. Without a capacity in the header, QEMU would follow
//! the descriptor.

use super::Dependency;

/// The magic of an image of one file, or of a part of a disk.
const MAGIC: &[u8] = b"KDMV";
/// The positions of numbers in the header.
const CAPACITY: usize = 12;
const DESCRIPTOR_POSITION: usize = 28;
const DESCRIPTOR_LENGTH: usize = 36;
/// The unit of positions and lengths.
const SECTOR: u64 = 512;
/// The types of disks that are one file.
const SINGLE_FILES: [&str; 2] = ["monolithicSparse", "streamOptimized"];
/// The identity of the parent of a disk without one.
const NO_PARENT: &str = "ffffffff";

/// Returns the other files that an image needs.
pub(super) fn dependency(head: &[u8]) -> Option<Dependency> {
    let Some(descriptor) = descriptor(head) else {
        return Some(Dependency::Parts);
    };
    if let Some(parent) = value(&descriptor, "parentFileNameHint") {
        return Some(Dependency::File(parent.to_owned()));
    }
    let parent = value(&descriptor, "parentCID").unwrap_or(NO_PARENT);
    if !parent.eq_ignore_ascii_case(NO_PARENT) {
        return Some(Dependency::Parent);
    }
    let is_single = value(&descriptor, "createType").is_some_and(|it| SINGLE_FILES.contains(&it));
    (!is_single).then_some(Dependency::Parts)
}

/// Returns the descriptor inside an image with a capacity of its own.
fn descriptor(head: &[u8]) -> Option<String> {
    if !head.starts_with(MAGIC) || number(head, CAPACITY)? == 0 {
        return None;
    }
    let start = number(head, DESCRIPTOR_POSITION)?.checked_mul(SECTOR)?;
    let length = number(head, DESCRIPTOR_LENGTH)?.checked_mul(SECTOR)?;
    let end = usize::try_from(start.checked_add(length)?).ok()?;
    let start = usize::try_from(start).ok().filter(|start| *start > 0)?;
    let bytes = head.get(start..end)?;
    let text = bytes.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Returns a value of a descriptor.
fn value<'a>(descriptor: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = descriptor.lines().filter_map(|line| line.split_once('='));
    let pair = pairs.find(|(name, _)| name.trim() == key);
    pair.map(|(_, value)| value.trim().trim_matches('"'))
}

fn number(head: &[u8], position: usize) -> Option<u64> {
    let bytes = head.get(position..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(capacity: u64, position: u64, descriptor: &str) -> Vec<u8> {
        let mut head = vec![0; 4096];
        head[..4].copy_from_slice(MAGIC);
        head[12..20].copy_from_slice(&capacity.to_le_bytes());
        head[28..36].copy_from_slice(&position.to_le_bytes());
        head[36..44].copy_from_slice(&2_u64.to_le_bytes());
        head[512..512 + descriptor.len()].copy_from_slice(descriptor.as_bytes());
        head
    }

    #[test]
    fn only_an_image_of_one_file_needs_no_other() {
        let single = "version=1\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n";
        let parent = single.replace("ffffffff", "12345678");
        let hint = format!("{parent}parentFileNameHint=\"/etc/shadow\"\n");
        let split = single.replace("streamOptimized", "twoGbMaxExtentSparse");
        let file = Dependency::File("/etc/shadow".to_owned());
        for (head, expected) in [
            (image(8192, 1, single), None),
            (image(8192, 1, &split), Some(Dependency::Parts)),
            (image(8192, 1, &parent), Some(Dependency::Parent)),
            (image(8192, 1, &hint), Some(file)),
            (image(8192, 1, ""), Some(Dependency::Parts)),
            // QEMU would follow the descriptor.
            (image(0, 1, single), Some(Dependency::Parts)),
            // A part of a disk has none.
            (image(8192, 0, single), Some(Dependency::Parts)),
            (image(8192, u64::MAX, single), Some(Dependency::Parts)),
            (image(8192, 7, single), Some(Dependency::Parts)),
            (b"# Disk DescriptorFile".to_vec(), Some(Dependency::Parts)),
            (b"KDMV".to_vec(), Some(Dependency::Parts)),
        ] {
            assert_eq!(dependency(&head), expected);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_headers_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = dependency(&[MAGIC, &bytes].concat());
        }
    }
}
