//! The listening sockets: passed by systemd (socket activation) or opened here.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::{fmt, io};

use listenfd::ListenFd;
use prserv::listen::{ListenAddress, listen_on_all, listen_on_unix};

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Returns the sockets that systemd passed, or listens on every address if it passed none.
pub(crate) async fn listen(addresses: &[ListenAddress]) -> anyhow::Result<Vec<Socket>> {
    let passed = passed()?;
    if !passed.is_empty() {
        return Ok(passed);
    }
    let mut sockets = Vec::new();
    for address in addresses {
        match address {
            ListenAddress::Tcp { host, port } => {
                let listeners = listen_on_all(host, *port).await?;
                sockets.extend(listeners.into_iter().map(Socket::Tcp));
            }
            ListenAddress::Unix(path) => sockets.push(Socket::Unix(listen_on_unix(path)?)),
        }
    }
    Ok(sockets)
}

fn passed() -> io::Result<Vec<Socket>> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        if let Ok(Some(listener)) = passed.take_unix_listener(index) {
            listener.set_nonblocking(true)?;
            sockets.push(Socket::Unix(listener));
        } else if let Some(listener) = passed.take_tcp_listener(index)? {
            listener.set_nonblocking(true)?;
            sockets.push(Socket::Tcp(listener));
        }
    }
    Ok(sockets)
}

impl Socket {
    /// Returns another handle of the socket.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }
}

/// Writes the address.
impl fmt::Display for Socket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(out, "{address}"),
                Err(error) => write!(out, "({error})"),
            },
            Self::Unix(listener) => {
                let address = listener.local_addr();
                let path = address
                    .as_ref()
                    .ok()
                    .and_then(|address| address.as_pathname());
                match path {
                    Some(path) => write!(out, "unix://{}", path.display()),
                    None => out.write_str("a Unix socket"),
                }
            }
        }
    }
}
