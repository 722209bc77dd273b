//! The frames of a command's connection: a byte for the kind, four bytes for the length of the
//! content, big-endian, and the content.

use super::{Command, CommandEnd};

/// The largest content of a frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;
/// The largest piece of input or output in one frame that our programs send, in bytes.
pub const DATA_BYTES_MAX: usize = 32 * 1024;
/// The size of a frame's head.
const HEAD: usize = 5;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The command to start.
    Start(Box<Command>),
    /// The request to end all commands and to report the result.
    Stop,
    /// The answer to [`Frame::Stop`].
    Stopped,
    /// A piece of the command's input.
    Stdin(Vec<u8>),
    /// The end of its input.
    StdinEnd,
    /// The number of bytes of its input that the command has taken since the last such frame.
    Taken(u32),
    /// A piece of its output.
    Stdout(Vec<u8>),
    /// A piece of its error output.
    Stderr(Vec<u8>),
    /// Its end; nothing follows.
    Ended(CommandEnd),
}

/// The kinds of frames on the wire.
mod kind {
    pub(super) const START: u8 = b'S';
    pub(super) const STOP: u8 = b'Q';
    pub(super) const STOPPED: u8 = b'q';
    pub(super) const STDIN: u8 = b'i';
    pub(super) const STDIN_END: u8 = b'e';
    pub(super) const TAKEN: u8 = b't';
    pub(super) const STDOUT: u8 = b'1';
    pub(super) const STDERR: u8 = b'2';
    pub(super) const ENDED: u8 = b'x';
}

/// A violation of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind is unknown.
    #[error("a frame has the unknown kind {0}")]
    Kind(u8),
    /// The content is too long.
    #[error("a frame has {0} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    TooLong(u32),
    /// The content does not fit the kind.
    #[error("a frame of the kind `{0}` has invalid content")]
    Content(char),
}

impl Frame {
    /// Appends the bytes of the frame. Content beyond [`FRAME_BYTES_MAX`] would not be accepted.
    pub fn encode(&self, to: &mut Vec<u8>) {
        match self {
            // Both types have only texts and numbers, which always are JSON.
            Self::Start(command) => {
                put(
                    to,
                    kind::START,
                    &serde_json::to_vec(command).unwrap_or_default(),
                );
            }
            Self::Ended(end) => {
                put(
                    to,
                    kind::ENDED,
                    &serde_json::to_vec(end).unwrap_or_default(),
                );
            }
            Self::Stop => put(to, kind::STOP, &[]),
            Self::Stopped => put(to, kind::STOPPED, &[]),
            Self::Stdin(bytes) => put(to, kind::STDIN, bytes),
            Self::StdinEnd => put(to, kind::STDIN_END, &[]),
            Self::Taken(count) => put(to, kind::TAKEN, &count.to_be_bytes()),
            Self::Stdout(bytes) => put(to, kind::STDOUT, bytes),
            Self::Stderr(bytes) => put(to, kind::STDERR, bytes),
        }
    }

    /// Returns the bytes of the frame.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }

    fn decode(kind: u8, content: &[u8]) -> Result<Self, FrameError> {
        let invalid = || FrameError::Content(char::from(kind));
        let empty = |frame: Self| {
            if content.is_empty() {
                Ok(frame)
            } else {
                Err(invalid())
            }
        };
        match kind {
            kind::START => {
                let command = serde_json::from_slice(content).map_err(|_| invalid())?;
                Ok(Self::Start(Box::new(command)))
            }
            kind::ENDED => {
                let end = serde_json::from_slice(content).map_err(|_| invalid())?;
                Ok(Self::Ended(end))
            }
            kind::TAKEN => {
                let count = content.try_into().map_err(|_| invalid())?;
                Ok(Self::Taken(u32::from_be_bytes(count)))
            }
            kind::STOP => empty(Self::Stop),
            kind::STOPPED => empty(Self::Stopped),
            kind::STDIN_END => empty(Self::StdinEnd),
            kind::STDIN => Ok(Self::Stdin(content.to_vec())),
            kind::STDOUT => Ok(Self::Stdout(content.to_vec())),
            kind::STDERR => Ok(Self::Stderr(content.to_vec())),
            unknown => Err(FrameError::Kind(unknown)),
        }
    }
}

fn put(to: &mut Vec<u8>, kind: u8, content: &[u8]) {
    to.push(kind);
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(content);
}

/// A decoder of a stream of frames. It holds at most one frame and what was received with its end.
#[derive(Debug, Default)]
pub struct Decoder {
    received: Vec<u8>,
}

impl Decoder {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Returns the next complete frame; `None` if more bytes are needed.
    ///
    /// # Errors
    /// The stream breaks the protocol. Nothing after that can be decoded.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((head, rest)) = self.received.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = *head;
        let length = u32::from_be_bytes(length);
        let count = usize::try_from(length).unwrap_or(usize::MAX);
        if count > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(content) = rest.get(..count) else {
            return Ok(None);
        };
        let frame = Frame::decode(kind, content)?;
        self.received.drain(..HEAD + count);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::EnvironmentName;
    use super::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..200);
        let command = (
            prop::collection::vec(any::<String>(), 0..4),
            prop::collection::btree_map(any::<String>().prop_map(EnvironmentName), ".*", 0..3),
            prop::option::of(".*"),
            any::<bool>(),
        );
        prop_oneof![
            command.prop_map(
                |(command, env, cwd, unlogged)| Frame::Start(Box::new(Command {
                    command,
                    env,
                    user: cwd.clone(),
                    cwd,
                    unlogged,
                }))
            ),
            bytes().prop_map(Frame::Stdin),
            bytes().prop_map(Frame::Stdout),
            bytes().prop_map(Frame::Stderr),
            any::<u32>().prop_map(Frame::Taken),
            any::<u8>().prop_map(|code| Frame::Ended(CommandEnd::Exited(code))),
            any::<u8>().prop_map(|signal| Frame::Ended(CommandEnd::Signal(signal))),
            Just(Frame::Ended(CommandEnd::Lost)),
            Just(Frame::Stop),
            Just(Frame::Stopped),
            Just(Frame::StdinEnd),
        ]
    }

    proptest! {
        #[test]
        fn every_sequence_of_frames_is_the_same_after_any_pieces(
            frames in prop::collection::vec(any_frame(), 0..6), piece in 1_usize..50
        ) {
            let mut bytes = Vec::new();
            for frame in &frames {
                frame.encode(&mut bytes);
            }
            let (mut decoder, mut decoded) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    decoded.push(frame);
                }
            }
            prop_assert_eq!(decoded, frames);
            prop_assert!(decoder.received.is_empty());
        }

        #[test]
        fn arbitrary_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            let before = bytes.len();
            let mut count = 0;
            while let Ok(Some(_)) = decoder.next_frame() {
                count += 1;
                prop_assert!(count <= before);
            }
        }
    }

    #[test]
    fn a_length_is_refused_before_its_content_arrives() {
        let mut decoder = Decoder::default();
        decoder.push(&[b'1', 0, 2, 0, 1]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(0x0002_0001)));
        let mut decoder = Decoder::default();
        decoder.push(&[b'?', 0, 0, 0, 0]);
        assert_eq!(decoder.next_frame(), Err(FrameError::Kind(b'?')));
        let mut decoder = Decoder::default();
        decoder.push(&[b'e', 0, 0, 0, 1, 0]);
        assert_eq!(decoder.next_frame(), Err(FrameError::Content('e')));
    }
}
