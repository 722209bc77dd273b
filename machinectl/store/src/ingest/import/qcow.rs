//! The header of disk images in QEMU's own format: the properties on which the import depends.

/// The magic of the format.
pub(super) const MAGIC: &[u8] = b"QFI\xfb";
/// The number of bytes at the start of an image that hold the header and its extensions.
pub(super) const HEADER_BYTES: u64 = 64 << 10;
/// The incompatible feature of an image whose content is in another file.
const EXTERNAL_DATA: u64 = 1 << 2;
/// The type of the header extension with the name of that file.
const DATA_FILE_NAME: u32 = 0x4441_5441;

/// The properties of a disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The size of the virtual disk in bytes.
    pub(super) size: u64,
    /// Another file that the image reads: a backing file or a data file.
    pub(super) other_file: Option<String>,
}

impl Header {
    /// Parses the first [`HEADER_BYTES`] of an image. Returns `None` if they are not a header of
    /// version 2 or 3.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let version = word(bytes, 4)?;
        if !bytes.starts_with(MAGIC) || !(2..=3).contains(&version) {
            return None;
        }
        let (backing, backing_length) = (long(bytes, 8)?, word(bytes, 16)?);
        let features = if version == 3 { long(bytes, 72)? } else { 0 };
        let other_file = if backing != 0 {
            Some(text(bytes, backing, backing_length))
        } else if features & EXTERNAL_DATA != 0 {
            Some(data_file(bytes).unwrap_or_default())
        } else {
            None
        };
        let size = long(bytes, 24)?;
        Some(Self { size, other_file })
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
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&version.to_be_bytes());
        bytes[8..16].copy_from_slice(&backing.to_be_bytes());
        bytes[16..20].copy_from_slice(&5_u32.to_be_bytes());
        bytes[24..32].copy_from_slice(&4096_u64.to_be_bytes());
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
            let header = Header::parse(&bytes).unwrap();
            assert_eq!(header.size, 4096);
            assert_eq!(header.other_file.as_deref(), expected);
        }
        assert_eq!(Header::parse(&image(1, 0, 0, &[])), None);
        assert_eq!(Header::parse(&image(4, 0, 0, &[])), None);
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
            let _ = Header::parse(&header);
            let _ = Header::parse(&bytes);
        }
    }
}
