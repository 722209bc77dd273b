//! The listening socket: systemd's, when it starts us by its socket, else our own.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use tokio::net::{TcpSocket, lookup_host};

/// As many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Takes over a socket that was passed to us, or listens on an address.
pub(crate) async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    if let Some(listener) = ListenFd::from_env().take_tcp_listener(0)? {
        listener.set_nonblocking(true)?;
        return Ok(listener);
    }
    let addresses = lookup_host(address).await;
    let addresses = addresses.with_context(|| format!("cannot resolve {address}"))?;
    let mut failure = None;
    for candidate in addresses {
        match bind(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
        None => bail!("{address} has no address"),
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}
