//! The commands of a stream, as far as the paths that they name.

use super::format::{ATTRIBUTE_PARENT, ATTRIBUTE_PATH, END, SNAPSHOT, SUBVOLUME, StreamError};
use crate::Uuid;

const ATTRIBUTE_PATH_TO: u16 = 16;
const ATTRIBUTE_PATH_LINK: u16 = 17;
const ATTRIBUTE_DATA: u16 = 19;
const ATTRIBUTE_CLONE_PATH: u16 = 22;

const DAMAGED: StreamError = StreamError::Damaged("the attributes of a command cannot be parsed");

/// The effect of a command on the entries of the subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
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
            // write, truncate, chmod; update_extent, fallocate, fileattr, encoded_write,
            // enable_verity
            15 | 17 | 18 | 22..=26 => Self::ChangeFile,
            16 => Self::Clone,
            _ => return None,
        })
    }
}

/// A command without its content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command<'a> {
    pub(super) effect: Effect,
    /// Its path.
    pub(super) path: &'a [u8],
    /// The new path of a renamed entry.
    pub(super) path_to: &'a [u8],
    /// The existing path of a hard link, or the target of a symbolic one.
    pub(super) path_link: &'a [u8],
    /// The subvolume that content is copied from.
    pub(super) clone_uuid: Option<Uuid>,
    /// The file that content is copied from.
    pub(super) clone_path: &'a [u8],
}

impl<'a> Command<'a> {
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
        let mut command = Self {
            effect: effect.ok_or(StreamError::Damaged("it has an unknown command"))?,
            path: b"",
            path_to: b"",
            path_link: b"",
            clone_uuid: None,
            clone_path: b"",
        };
        let mut seen = 0_u64;
        let mut at = 0;
        while at < length {
            let Some(head) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
                return more_or_damaged(bytes.len() < length);
            };
            let attribute = u16::from_le_bytes(*head);
            // The content has no length from version 2 on: it is the rest.
            if attribute == ATTRIBUTE_DATA && version > 1 {
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
    /// Those of [`Command::parse`].
    pub(super) fn parse_whole(
        kind: u16,
        version: u32,
        bytes: &'a [u8],
    ) -> Result<Self, StreamError> {
        Self::parse(kind, bytes.len(), version, bytes)?.ok_or(DAMAGED)
    }

    fn set(&mut self, attribute: u16, value: &'a [u8]) {
        match attribute {
            ATTRIBUTE_PATH => self.path = value,
            ATTRIBUTE_PATH_TO => self.path_to = value,
            ATTRIBUTE_PATH_LINK => self.path_link = value,
            ATTRIBUTE_PARENT => self.clone_uuid = Uuid::from_slice(value).ok(),
            ATTRIBUTE_CLONE_PATH => self.clone_path = value,
            _ => {}
        }
    }
}

/// Returns that more bytes of a command are required, or that it is damaged.
fn more_or_damaged<T>(has_more: bool) -> Result<Option<T>, StreamError> {
    if has_more { Ok(None) } else { Err(DAMAGED) }
}
