//! The guests of one network, known by the source addresses of their packets. The network must not
//! let a guest use the address of another one.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Namespace, Reports, Shared};

/// A further guest in the network of a server.
#[derive(Debug)]
pub struct Peer {
    /// The address from which it sends.
    pub address: IpAddr,
    /// The files that it may fetch and put.
    pub namespace: Namespace,
    /// The receivers of what it does.
    pub reports: Reports,
}

/// The guests of a server.
#[derive(Debug)]
pub(super) struct Peers {
    guest: Arc<Shared>,
    others: BTreeMap<IpAddr, Arc<Shared>>,
}

impl Peers {
    pub(super) fn new(
        namespace: Namespace,
        reports: Reports,
        peers: Vec<Peer>,
    ) -> io::Result<Self> {
        let other = |peer: Peer| {
            let shared = Shared::new(peer.namespace, peer.reports)?;
            Ok((peer.address, Arc::new(shared)))
        };
        Ok(Self {
            guest: Arc::new(Shared::new(namespace, reports)?),
            others: peers.into_iter().map(other).collect::<io::Result<_>>()?,
        })
    }

    /// Returns the guest that the server was started for.
    pub(super) fn guest(&self) -> &Arc<Shared> {
        &self.guest
    }

    /// Returns the guest with this address; every other one is the guest of the server.
    pub(super) fn of(&self, address: IpAddr) -> &Arc<Shared> {
        self.others.get(&address).unwrap_or(&self.guest)
    }

    pub(super) fn stop(&self) {
        self.guest.stop();
        self.others.values().for_each(|other| other.stop());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::net::SocketAddr;

    use tokio::sync::mpsc;

    use super::*;
    use crate::client::{Client, Timeouts};
    use crate::server::{Event, Server};

    #[test]
    fn each_guest_has_the_files_of_its_address() {
        for (address, expected) in [("127.0.0.1", "the other's"), ("192.0.2.1", "the guest's")] {
            let place = tempfile::tempdir().unwrap();
            let mut namespace = Namespace::new(0, 0);
            namespace.offer("task", "the guest's".to_owned());
            let mut other = Namespace::new(0, 0);
            other.offer("task", "the other's".to_owned());
            other.accept("environment", place.path().join("environment"), 100);
            let (events, mut own) = mpsc::channel(10);
            let (sender, mut of_other) = mpsc::channel(10);
            let peer = Peer {
                address: address.parse().unwrap(),
                namespace: other,
                reports: sender.into(),
            };
            let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let server = Server::start_with_peers(&[listen], namespace, events, vec![peer]);
            let server = server.unwrap();
            let client = Client::new(server.addresses()[0], Timeouts::default());
            let mut content = Vec::new();
            client.get("task", &mut content).unwrap();
            assert_eq!(String::from_utf8(content).unwrap(), expected);
            let is_other = expected == "the other's";
            let put = client.put("environment", &mut Cursor::new(b"A=1"), 3);
            assert_eq!(put.is_ok(), is_other);
            assert_eq!(place.path().join("environment").exists(), is_other);
            assert_eq!(server.refused_puts().is_empty(), is_other);
            let (reported, silent) = if is_other {
                (&mut of_other, &mut own)
            } else {
                (&mut own, &mut of_other)
            };
            assert_eq!(reported.blocking_recv(), Some(Event::FirstContact));
            silent.try_recv().unwrap_err();
        }
    }
}
