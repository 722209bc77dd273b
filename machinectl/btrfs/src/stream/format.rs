//! The format of `btrfs send` streams, as far as their frames.

use std::fmt;
use std::io;

use config::text::printable;

use crate::compression::Compression;
use crate::{Refusal, RefusalKind, Uuid};

pub(super) const MAGIC: &[u8] = b"btrfs-stream\0";
/// The length of the magic and the version.
pub const START_LENGTH: usize = 17;
/// The length of a command's frame: its length, its kind and its checksum.
pub const FRAME_LENGTH: usize = 10;
/// The maximum length of the first command, which has a name and two UUIDs.
pub(super) const FIRST_COMMAND_MAX: usize = 8 * 1024;
/// The maximum length of a command; senders make shorter ones.
pub(super) const COMMAND_MAX: u32 = 16 << 20;

pub(super) const SUBVOLUME: u16 = 1;
pub(super) const SNAPSHOT: u16 = 2;
pub(super) const END: u16 = 21;

pub(super) const ATTRIBUTE_UUID: u16 = 1;
pub(super) const ATTRIBUTE_TRANSACTION: u16 = 2;
pub(super) const ATTRIBUTE_PATH: u16 = 15;
pub(super) const ATTRIBUTE_PARENT: u16 = 20;
pub(super) const ATTRIBUTE_PARENT_TRANSACTION: u16 = 21;

/// The first command of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name of the subvolume that a receiver creates.
    pub name: String,
    /// The UUID that the receiver stores as the received UUID.
    pub uuid: Uuid,
    /// The sender's transaction.
    pub transaction: u64,
    /// The parent of an incremental stream; `None` for a full one.
    pub parent: Option<Parent>,
}

/// The parent of an incremental stream, in the state that the sender has it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The UUID that the parent was received with, or else its own.
    pub uuid: Uuid,
    /// The transaction of the parent's last change at the sender.
    pub transaction: u64,
}

/// A reason why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// The path is absolute, has `..`, or is no path at all.
    Path,
    /// The path leads through a symbolic link.
    ThroughLink,
    /// The content comes from a subvolume that is neither the stream's own nor its parent.
    CloneSource,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "is not a path inside its subvolume",
            Self::ThroughLink => "leads through a symbolic link",
            Self::CloneSource => "is in neither its subvolume nor its parent",
        })
    }
}

/// A reason why a stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// There is no content.
    #[error("the stream is empty; check the sender")]
    Empty,
    /// The content is not a stream.
    #[error("the input is no `btrfs send` stream{}", hint(*.0))]
    Foreign(Option<Compression>),
    /// The stream is cut.
    #[error("the stream ends too early, after {0} bytes; send it again")]
    Truncated(u64),
    /// The stream has an impossible command.
    #[error("the stream is damaged: {0}; send it again")]
    Damaged(&'static str),
    /// A command reaches outside the stream's subvolume.
    #[error(
        "the stream is refused: `{}` {violation}; do not trust its sender",
        printable(path)
    )]
    Outside {
        /// The path that the command names.
        path: String,
        /// The rule that it breaks.
        violation: Violation,
    },
    /// The parent of the stream cannot be read.
    #[error("cannot read the parent of the stream")]
    Parent(#[source] io::Error),
    /// The stream cannot be read.
    #[error("cannot read the stream")]
    Read(#[source] io::Error),
    /// The stream cannot be written to its destination.
    #[error("cannot write the stream")]
    Write(#[source] io::Error),
}

impl StreamError {
    pub(super) fn outside(path: &[u8], violation: Violation) -> Self {
        Self::Outside {
            path: String::from_utf8_lossy(path).into_owned(),
            violation,
        }
    }
}

impl Refusal for StreamError {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Write(error) if sys::error_report::is_full(error.kind()) => RefusalKind::Full,
            Self::Write(_) => RefusalKind::Invalid,
            _ => RefusalKind::BadStream,
        }
    }
}

fn hint(compression: Option<Compression>) -> String {
    compression.map_or_else(String::new, |program| {
        format!("; it is compressed: put `{program} -dc` before it")
    })
}

