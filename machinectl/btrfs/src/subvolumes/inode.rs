//! The inodes of btrfs, which the kernel shows with its tree search only.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::ioctl::{Updater, ioctl, opcode};

/// The length of the arguments of a search, in bytes: the key, then the found items.
const ARGUMENTS: usize = 4096;
/// The arguments of `BTRFS_IOC_TREE_SEARCH`, by the kernel's `linux/btrfs.h`.
type Arguments = [u8; ARGUMENTS];
const TREE_SEARCH: u32 = opcode::read_write::<Arguments>(0x94, 17);
/// The type of the item that holds an inode.
const INODE_ITEM: u32 = 1;
/// The positions in the arguments: the number of items to find and found, and the transaction in
/// the first item, which is behind the key, the item's header and the inode's generation.
const ITEM_COUNT: usize = 64;
const TRANSACTION: usize = 104 + 32 + 8;

/// Returns the transaction of the last change of a file or directory. Requires `CAP_SYS_ADMIN`.
#[expect(unsafe_code, reason = "no crate has this ioctl as a safe function")]
pub(super) fn last_change(file: &Path) -> io::Result<u64> {
    let inode = fs::symlink_metadata(file)?.ino();
    let directory = sys::trusted::open(file.parent().unwrap_or(Path::new(".")))?;
    let mut arguments = search_key(inode);
    // SAFETY: the kernel reads and writes the arguments, which have the length of the request.
    unsafe {
        ioctl(
            &directory,
            Updater::<TREE_SEARCH, Arguments>::new(&mut arguments),
        )
    }?;
    let found = bytes_at(&arguments, ITEM_COUNT).map(u32::from_ne_bytes);
    let transaction = bytes_at(&arguments, TRANSACTION).map(u64::from_le_bytes);
    match (found, transaction) {
        (Some(1..), Some(transaction)) => Ok(transaction),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Returns the key that finds an inode in the subvolume of the opened directory.
fn search_key(inode: u64) -> Arguments {
    let any = [0, u64::MAX];
    let tree = [0];
    let wide = [&tree[..], &[inode, inode], &any, &any].concat();
    let narrow = [INODE_ITEM, INODE_ITEM, 1, 0];
    let wide = wide.iter().flat_map(|it| it.to_ne_bytes());
    let key = wide.chain(narrow.iter().flat_map(|it| it.to_ne_bytes()));
    let mut arguments = [0; ARGUMENTS];
    arguments
        .iter_mut()
        .zip(key)
        .for_each(|(at, byte)| *at = byte);
    arguments
}

fn bytes_at<const N: usize>(arguments: &Arguments, position: usize) -> Option<[u8; N]> {
    arguments.get(position..)?.first_chunk().copied()
}
