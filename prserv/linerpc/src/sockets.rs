//! The listening sockets of a program: passed by systemd (socket activation) or opened here.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::{fmt, fs, io};

use listenfd::ListenFd;

use crate::listen::{ListenAddress, ListenError, PortSharing, listen_on_all, listen_on_unix};

/// A listening socket in non-blocking mode.
#[derive(Debug)]
pub enum Socket {
    /// A port.
    Tcp(TcpListener),
    /// A Unix socket, with its path if it was created here.
    Unix(UnixListener, Option<PathBuf>),
}

/// Returns the sockets that systemd passed, or listens on every address if it passed none.
///
/// # Errors
/// A passed socket is not a listening one, or an address cannot be listened on.
pub async fn open(
    addresses: &[ListenAddress],
    ports: PortSharing,
) -> Result<Vec<Socket>, ListenError> {
    let passed = passed().map_err(ListenError::Passed)?;
    if !passed.is_empty() {
        return Ok(passed);
    }
    let mut sockets = Vec::new();
    for address in addresses {
        match address {
            ListenAddress::Tcp { host, port } => {
                let listeners = listen_on_all(host, *port, ports).await?;
                sockets.extend(listeners.into_iter().map(Socket::Tcp));
            }
            ListenAddress::Unix(path) => {
                let listener = listen_on_unix(path)?;
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                sockets.push(Socket::Unix(listener, Some(path)));
            }
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
            sockets.push(Socket::Unix(listener, None));
        } else if let Some(listener) = passed.take_tcp_listener(index)? {
            listener.set_nonblocking(true)?;
            sockets.push(Socket::Tcp(listener));
        }
    }
    Ok(sockets)
}

impl Socket {
    /// Returns another handle of the socket.
    ///
    /// # Errors
    /// The process has too few descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener, path) => Self::Unix(listener.try_clone()?, path.clone()),
        })
    }

    /// Removes a Unix socket that was created here from the file system.
    pub fn remove(&self) {
        if let Self::Unix(_, Some(path)) = self {
            let _ = fs::remove_file(path);
        }
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
            Self::Unix(_, Some(path)) => write!(out, "unix://{}", path.display()),
            Self::Unix(listener, None) => {
                let address = listener.local_addr().ok();
                match address.as_ref().and_then(|address| address.as_pathname()) {
                    Some(path) => write!(out, "unix://{}", path.display()),
                    None => out.write_str("a Unix socket"),
                }
            }
        }
    }
}
