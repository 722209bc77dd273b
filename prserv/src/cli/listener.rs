//! The listening sockets: passed by systemd (socket activation) or opened here.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use tokio::net::{TcpSocket, lookup_host};

/// The maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// Returns the sockets that systemd passed, or listens on every address if it passed none.
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
    let candidates = lookup_host(address)
        .await
        .with_context(|| format!("cannot resolve {address}"))?;
    let mut last_error = None;
    for candidate in candidates {
        match bind(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last_error = Some(error),
        }
    }
    match last_error {
        Some(error) => Err(error).with_context(|| format!("cannot listen on {address}")),
        None => bail!("{address} resolves to no address"),
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
