//! The commands of a stream, as far as the paths and the ranges of files that they name.

use std::ops::Range;

use super::format::{ATTRIBUTE_PARENT, ATTRIBUTE_PATH, END, SNAPSHOT, SUBVOLUME, StreamError};
use crate::Uuid;

const ATTRIBUTE_SIZE: u16 = 4;
const ATTRIBUTE_PATH_TO: u16 = 16;
const ATTRIBUTE_PATH_LINK: u16 = 17;
const ATTRIBUTE_FILE_OFFSET: u16 = 18;
const ATTRIBUTE_DATA: u16 = 19;
const ATTRIBUTE_CLONE_PATH: u16 = 22;
const ATTRIBUTE_CLONE_LENGTH: u16 = 24;
const ATTRIBUTE_UNENCODED_LENGTH: u16 = 27;

const WRITE: u16 = 15;
const CLONE: u16 = 16;
const TRUNCATE: u16 = 17;
const UPDATE_EXTENT: u16 = 22;
const FALLOCATE: u16 = 23;
const ENCODED_WRITE: u16 = 25;

const DAMAGED: StreamError = StreamError::Damaged("the attributes of a command cannot be parsed");

/// The effect of a command on the entries of the subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Starts or ends the stream.
    Frame,
    /// Creates a file, directory, device, pipe or socket.
    Create,
    /// Creates a symbolic link.
    CreateLink,
    /// Creates a hard link.
    HardLink,
    /// Renames an entry.
    Rename,
    /// Removes an entry.
    Remove,
    /// Changes an entry; of a symbolic link, the link itself.
    ChangeEntry,
    /// Changes a file. Follows a symbolic link.
    ChangeFile,
    /// Copies content from another file. Follows symbolic links.
    Clone,
}

impl Effect {
    /// Returns the effect of a kind of command, by the kernel's `fs/btrfs/send.h`.
    fn of_kind(kind: u16) -> Option<Self> {
        Some(match kind {
            SUBVOLUME | SNAPSHOT | END => Self::Frame,
            // mkfile, mkdir, mknod, mkfifo, mksock
            3..=7 => Self::Create,
            8 => Self::CreateLink,
            9 => Self::Rename,
            10 => Self::HardLink,
            // unlink, rmdir
            11 | 12 => Self::Remove,
            // set_xattr, remove_xattr, chown, utimes
            13 | 14 | 19 | 20 => Self::ChangeEntry,
            // also chmod, fileattr, enable_verity
            WRITE | TRUNCATE | 18 | UPDATE_EXTENT | FALLOCATE | 24 | ENCODED_WRITE | 26 => {
                Self::ChangeFile
            }
            CLONE => Self::Clone,
            _ => return None,
        })
    }
}

/// A command without its content.
#[derive(Debug, PartialEq, Eq)]
pub struct Command<'a> {
    pub(super) kind: u16,
    /// Its effect.
    pub effect: Effect,
    /// Its path.
    pub path: &'a [u8],
    /// The new path of a renamed entry.
    pub path_to: &'a [u8],
    /// The existing path of a hard link, or the target of a symbolic one.
    pub path_link: &'a [u8],
    /// The subvolume that content is copied from.
    pub(super) clone_uuid: Option<Uuid>,
    /// The file that content is copied from.
    pub(super) clone_path: &'a [u8],
    /// The position in the file that is written to.
    pub(super) file_offset: u64,
    /// The new size of a truncated file, or the length of a range without content.
    pub(super) size: u64,
    /// The length of the content in the stream, in bytes.
    pub(super) data_length: u64,
    /// The length of content that is copied from another file.
    pub(super) clone_length: u64,
    /// The length of compressed content in the file.
    pub(super) unencoded_length: u64,
}

impl<'a> Command<'a> {
    /// Returns a command without attributes.
    pub(super) fn new(kind: u16, effect: Effect) -> Self {
        Self {
            kind,
            effect,
            path: b"",
            path_to: b"",
            path_link: b"",
            clone_uuid: None,
            clone_path: b"",
            file_offset: 0,
            size: 0,
            data_length: 0,
            clone_length: 0,
            unencoded_length: 0,
        }
    }