/// Returns the length and the kind of a command.
pub fn parse_frame(bytes: &[u8; FRAME_LENGTH]) -> (u32, u16) {
    let [a, b, c, d, low, high, ..] = *bytes;
    (
        u32::from_le_bytes([a, b, c, d]),
        u16::from_le_bytes([low, high]),
    )
}

/// Parses the first command.
pub(super) fn parse_header(kind: u16, mut bytes: &[u8]) -> Result<Header, StreamError> {
    if kind != SUBVOLUME && kind != SNAPSHOT {
        return Err(StreamError::Damaged("it does not begin with a subvolume"));
    }
    let (mut name, mut uuid, mut transaction) = (None, None, None);
    let (mut parent, mut parent_transaction) = (None, None);
    while let Some((attribute, value, rest)) = attribute(bytes) {
        match attribute {
            ATTRIBUTE_PATH => name = String::from_utf8(value.to_owned()).ok(),
            ATTRIBUTE_UUID => uuid = Uuid::from_slice(value).ok(),
            ATTRIBUTE_TRANSACTION => transaction = number(value),
            ATTRIBUTE_PARENT => parent = Uuid::from_slice(value).ok(),
            ATTRIBUTE_PARENT_TRANSACTION => parent_transaction = number(value),
            _ => {}
        }
        bytes = rest;
    }
    let parent = parent
        .zip(parent_transaction)
        .map(|(uuid, transaction)| Parent { uuid, transaction });
    let is_whole = bytes.is_empty() && (kind == SNAPSHOT) == parent.is_some();
    match (name, uuid, transaction) {
        (Some(name), Some(uuid), Some(transaction)) if is_whole => Ok(Header {
            name,
            uuid,
            transaction,
            parent,
        }),
        _ => Err(StreamError::Damaged("its first command cannot be parsed")),
    }
}

/// Returns the start of a stream with the rest of the commands of another one: it creates the same
/// subvolume, as a snapshot of `base`, which was last changed in a transaction.
pub(super) fn start_on(version: u32, header: &Header, base: Parent) -> Vec<u8> {
    let attributes: [(u16, &[u8]); 5] = [
        (ATTRIBUTE_PATH, header.name.as_bytes()),
        (ATTRIBUTE_UUID, header.uuid.as_bytes()),
        (ATTRIBUTE_TRANSACTION, &header.transaction.to_le_bytes()),
        (ATTRIBUTE_PARENT, base.uuid.as_bytes()),
        (
            ATTRIBUTE_PARENT_TRANSACTION,
            &base.transaction.to_le_bytes(),
        ),
    ];
    let mut body = Vec::new();
    for (attribute, value) in attributes {
        body.extend(attribute.to_le_bytes());
        // A header has at most FIRST_COMMAND_MAX bytes.
        body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        body.extend(value);
    }
    let snapshot = command(SNAPSHOT, &body);
    [MAGIC, &version.to_le_bytes(), &snapshot].concat()
}

/// Returns the command that ends a stream.
pub(super) fn end() -> Vec<u8> {
    command(END, b"")
}

/// Returns a command with its frame.
fn command(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let frame = |checksum: u32| {
        let (length, kind) = (length.to_le_bytes(), kind.to_le_bytes());
        [&length[..], &kind, &checksum.to_le_bytes()].concat()
    };
    let checksum = checksum(&[&frame(0)[..], body].concat());
    [&frame(checksum)[..], body].concat()
}

/// Returns the checksum of a command: CRC-32C with an initial value of 0, without a final
/// inversion.
fn checksum(command: &[u8]) -> u32 {
    command.iter().fold(0, |checksum, byte| {
        (0..8).fold(checksum ^ u32::from(*byte), |checksum, _| {
            (checksum >> 1) ^ if checksum & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

fn number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

/// Returns the first attribute of a command, its value, and the rest of the command.
pub fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (kind, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    Some((u16::from_le_bytes(*kind), value, rest))
}
