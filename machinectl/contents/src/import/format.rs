//! The format of an imported file, by its content.

use std::fmt;

use btrfs::compression::Compression;
use btrfs::stream::is_stream;

/// The number of bytes at the start of a file that determine its format.
pub(super) const HEAD_BYTES: usize = 64 << 10;
/// The length of a block of an archive.
const BLOCK: usize = 512;
/// The place of the checksum in the first block of an archive.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFormat {
    /// A compressed file.
    Compressed(Compression),
    /// A tar archive.
    Archive,
    /// A disk image. A file of no other format is a raw one.
    Disk(DiskFormat),
    /// A file that can never be a machine.
    Foreign(ForeignFormat),
}

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskFormat {
    /// The content of the disk, perhaps with the footer of a VHD image of a fixed size.
    Raw,
    /// QEMU's own format.
    Qcow2,
    /// VMware's format.
    Vmdk,
    /// VirtualBox's format.
    Vdi,
    /// The older format of Hyper-V.
    Vhd,
    /// The newer format of Hyper-V.
    Vhdx,
}

/// A format that is not that of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignFormat {
    /// No content.
    Empty,
    /// A `btrfs send` stream.
    Stream,
    /// A program or a library.
    Elf,
    /// A Linux kernel.
    Kernel,
    /// The image of an optical disk.
    Iso,
    /// Text.
    Text,
    /// An archive of another kind than tar.
    OtherArchive(&'static str),
    /// A disk image that cannot be converted.
    OtherDisk(&'static str),
    /// Compressed by a program that is not supported.
    OtherCompression(&'static str),
    /// Compressed data in compressed data.
    CompressedTwice,
}

/// The formats that are recognized by bytes at a position. The first match decides.
const MAGIC: [(usize, &[u8], FileFormat); 18] = {
    use DiskFormat::{Qcow2, Vdi, Vhd, Vhdx, Vmdk};
    use FileFormat::{Disk, Foreign};
    use ForeignFormat::{Elf, Iso, Kernel, OtherArchive, OtherCompression, OtherDisk};
    [
        (0, b"QFI\xfb", Disk(Qcow2)),
        (0, b"KDMV", Disk(Vmdk)),
        (0, b"# Disk DescriptorFile", Disk(Vmdk)),
        (0x40, b"\x7f\x10\xda\xbe", Disk(Vdi)),
        (0, b"conectix", Disk(Vhd)),
        (0, b"vhdxfile", Disk(Vhdx)),
        (0, b"COWD", Foreign(OtherDisk("old VMDK"))),
        (0, b"QED\0", Foreign(OtherDisk("QED"))),
        (0, b"WithoutFreeSpace", Foreign(OtherDisk("Parallels"))),
        (0, b"WithouFreSpacExt", Foreign(OtherDisk("Parallels"))),
        (0, b"\x7fELF", Foreign(Elf)),
        (0, b"PK\x03\x04", Foreign(OtherArchive("zip"))),
        (0, b"PK\x05\x06", Foreign(OtherArchive("zip"))),
        (0, b"7z\xbc\xaf\x27\x1c", Foreign(OtherArchive("7z"))),
        (0, b"Rar!\x1a\x07", Foreign(OtherArchive("RAR"))),
        (0, b"\x04\x22\x4d\x18", Foreign(OtherCompression("lz4"))),
        // Many of them are also bootable disks.
        (0x8001, b"CD001", Foreign(Iso)),
        (0x202, b"HdrS", Foreign(Kernel)),
    ]
};

impl FileFormat {
    /// Returns the format of a file that begins with these bytes: the first [`HEAD_BYTES`], or all
    /// of a shorter file.
    pub(super) fn detect(head: &[u8]) -> Self {
        let mut known = MAGIC.iter();
        let known = known.find(|(position, magic, _)| {
            let rest = head.get(*position..);
            rest.is_some_and(|rest| rest.starts_with(magic))
        });
        if let Some((_, _, format)) = known {
            *format
        } else if head.is_empty() {
            Self::Foreign(ForeignFormat::Empty)
        } else if is_stream(head) {
            Self::Foreign(ForeignFormat::Stream)
        } else if let Some(compression) = Compression::detect(head) {
            Self::Compressed(compression)
        } else if is_archive(head) {
            Self::Archive
        } else if is_text(head) {
            Self::Foreign(ForeignFormat::Text)
        } else {
            Self::Disk(DiskFormat::Raw)
        }
    }
}

/// Returns true if the first block has the checksum of an archive, of whatever age.
fn is_archive(head: &[u8]) -> bool {
    let Some(block) = head.first_chunk::<BLOCK>() else {
        return false;
    };
    let field: Vec<_> = block[CHECKSUM]
        .iter()
        .copied()
        .skip_while(|byte| *byte == b' ')
        .take_while(u8::is_ascii_digit)
        .collect();
    let stored = str::from_utf8(&field).ok();
    let stored = stored.and_then(|digits| u32::from_str_radix(digits, 8).ok());
    // The sum is made with blanks in the place of the checksum.
    let mut summed = *block;
    summed[CHECKSUM].fill(b' ');
    let sum = summed.iter().copied().map(u32::from).sum();
    block[0] != 0 && stored == Some(sum)
}

fn is_text(head: &[u8]) -> bool {
    let text = match str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.error_len().is_none() && head.len() == HEAD_BYTES => {
            str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let is_control = |c: char| c.is_control() && !"\t\n\r\x0c\x1b".contains(c);
    !text.contains(is_control)
}

impl DiskFormat {
    /// Returns QEMU's name of the format; `None` for a raw disk, which needs no conversion.
    pub(super) fn driver(self) -> Option<&'static str> {
        match self {
            Self::Raw => None,
            Self::Qcow2 => Some("qcow2"),
            Self::Vmdk => Some("vmdk"),
            Self::Vdi => Some("vdi"),
            Self::Vhd => Some("vpc"),
            Self::Vhdx => Some("vhdx"),
        }
    }
}

/// The predicate of a sentence about the file, and the remedy.
impl fmt::Display for ForeignFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("is empty; a machine needs a disk image, a directory or an archive")
            }
            Self::Stream => f.write_str(
                "is a `btrfs send` stream; receive it with `buildhost add NAME --from FILE`, or `upgrade`",
            ),
            Self::Elf => f.write_str("is an ELF file; give the disk image of a machine"),
            Self::Kernel => {
                f.write_str("is a Linux kernel; name it with `--kernel`, and give a disk image")
            }
            Self::Iso => f.write_str(
                "is an ISO 9660 image; install it in a virtual machine, and import the disk of that",
            ),
            Self::Text => f.write_str("is a text file; check where it comes from"),
            Self::OtherArchive(name) => {
                write!(f, "is a {name} archive; extract it, and import its content")
            }
            Self::OtherDisk(name) => write!(
                f,
                "is a disk image of the format {name}; convert it first: `qemu-img convert`"
            ),
            Self::OtherCompression(name) => {
                write!(f, "is compressed with {name}; decompress it first")
            }
            Self::CompressedTwice => f.write_str("is compressed, too; decompress the file first"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(length: usize, position: usize, bytes: &[u8]) -> Vec<u8> {
        // 0xeb is the jump of a boot sector.
        let mut head = vec![0xeb; length];
        head[position..position + bytes.len()].copy_from_slice(bytes);
        head
    }

    fn archive(magic: &[u8], checksum: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..8].copy_from_slice(b"disk.img");
        block[257..257 + magic.len()].copy_from_slice(magic);
        let sum: u32 = block.iter().copied().map(u32::from).sum();
        let sum = format!("{:06o}\0 ", sum + 8 * u32::from(b' '));
        let field = if checksum.is_empty() {
            sum.as_bytes()
        } else {
            checksum
        };
        block[148..148 + field.len()].copy_from_slice(field);
        block
    }

    #[test]
    fn the_content_determines_the_format() {
        use {DiskFormat::*, FileFormat::*, ForeignFormat::*};
        let table = [
            (Vec::new(), Foreign(Empty)),
            (b"btrfs-stream\0\x01\0\0\0".to_vec(), Foreign(Stream)),
            (b"<html>\n\xc3\xa9".to_vec(), Foreign(Text)),
            (b"# Disk DescriptorFile\n".to_vec(), Disk(Vmdk)),
            (with(512, 0, b"KDMV\x01\0\0\0"), Disk(Vmdk)),
            (with(512, 0, b"QFI\xfb"), Disk(Qcow2)),
            (with(512, 0, b"<<< Oracle"), Disk(Raw)),
            (with(512, 0x40, b"\x7f\x10\xda\xbe"), Disk(Vdi)),
            (with(512, 0, b"conectix"), Disk(Vhd)),
            (with(512, 0, b"vhdxfile"), Disk(Vhdx)),
            (with(512, 0, b"\x7fELF"), Foreign(Elf)),
            (with(512, 0, b"PK\x03\x04"), Foreign(OtherArchive("zip"))),
            (with(1024, 0x202, b"HdrS"), Foreign(Kernel)),
            (with(HEAD_BYTES, 0x8001, b"CD001"), Foreign(Iso)),
            (with(512, 0, b"\xfd7zXZ"), Compressed(Compression::Xz)),
            (with(512, 510, b"\x55\xaa"), Disk(Raw)),
            (vec![0; HEAD_BYTES], Disk(Raw)),
            (archive(b"ustar\0", b""), Archive),
            (archive(b"ustar  \0", b""), Archive),
            (archive(b"", b""), Archive),
            (archive(b"ustar\0", b"000001\0 "), Disk(Raw)),
        ];
        for (head, format) in table {
            let start = &head[..head.len().min(16)];
            assert_eq!(FileFormat::detect(&head), format, "{start:?}");
        }
    }

    #[test]
    fn text_may_end_within_a_character_only_where_the_head_ends() {
        let mut head = vec![b'a'; HEAD_BYTES - 1];
        head.push(0xc3);
        assert!(is_text(&head));
        assert!(!is_text(b"abc\xc3") && !is_text(b"abc\0"));
    }

    proptest! {
        #[test]
        fn arbitrary_content_has_a_format(head in prop::collection::vec(any::<u8>(), 0..700)) {
            let _ = FileFormat::detect(&head);
        }
    }
}
