//! The memory that a guest has changed since it was restored, read from outside of its QEMU.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::ForkError;
use super::pages::{ENTRY_BYTES, changed, private_mapping};

/// The room for pages that change between the reservation and the stop, in bytes.
const SLACK: usize = 16 << 20;
/// The number of page entries that are read at once.
const ENTRIES: usize = 32 * 1024;

/// The memory of a running guest.
#[derive(Debug)]
pub(super) struct GuestMemory {
    pid: Pid,
    addresses: Range<u64>,
    pagemap: File,
    path: PathBuf,
    page: u64,
}

/// The pages that a guest has changed.
pub(super) struct Changes {
    /// Their places in the memory file, in bytes.
    ranges: Vec<Range<u64>>,
    /// Their content, one range behind the other.
    content: Vec<u8>,
}

impl GuestMemory {
    /// Finds the memory in a QEMU that has restored a guest with this size of memory.
    pub(super) fn find(pid: u32, size: u64) -> Result<Self, ForkError> {
        let path = PathBuf::from(format!("/proc/{pid}/maps"));
        let maps = sys::trusted::read_text(&path).map_err(ForkError::file(&path))?;
        let addresses = private_mapping(&maps, size).ok_or(ForkError::Cold)?;
        let path = PathBuf::from(format!("/proc/{pid}/pagemap"));
        let pagemap = sys::trusted::open(&path).map_err(ForkError::file(&path))?;
        let pid = i32::try_from(pid).map_err(|_| ForkError::Cold)?;
        Ok(Self {
            pid: Pid::from_raw(pid),
            addresses,
            pagemap,
            path,
            page: rustix::param::page_size() as u64,
        })
    }

    /// Reserves memory for the changed pages, so that the guest need not wait for it.
    pub(super) fn reserve(&self) -> Result<Changes, ForkError> {
        let ranges = self.changed_ranges()?;
        let bytes = length(&ranges) + SLACK;
        Ok(Changes {
            ranges: Vec::new(),
            // Other bytes than zero: the kernel hands out all pages now.
            content: vec![1; bytes],
        })
    }

    /// Copies the changed pages. The guest must be stopped.
    pub(super) fn collect(&self, changes: &mut Changes) -> Result<(), ForkError> {
        changes.ranges = self.changed_ranges()?;
        changes.content.resize(length(&changes.ranges), 0);
        let mut rest = &mut changes.content[..];
        for range in &changes.ranges {
            let (piece, others) = rest.split_at_mut(bytes_of(range));
            self.read(range.start, piece)?;
            rest = others;
        }
        Ok(())
    }

    fn read(&self, mut offset: u64, mut piece: &mut [u8]) -> Result<(), ForkError> {
        while !piece.is_empty() {
            let remote = RemoteIoVec {
                base: address(self.addresses.start + offset),
                len: piece.len(),
            };
            let read = process_vm_readv(self.pid, &mut [IoSliceMut::new(piece)], &[remote]);
            let count = match read {
                Ok(count @ 1..) => count,
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Err(self.failed(error.into())),
            };
            offset += count as u64;
            piece = &mut piece[count..];
        }
        Ok(())
    }

    /// Returns the places of the changed pages in the memory file.
    fn changed_ranges(&self) -> Result<Vec<Range<u64>>, ForkError> {
        let pages = (self.addresses.end - self.addresses.start) / self.page;
        let mut ranges = Vec::new();
        let mut buffer = vec![0; ENTRIES * ENTRY_BYTES];
        let mut first = 0;
        while first < pages {
            let count = ENTRIES.min(usize::try_from(pages - first).unwrap_or(ENTRIES));
            let piece = &mut buffer[..count * ENTRY_BYTES];
            let at = (self.addresses.start / self.page + first) * ENTRY_BYTES as u64;
            let read = self.pagemap.read_exact_at(piece, at);
            read.map_err(|error| self.failed(error))?;
            changed(piece, first, &mut ranges);
            first += count as u64;
        }
        let in_bytes = |range: Range<u64>| range.start * self.page..range.end * self.page;
        Ok(ranges.into_iter().map(in_bytes).collect())
    }

    fn failed(&self, source: io::Error) -> ForkError {
        ForkError::file(Path::new(&self.path))(source)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl Changes {
    /// Returns the size of the changed pages.
    pub(super) fn bytes(&self) -> u64 {
        self.content.len() as u64
    }

    /// Writes the changed pages to a memory file.
    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        let mut rest = &self.content[..];
        for range in &self.ranges {
            let (piece, others) = rest.split_at(bytes_of(range));
            file.write_all_at(piece, range.start)?;
            rest = others;
        }
        Ok(())
    }
}

fn length(ranges: &[Range<u64>]) -> usize {
    ranges.iter().map(bytes_of).sum()
}

fn bytes_of(range: &Range<u64>) -> usize {
    address(range.end - range.start)
}

/// Converts a number of the process to one of this process: both have 64 bits.
fn address(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
