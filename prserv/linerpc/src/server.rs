//! The accept loop of a service: endpoints on sockets, within limits.

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use sys::observer::Observer;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::io::InspectReader;

use crate::connection;
use crate::listener::{
    self, Accepted, Deadlines, LazyStream, Listener, PeerKey, Places, TimedStream,
};
use crate::session::Endpoint;
use crate::sockets::Socket;

/// The flags of accepted sockets.
const ACCEPT_FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// The time that connections have to end after a shutdown has begun.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// The limits of a server's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of connections; further ones wait.
    pub connections_max: usize,
    /// The largest number of connections of one peer; further ones are closed.
    pub connections_per_peer_max: usize,
    /// The time limits of each connection.
    pub deadlines: Deadlines,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_peer_max: 512,
            deadlines: Deadlines {
                first_byte: Duration::from_secs(30),
                idle: Some(Duration::from_hours(1)),
                write: Duration::from_secs(30),
            },
        }
    }
}

impl Limits {
    /// Returns the limits of a server whose connections all have one peer.
    pub fn of_one_peer(connections_max: usize) -> Self {
        Self {
            connections_max,
            connections_per_peer_max: connections_max,
            ..Self::default()
        }
    }

    /// Returns the places of a server with these limits.
    pub fn places(&self) -> Places {
        Places::new(self.connections_max, self.connections_per_peer_max)
    }
}

/// The listening socket of a server. Unlike tokio's, it accepts connections that are not registered
/// for events.
struct TcpSocket(AsyncFd<std::net::TcpListener>);

impl TcpSocket {
    #[expect(unsafe_code, reason = "tokio has no safe function for it")]
    fn new(listener: TcpListener) -> io::Result<Self> {
        let listener = listener.into_std()?;
        // SAFETY: A listener of the standard library owns its descriptor and never exchanges it.
        let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
        Ok(Self(listener?))
    }
}

impl Listener for TcpSocket {
    type Connection = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<Accepted<Self::Connection>> {
        let accept = |listener: &std::net::TcpListener| {
            let (socket, address) = acceptfrom_with(listener, ACCEPT_FLAGS)?;
            let address = address.ok_or(Errno::AFNOSUPPORT)?;
            Ok((TcpStream::from(socket), SocketAddr::try_from(address)?))
        };
        let (stream, address) = self.0.async_io(Interest::READABLE, accept).await?;
        Ok(Accepted {
            peer: PeerKey::of_address(address.ip()),
            descriptor: Some(stream.as_raw_fd()),
            connection: (stream, address),
        })
    }
}

/// The connections of a server: their limits, and the observer and the name of their peers. Clones
/// share the places.
#[derive(Debug, Clone)]
pub struct Connections {
    limits: Limits,
    places: Places,
    observer: Observer,
    peer_name: Option<Arc<str>>,
}

impl Default for Connections {
    /// Returns connections with the default limits. Peers are known by their addresses.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            places: Limits::default().places(),
            observer: Observer::default(),
            peer_name: None,
        }
    }
}

impl Connections {
    /// Sets the limits, with places of their own.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.places = limits.places();
    }

    /// Sets the observer that learns when peers send something.
    pub fn set_observer(&mut self, observer: Observer) {
        self.observer = observer;
    }

    /// Sets the name of all peers, for example the guest on whose network the listener is.
    pub fn set_peer_name(&mut self, name: Arc<str>) {
        self.peer_name = Some(name);
    }

    /// Returns the name of a peer.
    pub fn peer_name(&self, address: &dyn Display) -> Arc<str> {
        match &self.peer_name {
            Some(name) => Arc::clone(name),
            None => address.to_string().into(),
        }
    }

    /// Serves all connections until `shutdown` completes. Then tells every connection to end and
    /// returns when all have ended, within a second. `endpoint` gets the address and the name of a
    /// peer.
    ///
    /// Dropping the future closes the listener and all connections immediately.
    ///
    /// # Errors
    /// The socket options cannot be set.
    pub async fn serve_tcp<E: Endpoint>(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
        endpoint: impl Fn(Option<SocketAddr>, Arc<str>) -> E,
    ) -> io::Result<()> {
        let deadlines = self.limits.deadlines;
        listener::prepare(&listener, deadlines.write)?;
        let (stopping, stop) = stop_after(shutdown);
        let serve = |(stream, address)| {
            let observer = self.observer.clone();
            let stream = LazyStream::new(stream, deadlines);
            let stream = InspectReader::new(stream, move |_: &[u8]| observer.observe());
            let endpoint = endpoint(Some(address), self.peer_name(&address));
            connection::serve(endpoint, stream, stop.clone())
        };
        let listener = TcpSocket::new(listener)?;
        listener::serve(listener, &self.places, stopping, SHUTDOWN_GRACE, serve).await;
        Ok(())
    }

    /// Serves all connections to a socket as [`Connections::serve_tcp`] does. The peers of one in the
    /// file system have no address, and are known by the numbers of their users.
    ///
    /// # Errors
    /// The socket options cannot be set.
    pub async fn serve_socket<E: Endpoint>(
        &self,
        socket: Socket,
        shutdown: impl Future<Output = ()>,
        endpoint: impl Fn(Option<SocketAddr>, Arc<str>) -> E,
    ) -> io::Result<()> {
        match socket {
            Socket::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                self.serve_tcp(listener, shutdown, endpoint).await
            }
            Socket::Unix(listener, _) => {
                let listener = UnixListener::from_std(listener)?;
                self.serve_unix(listener, shutdown, endpoint).await;
                Ok(())
            }
        }
    }

    /// Serves all connections to a socket in the file system as [`Connections::serve_tcp`] does.
    async fn serve_unix<E: Endpoint>(
        &self,
        listener: UnixListener,
        shutdown: impl Future<Output = ()>,
        endpoint: impl Fn(Option<SocketAddr>, Arc<str>) -> E,
    ) {
        let (stopping, stop) = stop_after(shutdown);
        let serve = |(stream, user): (_, u32)| {
            let observer = self.observer.clone();
            let stream = TimedStream::new(stream, self.limits.deadlines);
            let stream = InspectReader::new(stream, move |_: &[u8]| observer.observe());
            let endpoint = endpoint(None, self.peer_name(&format_args!("user {user}")));
            connection::serve(endpoint, stream, stop.clone())
        };
        let listener = UnixSocket(listener);
        listener::serve(listener, &self.places, stopping, SHUTDOWN_GRACE, serve).await;
    }
}

/// The listening socket of a server in the file system.
struct UnixSocket(UnixListener);

impl Listener for UnixSocket {
    type Connection = (UnixStream, u32);

    async fn accept(&self) -> io::Result<Accepted<Self::Connection>> {
        let stream = self.0.accept().await?.0;
        // A peer that has ended already is of no user; its connection ends at once.
        let user = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
        Ok(Accepted {
            peer: PeerKey::User(user),
            descriptor: Some(stream.as_raw_fd()),
            connection: (stream, user),
        })
    }
}

/// Returns a future that completes after `shutdown`, and what tells connections about it.
fn stop_after(
    shutdown: impl Future<Output = ()>,
) -> (impl Future<Output = ()>, watch::Receiver<bool>) {
    let (tell, stop) = watch::channel(false);
    let stopping = async move {
        shutdown.await;
        let _ = tell.send(true);
    };
    (stopping, stop)
}
