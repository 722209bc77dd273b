//! The memory of a checkpoint as one sealed file in the host's memory, which any number of
//! guests that are restored from it share.
//!
//! Each guest maps the file privately: it sees the same pages until it writes them, and then has
//! copies of its own. The seals keep everybody, the agent included, from changing the file, so
//! that a guest that breaks out of QEMU cannot alter the memory of another one.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, memfd_create, seek};

/// The number of bytes that are copied at once.
const PIECE: usize = 1 << 20;

/// The sealed memory of a checkpoint. Clones are the same file.
#[derive(Debug, Clone)]
pub struct SealedMemory {
    file: Arc<File>,
    bytes: u64,
}

impl SealedMemory {
    /// Copies a file. Its holes take no space.
    pub(crate) fn copy_of(source: &File) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("buildhost-memory", flags)?);
        file.set_len(source.metadata()?.len())?;
        let bytes = copy_data(source, &file)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, seals)?;
        let file = Arc::new(file);
        Ok(Self { file, bytes })
    }

    /// Returns the number of bytes that it takes in the host's memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns a descriptor to hand to QEMU.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

/// Copies the parts of a sparse file that have data, and returns their size.
fn copy_data(source: &File, target: &File) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let (mut position, mut copied) = (0, 0);
    while let Some((start, end)) = next_data(source, position)? {
        position = start;
        while position < end {
            let piece = usize::try_from(end - position).unwrap_or(PIECE).min(PIECE);
            source.read_exact_at(&mut buffer[..piece], position)?;
            target.write_all_at(&buffer[..piece], position)?;
            position += piece as u64;
        }
        copied += end - start;
    }
    Ok(copied)
}

/// Returns the next range with data from a position on; `None` behind the last one.
fn next_data(file: &File, position: u64) -> io::Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(position)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?))),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn it_has_the_checkpoints_bytes_and_nobody_can_change_them() {
        let source = tempfile::tempfile().unwrap();
        let mut content = vec![0; 8 << 20];
        content[3 << 20..5 << 20].fill(7);
        source.write_all_at(&content, 0).unwrap();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&source, hole, 0, 3 << 20).unwrap();
        let memory = SealedMemory::copy_of(&source).unwrap();
        assert_eq!(memory.bytes(), 5 << 20);
        assert!(memory.file.metadata().unwrap().blocks() * 512 <= 5 << 20);
        let mut read = vec![1; 8 << 20];
        memory.file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == content, "the content differs");
        let mut copy = File::from(memory.descriptor().unwrap());
        let refused = copy.write(b"x").unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::PERM));
        assert!(copy.set_len(0).is_err());
    }
}
