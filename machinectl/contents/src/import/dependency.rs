//! The other files that a disk image reads. An import refuses all of them.

mod qcow;
mod vmdk;

use super::format::DiskFormat;

/// The type of a VHD image that holds differences, and of a VDI image.
const DIFFERENCING: u32 = 4;
/// The positions of these types.
const VHD_TYPE: usize = 60;
const VDI_TYPE: usize = 0x4c;

/// Other files that a disk image needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dependency {
    /// A file that the image names.
    File(String),
    /// An image that the differences in this one belong to.
    Parent,
    /// Files with the content, or with the other parts of the disk.
    Parts,
}

impl Dependency {
    /// Returns the other files that an image needs, by its first
    /// [`HEAD_BYTES`](super::format::HEAD_BYTES).
    ///
    /// QEMU itself refuses VHDX images with a parent.
    pub(super) fn find(format: DiskFormat, head: &[u8]) -> Option<Self> {
        match format {
            DiskFormat::Raw | DiskFormat::Vhdx => None,
            DiskFormat::Qcow2 => qcow::other_file(head).map(Self::File),
            DiskFormat::Vmdk => vmdk::dependency(head),
            DiskFormat::Vdi => parent(head, VDI_TYPE, u32::from_le_bytes),
            DiskFormat::Vhd => parent(head, VHD_TYPE, u32::from_be_bytes),
        }
    }
}

fn parent(head: &[u8], position: usize, number: fn([u8; 4]) -> u32) -> Option<Dependency> {
    let bytes = head.get(position..)?.first_chunk()?;
    (number(*bytes) == DIFFERENCING).then_some(Dependency::Parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_with_differences_need_a_parent() {
        for (format, position, number) in [
            (DiskFormat::Vhd, VHD_TYPE, [0, 0, 0, 4]),
            (DiskFormat::Vdi, VDI_TYPE, [4, 0, 0, 0]),
        ] {
            let mut head = vec![0; 512];
            assert_eq!(Dependency::find(format, &head), None);
            assert_eq!(Dependency::find(format, &head[..position + 3]), None);
            head[position..position + 4].copy_from_slice(&number);
            assert_eq!(Dependency::find(format, &head), Some(Dependency::Parent));
        }
    }
}
