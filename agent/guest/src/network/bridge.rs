//! The bridge and the packet filter of a network with several guests: that of a build and its
//! auxiliary ones.
//!
//! The gateway's interface is a bridge, and each guest has a port of it. At its port, a guest may
//! use only its own addresses, so that it takes neither those of another guest nor those of the
//! gateway. Guests may talk to each other. The servers of the gateway are the build's guest's; an
//! auxiliary one reaches DHCP, the resolver and TFTP, and nothing outside.

use std::fmt::Write as _;
use std::io;

use config::task::{GATEWAY, GATEWAY_BUILD2, GUEST};
use sys::command::CommandError;

use super::names::{HOST_LINK, HOST_MAC, LinkType};
use super::port::Port;
use super::rules::{feed, filter, set};

/// The switches by which the filters of routed packets see those of the bridge as well.
const SWITCHES: [&str; 3] = [
    "bridge-nf-call-iptables",
    "bridge-nf-call-ip6tables",
    "bridge-nf-call-arptables",
];

/// Turns off the filters of routed packets for those between the guests. Without the module
/// `br_netfilter` there are no such switches, and nothing to turn off.
pub(super) fn set_kernel_switches() -> io::Result<()> {
    for switch in SWITCHES {
        match set(&format!("bridge/{switch}"), "0") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            set => set?,
        }
    }
    Ok(())
}

/// Creates the packet filter and the interfaces in the calling thread's namespace, with a port for
/// each of these links.
pub(super) fn apply(links: &[LinkType]) -> Result<(), CommandError> {
    let build = links.first().copied().unwrap_or(LinkType::Tap);
    let rules = filter(build, Port::first(links.len())) + &bridge_filter(links.len());
    // The filter comes first: no interface ever exists without it.
    feed("nft", &["-f", "-"], &rules)?;
    feed("ip", &["-batch", "-"], &interfaces(links))
}

/// Returns the input of `ip -batch` for the host's ends.
fn interfaces(links: &[LinkType]) -> String {
    let mut text = format!(
        "link set lo up
link add dev {HOST_LINK} type bridge forward_delay 0 mcast_snooping 0
link set dev {HOST_LINK} address {HOST_MAC} addrgenmode none
address add {GATEWAY}/24 dev {HOST_LINK}
address add {GATEWAY_BUILD2}/32 dev {HOST_LINK}
"
    );
    for (port, link) in Port::first(links.len()).zip(links) {
        let (name, peer) = (port.interface(), port.peer());
        let add = match link {
            LinkType::Tap => format!("tuntap add dev {name} mode tap vnet_hdr"),
            LinkType::Veth => format!("link add dev {name} type veth peer name {peer}"),
        };
        let _ = writeln!(
            text,
            "{add}\nlink set dev {name} addrgenmode none master {HOST_LINK}\nlink set dev {name} up"
        );
    }
    let _ = writeln!(text, "link set dev {HOST_LINK} up");
    text
}

/// Returns the input of `nft`: the addresses that the guest at each port may use, and the servers
/// that are the build's guest's only.
fn bridge_filter(count: usize) -> String {
    let mut ports = String::new();
    for port in Port::first(count) {
        let own = format!(
            "        iifname {} ether saddr {}",
            port.interface(),
            port.hardware_address()
        );
        let address = port.address();
        let _ = writeln!(
            ports,
            "{own} arp saddr ether {} arp saddr ip {{ {address}, 0.0.0.0 }} accept
{own} ip saddr {address} udp sport 67 drop
{own} ip saddr {address} accept
{own} ip saddr 0.0.0.0 udp dport 67 accept",
            port.hardware_address()
        );
    }
    format!(
        "table bridge guest {{
    chain prerouting {{
        type filter hook prerouting priority filter; policy drop;
{ports}    }}
}}
table ip auxiliary {{
    chain input {{
        type filter hook input priority filter - 1; policy accept;
        iifname {HOST_LINK} ip saddr != {GUEST} meta l4proto tcp drop
    }}
    chain forward {{
        type filter hook forward priority filter - 1; policy accept;
        iifname {HOST_LINK} ip saddr != {GUEST} drop
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_and_the_packet_filter_of_two_guests() {
        let links = [LinkType::Tap, LinkType::Veth];
        let rules = filter(LinkType::Tap, Port::first(2)) + &bridge_filter(2);
        insta::assert_snapshot!(interfaces(&links) + "\n" + &rules);
    }
}
