//! A stream whose peer must send and read in time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The time limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// The limit until the first byte of the peer.
    pub first_byte: Duration,
    /// The limit without a byte in either direction; `None` if the protocol has its own.
    pub idle: Option<Duration>,
    /// The limit in which a peer must make room for more bytes.
    pub write: Duration,
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] if its peer misses a deadline.
#[derive(Debug)]
pub struct TimedStream<S> {
    stream: S,
    deadlines: Deadlines,
    /// True after the first byte of the peer.
    has_begun: bool,
    last_activity: Instant,
    /// Wakes the reader when a deadline may be missed. It is set again only then, because setting
    /// it for every byte would be costly.
    read_timer: Option<Pin<Box<Sleep>>>,
    /// Exists while a write waits for the peer.
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedStream<S> {
    /// Wraps a stream. The time until the first byte begins now.
    pub fn new(stream: S, deadlines: Deadlines) -> Self {
        Self {
            stream,
            deadlines,
            has_begun: false,
            last_activity: Instant::now(),
            read_timer: None,
            write_timer: None,
        }
    }

    /// Applies the limits after the first byte, which the peer has sent already.
    #[must_use]
    pub(super) fn begun(mut self) -> Self {
        self.has_begun = true;
        self
    }

    /// Returns ready if the peer has not sent in time.
    fn poll_read_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let limit = if self.has_begun {
                self.deadlines.idle
            } else {
                Some(self.deadlines.first_byte)
            };
            let Some(limit) = limit else {
                return Poll::Pending;
            };
            let deadline = self.last_activity + limit;
            let timer = self
                .read_timer
                .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            // The limit until the first byte may be the longer one.
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// Applies the time limit to a write.
    fn limit_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timer = None;
            self.last_activity = Instant::now();
            return written;
        }
        let limit = self.deadlines.write;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.has_begun = true;
            self.last_activity = Instant::now();
            return read;
        }
        self.poll_read_deadline(context).map(Err)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limit_write(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.limit_write(context, ended)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.limit_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const DEADLINES: Deadlines = Deadlines {
        first_byte: Duration::from_millis(50),
        idle: Some(Duration::from_millis(100)),
        write: Duration::from_millis(50),
    };

    fn pair() -> (DuplexStream, TimedStream<DuplexStream>) {
        let (peer, stream) = duplex(16);
        (peer, TimedStream::new(stream, DEADLINES))
    }

    #[tokio::test]
    async fn a_peer_that_sends_nothing_or_stops_sending_times_out() {
        let (_peer, mut stream) = pair();
        let start = Instant::now();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= DEADLINES.first_byte);
        let (mut peer, mut stream) = pair();
        peer.write_u8(1).await.unwrap();
        stream.read_u8().await.unwrap();
        let start = Instant::now();
        assert!(stream.read_u8().await.is_err());
        assert!(start.elapsed() >= DEADLINES.idle.unwrap());
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_times_out_and_one_that_reads_does_not() {
        let (_peer, mut stream) = pair();
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (mut peer, mut stream) = pair();
        let reading = tokio::spawn(async move {
            let mut all = vec![0; 1024];
            peer.read_exact(&mut all).await
        });
        stream.write_all(&[0; 1024]).await.unwrap();
        reading.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_idle_limit_replaces_a_longer_one_until_the_first_byte() {
        let (mut peer, stream) = duplex(16);
        let deadlines = Deadlines {
            first_byte: Duration::from_hours(1),
            ..DEADLINES
        };
        let mut stream = TimedStream::new(stream, deadlines);
        let (first, sent) = tokio::join!(stream.read_u8(), async {
            tokio::task::yield_now().await;
            peer.write_u8(1).await
        });
        assert!(first.is_ok() && sent.is_ok());
        let error = tokio::time::timeout(Duration::from_mins(1), stream.read_u8()).await;
        assert_eq!(error.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn without_an_idle_limit_a_peer_may_be_quiet() {
        let (mut peer, stream) = duplex(16);
        let deadlines = Deadlines {
            idle: None,
            ..DEADLINES
        };
        let mut stream = TimedStream::new(stream, deadlines);
        peer.write_u8(1).await.unwrap();
        stream.read_u8().await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(300), stream.read_u8()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}
