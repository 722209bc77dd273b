//! Limits and deadlines of a listener, and the loop that accepts its connections. The agent's HTTP
//! server uses the same loop.
//!
//! No peer can lock out others: it has a share of the places, must send its first bytes and read
//! its replies in time, and no connection from the network takes the last descriptors of the
//! process.

mod lazy_stream;

mod places;

mod timed_stream;

use std::error::Error;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::pin;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use lazy_stream::LazyStream;
pub use places::{PeerKey, Place, Places};
pub use timed_stream::{Deadlines, TimedStream};

/// The pause after a failed accept, for example because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The interval of messages about connections that cannot be accepted.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The descriptors that connections from the network leave to the rest of the process.
const RESERVED_DESCRIPTORS: u64 = 128;

/// A listening socket.
pub trait Listener: Send {
    /// An accepted connection.
    type Connection: Send + 'static;

    /// Accepts a connection. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<Accepted<Self::Connection>>> + Send;
}

impl Listener for TcpListener {
    type Connection = TcpStream;

    async fn accept(&self) -> io::Result<Accepted<TcpStream>> {
        let (stream, address) = Self::accept(self).await?;
        Ok(Accepted {
            peer: PeerKey::of_address(address.ip()),
            descriptor: Some(stream.as_raw_fd()),
            connection: stream,
        })
    }
}

/// An accepted connection and its peer.
#[derive(Debug)]
pub struct Accepted<C> {
    /// The connection.
    pub connection: C,
    /// The peer.
    pub peer: PeerKey,
    /// The descriptor of a connection that must not take reserved descriptors; `None` for the
    /// administration socket.
    pub descriptor: Option<RawFd>,
}

/// Accepts connections until `stop` completes, and serves each that gets a place. Then returns when
/// all connections have ended, and after `grace` at the latest, which closes the others. The limit
/// of descriptors is that at the beginning.
pub async fn serve<L: Listener, S: Future<Output = ()> + Send + 'static>(
    listener: L,
    places: &Places,
    stop: impl Future<Output = ()>,
    grace: Duration,
    serve: impl Fn(L::Connection) -> S,
) {
    let mut connections = JoinSet::new();
    let mut warnings = Throttle::default();
    let descriptors_max = descriptors_max();
    let mut stop = pin!(stop);
    loop {
        let admitted = tokio::select! {
            () = &mut stop => break,
            admitted = admit(&listener, places, descriptors_max) => admitted,
        };
        match admitted {
            Ok((connection, place)) => {
                let served = serve(connection);
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                warnings.warn(&error);
                if let AdmitError::Accept(_) = error {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        while let Some(ended) = connections.try_join_next() {
            log_panic(ended);
        }
    }
    drop(listener);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if tokio::time::timeout(grace, all_ended).await.is_err() {
        let connections = connections.len();
        tracing::info!(connections, "closing connections that did not end in time");
    }
}

/// The reason for which a connection is not served.
#[derive(Debug, thiserror::Error)]
enum AdmitError {
    #[error("accept failed")]
    Accept(#[from] io::Error),
    #[error("too many connections of one peer: {0:?}")]
    PeerHasItsShare(PeerKey),
    #[error("the process has too few descriptors left")]
    FewDescriptors,
}

/// Accepts a connection, and closes it if it may not be served.
async fn admit<L: Listener>(
    listener: &L,
    places: &Places,
    descriptors_max: u64,
) -> Result<(L::Connection, Place), AdmitError> {
    let Accepted {
        connection,
        peer,
        descriptor,
    } = listener.accept().await?;
    if descriptor.is_some_and(|descriptor| takes_reserve(descriptor, descriptors_max)) {
        return Err(AdmitError::FewDescriptors);
    }
    match places.take(peer).await {
        Some(place) => Ok((connection, place)),
        None => Err(AdmitError::PeerHasItsShare(peer)),
    }
}

/// Returns true for a descriptor in the reserve. Linux assigns the lowest free number, so all lower
/// ones are in use.
fn takes_reserve(descriptor: RawFd, limit: u64) -> bool {
    let reserve = RESERVED_DESCRIPTORS.min(limit / 4);
    u64::try_from(descriptor).is_ok_and(|number| number >= limit - reserve)
}

fn descriptors_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Raises the limit of descriptors as far as this process may.
pub fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        let error = &error as &dyn Error;
        tracing::error!(error, "the task of a connection failed");
    }
}

/// Warnings, of which a peer can cause any number.
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    fn warn(&mut self, error: &(dyn Error + 'static)) {
        if self.last.is_some_and(|last| last.elapsed() < WARN_INTERVAL) {
            self.suppressed += 1;
            return;
        }
        let suppressed = std::mem::take(&mut self.suppressed);
        self.last = Some(Instant::now());
        tracing::warn!(error, suppressed, "cannot accept a connection");
    }
}

/// Sets socket options on a listener. Linux lets accepted sockets inherit them, which saves six
/// system calls per connection.
///
/// # Errors
/// The socket does not support an option.
pub fn prepare(listener: &TcpListener, unread_max: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    // A reply is one small packet, so pacing (BBR) only costs a timer each. Every kernel has Reno,
    // but a host may forbid the choice; then the host's default stays in effect.
    let _ = socket.set_tcp_congestion(b"reno");
    socket.set_tcp_user_timeout(Some(unread_max))?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_part_of_the_descriptors() {
        for (descriptor, limit, expected) in [
            (100, 1024, false),
            (895, 1024, false),
            (896, 1024, true),
            (1023, 1024, true),
            (47, 64, false),
            (48, 64, true),
            (i32::MAX, u64::MAX, false),
        ] {
            assert_eq!(takes_reserve(descriptor, limit), expected, "{descriptor}");
        }
    }

    #[test]
    fn repeated_warnings_are_counted_instead_of_logged() {
        let mut warnings = Throttle::default();
        for _ in 0..5 {
            warnings.warn(&AdmitError::FewDescriptors);
        }
        assert_eq!(warnings.suppressed, 4);
    }
}
