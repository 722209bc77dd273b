//! The ports of a network with several guests, with the addresses that the guest at each may use;
//! pure.

use std::net::Ipv4Addr;

use config::auxiliary::COUNT_MAX;
use config::task::GUEST;

use super::names::GUEST_MAC;

/// A port of a network with several guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(u8);

impl Port {
    /// The port of the build's guest, which has the addresses of a guest that is alone.
    pub const BUILD: Self = Self(0);

    /// Returns the port of the auxiliary guest with this number, from 1; `None` if no
    /// network has so many.
    pub fn auxiliary(number: u8) -> Option<Self> {
        let exists = number > 0 && usize::from(number) <= COUNT_MAX;
        exists.then_some(Self(number))
    }

    /// Returns the first ports of a network, in order.
    pub(super) fn first(count: usize) -> impl Iterator<Item = Self> + Clone {
        let all = (0..=u8::MAX).map_while(|number| match number {
            0 => Some(Self::BUILD),
            number => Self::auxiliary(number),
        });
        all.take(count)
    }

    /// Returns the port whose guest has this hardware address.
    pub(crate) fn of_hardware_address(address: &[u8]) -> Option<Self> {
        let text: Vec<_> = address.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = text.join(":");
        Self::first(usize::MAX).find(|port| port.hardware_address() == text)
    }

    /// Returns the only hardware address that its guest may use.
    pub fn hardware_address(self) -> String {
        match self.0 {
            0 => GUEST_MAC.to_owned(),
            number => format!("02:62:68:00:01:{number:02x}"),
        }
    }

    /// Returns the only address that its guest may use.
    pub fn address(self) -> Ipv4Addr {
        let first = GUEST.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
        Ipv4Addr::from_bits(u32::from(first) + u32::from(self.0))
    }

    /// Returns the name of its interface on the host's side.
    pub(super) fn interface(self) -> String {
        format!("port{}", self.0)
    }

    /// Returns the name of the other end of a veth pair, until it is moved to the container.
    pub(super) fn peer(self) -> String {
        format!("peer{}", self.0)
    }

    /// Returns the end of the name of its guest's control group.
    pub(crate) fn suffix(self) -> String {
        match self.0 {
            0 => String::new(),
            number => format!("-x{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use config::task::GATEWAY;

    use super::*;

    #[test]
    fn the_addresses_of_all_ports_differ() {
        let ports: Vec<_> = Port::first(usize::MAX).collect();
        assert_eq!(ports.len(), 1 + COUNT_MAX);
        assert_eq!(ports[0].address().to_string(), GUEST);
        assert_eq!(ports[2].address().to_string(), "169.254.111.3");
        let addresses: BTreeSet<_> = ports.iter().map(|it| it.address().to_string()).collect();
        let hardware: BTreeSet<_> = ports.iter().map(|it| it.hardware_address()).collect();
        assert_eq!(
            (addresses.len(), hardware.len()),
            (ports.len(), ports.len())
        );
        assert!(!addresses.contains(GATEWAY));
        for port in ports {
            let bytes: Vec<_> = port
                .hardware_address()
                .split(':')
                .map(|part| u8::from_str_radix(part, 16).unwrap())
                .collect();
            assert_eq!(Port::of_hardware_address(&bytes), Some(port));
        }
        assert_eq!(Port::of_hardware_address(&[1, 2, 3, 4, 5, 6]), None);
        assert_eq!(Port::auxiliary(0), None);
        assert_eq!(Port::auxiliary(9), None);
    }
}
