//! A TCP stream that is registered for events only if its peer keeps it waiting.
//!
//! Most connections of BitBake's clients are one request. On a busy server, its bytes are there when
//! the connection is accepted, and its end is there after the reply. Without a registration and its
//! timers, such a connection costs five system calls: it is accepted, read, written, read and closed.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream as Socket};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::timed_stream::{Deadlines, TimedStream};

/// A stream over a socket that does not block.
#[derive(Debug)]
pub struct LazyStream {
    deadlines: Deadlines,
    state: State,
}

#[derive(Debug)]
enum State {
    Unregistered {
        socket: Socket,
        /// True after the first byte of the peer.
        has_begun: bool,
    },
    Registered(TimedStream<TcpStream>),
    /// The registration has failed.
    Failed,
}

impl LazyStream {
    /// Wraps a socket, which must be in non-blocking mode. The deadlines begin when the stream is
    /// registered.
    pub fn new(socket: Socket, deadlines: Deadlines) -> Self {
        let state = State::Unregistered {
            socket,
            has_begun: false,
        };
        Self { deadlines, state }
    }

    /// Returns the registered stream.
    fn registered(&mut self) -> io::Result<Pin<&mut TimedStream<TcpStream>>> {
        if let State::Unregistered { .. } = self.state
            && let State::Unregistered { socket, has_begun } =
                std::mem::replace(&mut self.state, State::Failed)
        {
            let stream = TimedStream::new(TcpStream::from_std(socket)?, self.deadlines);
            self.state = State::Registered(if has_begun { stream.begun() } else { stream });
        }
        match &mut self.state {
            State::Registered(stream) => Ok(Pin::new(stream)),
            State::Unregistered { .. } | State::Failed => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Writes without waiting. Returns `None` if the stream must be registered for it.
    fn write_now(
        &mut self,
        write: impl FnOnce(&mut Socket) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let State::Unregistered { socket, .. } = &mut self.state else {
            return None;
        };
        match write(socket) {
            Err(error) if is_temporary(&error) => None,
            written => Some(written),
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl AsyncRead for LazyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let State::Unregistered { socket, has_begun } = &mut self.state {
            match socket.read(buffer.initialize_unfilled()) {
                Ok(bytes) => {
                    buffer.advance(bytes);
                    *has_begun = true;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if !is_temporary(&error) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
        self.registered()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for LazyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.write_now(|socket| socket.write(bytes)) {
            Some(written) => Poll::Ready(written),
            None => self.registered()?.poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.write_now(|socket| socket.write_vectored(buffers)) {
            Some(written) => Poll::Ready(written),
            None => self.registered()?.poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // sockets have no buffer of their own
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Unregistered { socket, .. } => Poll::Ready(socket.shutdown(Shutdown::Write)),
            State::Registered(stream) => Pin::new(stream).poll_shutdown(context),
            State::Failed => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const DEADLINES: Deadlines = Deadlines {
        first_byte: Duration::from_millis(200),
        idle: Some(Duration::from_millis(100)),
        write: Duration::from_millis(100),
    };

    fn pair() -> (Socket, LazyStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Socket::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (peer, LazyStream::new(socket, DEADLINES))
    }

    fn is_registered(stream: &LazyStream) -> bool {
        matches!(stream.state, State::Registered(_))
    }

    #[tokio::test]
    async fn a_request_that_is_there_is_answered_without_a_registration() {
        let (mut peer, mut stream) = pair();
        peer.write_all(b"ping").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(stream.read(&mut bytes).await.unwrap(), 4);
        stream.write_all(b"pong").await.unwrap();
        peer.read_exact(&mut bytes[..4]).unwrap();
        drop(peer);
        assert_eq!(stream.read(&mut bytes).await.unwrap(), 0);
        assert!(!is_registered(&stream));
    }

    #[tokio::test]
    async fn a_peer_that_sends_later_is_waited_for() {
        let (mut peer, mut stream) = pair();
        let mut bytes = [0; 8];
        let sending = async {
            tokio::task::yield_now().await;
            peer.write_all(b"ping").unwrap();
        };
        let (read, ()) = tokio::join!(stream.read(&mut bytes), sending);
        assert_eq!(read.unwrap(), 4);
        assert!(is_registered(&stream));
        stream.write_all(b"pong").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut reply = String::new();
        peer.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "pong");
    }

    #[tokio::test]
    async fn a_peer_that_sends_nothing_or_stops_sending_times_out() {
        let (_peer, mut stream) = pair();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let (mut peer, mut stream) = pair();
        stream.deadlines.first_byte = Duration::from_hours(1);
        peer.write_all(b"x").unwrap();
        stream.read_u8().await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_times_out() {
        let (_peer, mut stream) = pair();
        let bytes = vec![0; 64 * 1024 * 1024];
        let error = stream.write_all(&bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