    /// Parses a command of this kind and length from its first bytes. Returns `None` if they
    /// do not suffice; all bytes do.
    ///
    /// # Errors
    /// The command is unknown, or its attributes cannot be parsed.
    pub(super) fn parse(
        kind: u16,
        length: usize,
        version: u32,
        bytes: &'a [u8],
    ) -> Result<Option<Self>, StreamError> {
        let effect = Effect::of_kind(kind);
        let effect = effect.ok_or(StreamError::Damaged("it has an unknown command"))?;
        let mut command = Self::new(kind, effect);
        let mut seen = 0_u64;
        let mut at = 0;
        while at < length {
            let Some(head) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
                return more_or_damaged(bytes.len() < length);
            };
            let attribute = u16::from_le_bytes(*head);
            // The content has no length from version 2 on: it is the rest.
            if attribute == ATTRIBUTE_DATA && version > 1 {
                command.data_length = (length - at).saturating_sub(2) as u64;
                break;
            }
            let Some(head) = bytes.get(at + 2..).and_then(<[u8]>::first_chunk) else {
                return more_or_damaged(bytes.len() < length);
            };
            let start = at + 4;
            at = start + usize::from(u16::from_le_bytes(*head));
            let bit = 1_u64.checked_shl(attribute.into()).unwrap_or(0);
            // The receiver would use the last of two.
            if at > length || bit == 0 || seen & bit != 0 {
                return Err(DAMAGED);
            }
            seen |= bit;
            if attribute == ATTRIBUTE_DATA {
                command.data_length = (at - start) as u64;
            }
            match bytes.get(start..at) {
                Some(value) => command.set(attribute, value),
                // Content at the end need not be read.
                None if attribute == ATTRIBUTE_DATA && at == length => {}
                None => return Ok(None),
            }
        }
        Ok(Some(command))
    }

    /// Parses a whole command.
    ///
    /// # Errors
    /// The command is unknown, or its attributes cannot be parsed.
    pub fn parse_whole(kind: u16, version: u32, bytes: &'a [u8]) -> Result<Self, StreamError> {
        Self::parse(kind, bytes.len(), version, bytes)?.ok_or(DAMAGED)
    }

    fn set(&mut self, attribute: u16, value: &'a [u8]) {
        match attribute {
            ATTRIBUTE_PATH => self.path = value,
            ATTRIBUTE_PATH_TO => self.path_to = value,
            ATTRIBUTE_PATH_LINK => self.path_link = value,
            ATTRIBUTE_PARENT => self.clone_uuid = Uuid::from_slice(value).ok(),
            ATTRIBUTE_CLONE_PATH => self.clone_path = value,
            ATTRIBUTE_FILE_OFFSET => self.file_offset = number(value),
            ATTRIBUTE_SIZE => self.size = number(value),
            ATTRIBUTE_CLONE_LENGTH => self.clone_length = number(value),
            ATTRIBUTE_UNENCODED_LENGTH => self.unencoded_length = number(value),
            _ => {}
        }
    }

    /// Returns the range of its file in which the content changes, in bytes; `None` if only
    /// other properties change.
    pub fn changed_range(&self) -> Option<Range<u64>> {
        let start = self.file_offset;
        let length = match self.kind {
            TRUNCATE => return Some(self.size..u64::MAX),
            WRITE => self.data_length,
            UPDATE_EXTENT | FALLOCATE => self.size,
            CLONE => self.clone_length,
            ENCODED_WRITE => self.unencoded_length,
            _ => return None,
        };
        Some(start..start.saturating_add(length))
    }
}

/// Returns a number of a command; one that the receiver refuses, too, is 0.
fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_le_bytes)
}

/// Returns that more bytes of a command are required, or that it is damaged.
fn more_or_damaged<T>(has_more: bool) -> Result<Option<T>, StreamError> {
    if has_more { Ok(None) } else { Err(DAMAGED) }
}
