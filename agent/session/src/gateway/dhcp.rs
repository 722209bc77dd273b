//! The DHCP server of a guest.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use guest::gateway::dhcp::{CLIENT_PORT, REQUEST_MAX, answer};
use tokio::net::UdpSocket;

/// Serves DHCP on a socket inside a guest's network, for ever. Must be called in a tokio
/// runtime.
///
/// # Errors
/// When the socket cannot be registered with the runtime.
pub fn serve(socket: std::net::UdpSocket) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    Ok(answer_all(socket))
}

async fn answer_all(socket: UdpSocket) {
    let clients = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
    let mut buffer = [0; REQUEST_MAX];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else {
            // The error of an earlier answer; reading it has cleared it.
            tokio::task::yield_now().await;
            continue;
        };
        if let Some(answer) = answer(&buffer[..length]) {
            // The client repeats its request if the answer is lost.
            let _ = socket.send_to(&answer, clients).await;
        }
    }
}
