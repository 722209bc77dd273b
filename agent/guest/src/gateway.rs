//! The gateway of a guest: the sockets of its servers, and the packets of DHCP and DNS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use config::cache;
use config::exec;
use config::hashserv;
use config::machine::Kind;
use config::secrets;
use config::task::{GATEWAY, GATEWAY_BUILD2, LOG_TCP_PORT, PR_PORT};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{BindToDevice, Broadcast};

use crate::network::HOST_LINK;

pub mod dhcp;
pub mod dns;

/// The sockets of the servers at a guest's gateway.
#[derive(Debug)]
pub struct Sockets {
    /// The DHCP server's.
    pub dhcp: UdpSocket,
    /// The resolver's.
    pub dns: UdpSocket,
    /// The PR service's, one for each of the gateway's addresses.
    pub pr: Vec<TcpListener>,
    /// The log's; only a container sends its log by TCP.
    pub log: Option<TcpListener>,
    /// That of the secrets; only a container requests them by TCP.
    pub secrets: Option<TcpListener>,
    /// That of the cache.
    pub cache: Option<TcpListener>,
    /// That of the hash equivalence service.
    pub hashserv: Option<TcpListener>,
    /// That to which the worker of a driven guest connects.
    pub commands: Option<TcpListener>,
}

/// The servers at a gateway that not every guest has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offers {
    /// The cache.
    pub cache: bool,
    /// The hash equivalence service.
    pub hashserv: bool,
    /// The commands of a driven guest.
    pub commands: bool,
}

/// Opens the sockets for a guest of this kind with these servers, in the calling thread's
/// namespace.
///
/// # Errors
/// When a port cannot be bound.
pub fn bind(kind: Kind, offers: Offers) -> io::Result<Sockets> {
    let address = |port| addresses(port).next().ok_or(io::ErrorKind::InvalidInput);
    let dhcp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, dhcp::SERVER_PORT))?;
    // Broadcasts have no route, so the socket names their interface.
    setsockopt(&dhcp, BindToDevice, &HOST_LINK.into())?;
    setsockopt(&dhcp, Broadcast, &true)?;
    let of_container = |port| match kind {
        Kind::Kvm => Ok(None),
        Kind::Nspawn => TcpListener::bind(address(port)?).map(Some),
    };
    let offered = |is_offered: bool, port| {
        is_offered
            .then(|| TcpListener::bind(address(port)?))
            .transpose()
    };
    Ok(Sockets {
        dhcp,
        dns: UdpSocket::bind(address(dns::PORT)?)?,
        pr: addresses(PR_PORT)
            .map(TcpListener::bind)
            .collect::<io::Result<_>>()?,
        log: of_container(LOG_TCP_PORT)?,
        secrets: of_container(secrets::TCP_PORT)?,
        cache: offered(offers.cache, cache::PORT)?,
        hashserv: offered(offers.hashserv, hashserv::PORT)?,
        commands: offered(offers.commands, exec::TCP_PORT)?,
    })
}

/// Returns the gateway's addresses, the current one first, with this port.
pub fn addresses(port: u16) -> impl Iterator<Item = SocketAddr> {
    let addresses = [GATEWAY, GATEWAY_BUILD2].into_iter();
    addresses.filter_map(move |text| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port)))
}
