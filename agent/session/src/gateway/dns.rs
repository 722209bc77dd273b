//! The resolver of a guest: answers from a table, or forwards queries to the host's resolver.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use guest::gateway::dns::{PACKET_MAX, Table, answer};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The time in which the host's resolver must answer.
const FORWARD_LIMIT: Duration = Duration::from_secs(5);
/// The number of queries of a guest that wait for the host's resolver at once.
const FORWARDS_MAX: usize = 64;

/// The names that a guest may resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// The names of a table.
    Table(Table),
    /// All names that this resolver knows.
    Forward(SocketAddr),
}

impl Names {
    /// Returns the names of a guest without egress.
    pub fn none() -> Self {
        Self::Table(Table::new())
    }
}

/// Serves DNS on a socket inside a guest's network, for ever. Takes at most 64
/// descriptors for queries that it forwards, each for five seconds. Must be called in a tokio
/// runtime.
///
/// # Errors
/// When the socket cannot be registered with the runtime.
pub fn serve(
    socket: std::net::UdpSocket,
    names: Names,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    socket.set_nonblocking(true)?;
    Ok(answer_all(UdpSocket::from_std(socket)?, names))
}

async fn answer_all(socket: UdpSocket, names: Names) {
    let socket = Arc::new(socket);
    let permits = Arc::new(Semaphore::new(FORWARDS_MAX));
    let mut forwards = JoinSet::new();
    let mut buffer = [0; PACKET_MAX];
    loop {
        while forwards.try_join_next().is_some() {}
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            // The error of an earlier answer; reading it has cleared it.
            tokio::task::yield_now().await;
            continue;
        };
        let query = &buffer[..length];
        match &names {
            Names::Table(table) => {
                if let Some(answer) = answer(query, table) {
                    let _ = socket.send_to(&answer, client).await;
                }
            }
            Names::Forward(resolver) => {
                // Queries beyond the limit are dropped; the guest repeats them.
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                    continue;
                };
                let (socket, query, resolver) = (Arc::clone(&socket), query.to_vec(), *resolver);
                forwards.spawn(async move {
                    if let Ok(Ok(answer)) = timeout(FORWARD_LIMIT, forward(resolver, &query)).await
                    {
                        let _ = socket.send_to(&answer, client).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn forward(resolver: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let local: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(resolver).await?;
    socket.send(query).await?;
    let mut answer = vec![0; PACKET_MAX];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERIES: usize = 4 * FORWARDS_MAX;

    #[tokio::test]
    async fn a_guest_has_a_limited_number_of_queries_at_the_hosts_resolver() {
        let localhost = (Ipv4Addr::LOCALHOST, 0);
        let resolver = UdpSocket::bind(localhost).await.unwrap();
        let gateway = std::net::UdpSocket::bind(localhost).unwrap();
        let address = gateway.local_addr().unwrap();
        let names = Names::Forward(resolver.local_addr().unwrap());
        let served = tokio::spawn(serve(gateway, names).unwrap());
        let guest = UdpSocket::bind(localhost).await.unwrap();
        let mut buffer = [0; PACKET_MAX];
        let mut waiting = Vec::new();
        for number in 0..QUERIES {
            guest.send_to(&number.to_be_bytes(), address).await.unwrap();
            if number < FORWARDS_MAX {
                waiting.push(resolver.recv_from(&mut buffer).await.unwrap().1);
            }
        }
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(resolver.try_recv_from(&mut buffer).is_err());
        resolver.send_to(b"answer", waiting[0]).await.unwrap();
        let (length, _) = guest.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"answer");
        guest.send_to(b"later", address).await.unwrap();
        resolver.recv_from(&mut buffer).await.unwrap();
        served.abort();
    }
}
