//! The listening sockets: passed by systemd (socket activation) or opened here.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use tokio::net::{TcpSocket, lookup_host};

/// The maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// A listening socket.
#[derive(Debug)]
pub(super) enum Socket {
    /// A port.
    Tcp(TcpListener),
    /// A socket in the file system. It is removed at the end unless systemd passed it.
    Unix(UnixListener, Option<PathBuf>),
}

impl Socket {
    /// Returns the address for the log.
    pub(super) fn address(&self) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(listener) => listener.local_addr()?.to_string(),
            Self::Unix(_, Some(path)) => format!("unix://{}", path.display()),
            Self::Unix(_, None) => "unix".to_owned(),
        })
    }

    /// Removes a socket that was created in the file system.
    pub(super) fn remove(&self) {
        if let Self::Unix(_, Some(path)) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// Returns the sockets that systemd passed, or listens on every address if it passed none.
pub(super) async fn listen(addresses: &[String], reuse_port: bool) -> anyhow::Result<Vec<Socket>> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
            listener.set_nonblocking(true)?;
            sockets.push(Socket::Tcp(listener));
        } else if let Some(listener) = passed.take_unix_listener(index)? {
            listener.set_nonblocking(true)?;
            sockets.push(Socket::Unix(listener, None));
        }
    }
    if sockets.is_empty() {
        for address in addresses {
            sockets.push(listen_on(address, reuse_port).await?);
        }
    }
    Ok(sockets)
}

async fn listen_on(address: &str, reuse_port: bool) -> anyhow::Result<Socket> {
    let failed = || format!("cannot listen on {address}");
    if let Some(path) = address.strip_prefix("unix://") {
        let path = std::path::absolute(path)?;
        let listener = bind_unix(&path).with_context(failed)?;
        return Ok(Socket::Unix(listener, Some(path)));
    }
    let port = address.strip_prefix("ws://").unwrap_or(address);
    let candidates: Vec<SocketAddr> = match port.strip_prefix(':').map(str::parse::<u16>) {
        Some(Ok(port)) => vec![([0_u16; 8], port).into(), ([0; 4], port).into()],
        _ => lookup_host(port)
            .await
            .with_context(|| format!("cannot resolve {address}"))?
            .collect(),
    };
    let mut last_error = None;
    for candidate in candidates {
        match bind(candidate, reuse_port) {
            Ok(listener) => return Ok(Socket::Tcp(listener)),
            Err(error) => last_error = Some(error),
        }
    }
    match last_error {
        Some(error) => Err(error).with_context(failed),
        None => bail!("{address} resolves to no address"),
    }
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Listens on a socket in the file system, and replaces one on which nobody listens. The directory
/// is opened first, because the paths of sockets are limited to 107 bytes.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    let path = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    let is_socket = fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(&path).is_err() {
        fs::remove_file(&path)?;
    }
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
