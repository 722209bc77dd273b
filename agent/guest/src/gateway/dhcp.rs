//! DHCP for a guest that does not know its address (RFC 2131): there is only one
//! that it can have, so every guest is told the same, and nothing is kept.
//!
//! The packet is read and written here: the codec crates bring dozens of others
//! with them, for one request that we look at and one answer that never changes.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use config::task::{GATEWAY, GUEST};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice, sockopt::Broadcast};

use crate::network::{Network, PORT};

mod packet;

/// The longest request that we read.
const REQUEST_MAX: usize = 1500;

/// A DHCP server inside a guest's network: it runs while the future is polled, for
/// ever. Must be called in a tokio runtime.
///
/// # Errors
/// When its port cannot be bound.
pub fn serve(network: &Network) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let socket = network.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67))?;
        // Without a route, the kernel must be told where everyone is.
        setsockopt(&socket, BindToDevice, &PORT.into())?;
        setsockopt(&socket, Broadcast, &true)?;
        Ok(socket)
    })?;
    socket.set_nonblocking(true)?;
    Ok(answer(tokio::net::UdpSocket::from_std(socket)?))
}

async fn answer(socket: tokio::net::UdpSocket) {
    let Some(lease) = lease() else { return };
    let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, 68);
    let mut buffer = [0; REQUEST_MAX];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else {
            // The error of an earlier answer; the next request may fare better.
            tokio::task::yield_now().await;
            continue;
        };
        if let Some(answer) = packet::answer(&buffer[..length], &lease) {
            // A lost answer is asked for again.
            let _ = socket.send_to(&answer, everyone).await;
        }
    }
}

fn lease() -> Option<packet::Lease> {
    Some(packet::Lease {
        guest: GUEST.parse().ok()?,
        host: GATEWAY.parse().ok()?,
    })
}
