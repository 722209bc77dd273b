//! The header of disk images in QEMU's own format: the properties on which the import depends.

/// The incompatible feature of an image whose content is in another file.
const EXTERNAL_DATA: u64 = 1 << 2;
/// The type of the header extension with the name of that file.
const DATA_FILE_NAME: u32 = 0x4441_5441;

/// Returns the other file that an image reads: a backing file or a data file. The name is empty if
/// it cannot be found.
///
/// QEMU itself refuses images of other versions than 2 and 3.
pub(super) fn other_file(head: &[u8]) -> Option<String> {
    let version = word(head, 4)?;
    let (backing, backing_length) = (long(head, 8)?, word(head, 16)?);
    let features = if version == 2 { 0 } else { long(head, 72)? };
    if backing != 0 {
        Some(text(head, backing, backing_length))
    } else if features & EXTERNAL_DATA != 0 {
        Some(data_file(head).unwrap_or_default())
    } else {
        None
    }
}

/// Returns the name of the data file from the header extensions.
fn data_file(bytes: &[u8]) -> Option<String> {
    let mut offset = u64::from(word(bytes, 100)?);
    loop {
        let (kind, length) = (word(bytes, offset)?, word(bytes, offset.checked_add(4)?)?);
        let start = offset.checked_add(8)?;
        match kind {
            0 => return None,
            DATA_FILE_NAME => return Some(text(bytes, start, length)),
            _ => offset = start.checked_add(u64::from(length).next_multiple_of(8))?,
        }
    }
}

/// Returns a name; an empty one if it is outside the header.
fn text(bytes: &[u8], offset: u64, length: u32) -> String {
    let name = part(bytes, offset, u64::from(length)).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn word(bytes: &[u8], offset: u64) -> Option<u32> {
    let bytes = part(bytes, offset, 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

fn long(bytes: &[u8], offset: u64) -> Option<u64> {
    let bytes = part(bytes, offset, 8)?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

fn part(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let end = usize::try_from(offset.checked_add(length)?).ok()?;
    bytes.get(usize::try_from(offset).ok()?..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(version: u32, backing: u64, features: u64, extensions: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        bytes[8..16].copy_from_slice(&backing.to_be_bytes());
        bytes[16..20].copy_from_slice(&5_u32.to_be_bytes());
        bytes[72..80].copy_from_slice(&features.to_be_bytes());
        bytes[100..104].copy_from_slice(&104_u32.to_be_bytes());
        bytes[104..104 + extensions.len()].copy_from_slice(extensions);
        bytes[400..405].copy_from_slice(b"/etc/");
        bytes
    }

    #[test]
    fn other_files_are_found() {
        let mut extensions = vec![0, 0, 0, 1, 0, 0, 0, 3, 9, 9, 9, 0, 0, 0, 0, 0];
        extensions.extend(b"DATA\0\0\0\x04/dat");
        let external = image(3, 0, EXTERNAL_DATA, &extensions);
        for (bytes, expected) in [
            (image(3, 0, 0, &extensions), None),
            (image(2, 0, EXTERNAL_DATA, &[]), None),
            (image(2, 400, 0, &[]), Some("/etc/")),
            (image(3, 400, EXTERNAL_DATA, &[]), Some("/etc/")),
            (image(3, u64::MAX, 0, &[]), Some("")),
            (external, Some("/dat")),
            (image(3, 0, EXTERNAL_DATA, &[]), Some("")),
            (image(3, 0, EXTERNAL_DATA, &[1; 200]), Some("")),
        ] {
            assert_eq!(other_file(&bytes).as_deref(), expected);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_headers_do_not_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            version in 2_u32..4,
        ) {
            let mut header = image(version, 0, EXTERNAL_DATA, &[]);
            let length = bytes.len();
            header[72..72 + length].copy_from_slice(&bytes);
            let _ = other_file(&header);
            let _ = other_file(&bytes);
        }
    }
}
