//! Streams together with the processes that send them.

use store::send::FarSide;
use store::stream::Stream;
use store::stream::input::{Patient, Sender};
use store::{RefusalKind, StoreError};
use sys::command::Running;

/// The process that sends a stream.
pub(super) enum StreamSender<'a> {
    /// None: the stream comes from a file, or from a pipe that somebody else fills.
    Unknown,
    /// `btrfs send` on this host.
    Local(Sender),
    /// The program on a remote host.
    Remote(&'a FarSide, Running),
}

impl StreamSender<'_> {
    fn finish(self) -> Result<(), StoreError> {
        match self {
            Self::Unknown => Ok(()),
            Self::Local(sender) => Ok(sender.finish()?),
            Self::Remote(host, running) => host.sent(running),
        }
    }
}

/// A stream whose header is read, and its sender.
///
/// A sender that fails cuts its stream. Its error is the cause then, so it replaces the error
/// about the stream.
pub(super) struct SentStream<'a> {
    stream: Stream<Patient>,
    sender: StreamSender<'a>,
}

impl<'a> SentStream<'a> {
    /// Reads the header of a stream.
    pub(super) fn open(input: Patient, sender: StreamSender<'a>) -> Result<Self, StoreError> {
        match Stream::open(input) {
            Ok(stream) => Ok(Self { stream, sender }),
            Err(error) => {
                sender.finish()?;
                Err(error.into())
            }
        }
    }

    /// Returns true if the stream builds on a revision that the receiver has.
    pub(super) fn is_incremental(&self) -> bool {
        self.stream.header().parent.is_some()
    }

    /// Passes the stream to its consumer.
    pub(super) fn consume<T>(
        self,
        consumer: impl FnOnce(Stream<Patient>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match consumer(self.stream) {
            Err(error) if error.kind() == Some(RefusalKind::BadStream) => {
                self.sender.finish()?;
                Err(error)
            }
            result => result,
        }
    }
}
