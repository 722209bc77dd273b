//! The listening socket: systemd's, when it starts us by its socket, else our own.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use tokio::net::{TcpSocket, lookup_host};

/// As many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Takes over the sockets that were passed to us, or listens on every address.
pub(crate) async fn listen(addresses: &[String]) -> anyhow::Result<Vec<TcpListener>> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        if let Some(listener) = passed.take_tcp_listener(index)? {
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
    }
    if listeners.is_empty() {
        for address in addresses {
            listeners.push(listen_on(address).await?);
        }
    }
    Ok(listeners)
}

async fn listen_on(address: &str) -> anyhow::Result<TcpListener> {
    let candidates = lookup_host(address).await;
    let candidates = candidates.with_context(|| format!("cannot resolve {address}"))?;
    let mut failure = None;
    for candidate in candidates {
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
