//! The interfaces and the packet filter of a guest's network.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::{self, Stdio};

use config::cache::PORT as CACHE_PORT;
use config::exec::TCP_PORT as COMMANDS_PORT;
use config::hashserv::PORT as HASHSERV_PORT;
use config::secrets::TCP_PORT as SECRETS_PORT;
use config::task::{GATEWAY, GATEWAY_BUILD2, LOG_TCP_PORT, PR_PORT};
use sys::command::{self, CommandError, Running};

use super::names::{CONTAINER_LINK, HOST_LINK, HOST_MAC, LIMIT, LinkType};
use super::port::Port;

/// The local ports of the TFTP server's transfers.
const TRANSFER_PORTS: &str = "32768 60999";

/// Resets the switches that a namespace inherits from the host, above all forwarding.
pub(super) fn set_kernel_switches() -> io::Result<()> {
    set_forwarding(false)?;
    set("ipv4/ip_local_port_range", TRANSFER_PORTS)
}

/// Turns packet forwarding in the calling thread's namespace on or off.
pub(super) fn set_forwarding(on: bool) -> io::Result<()> {
    set("ipv4/ip_forward", if on { "1" } else { "0" })
}

/// Lets a container bind every port: it has no capability in its network namespace.
pub(super) fn open_ports() -> io::Result<()> {
    set("ipv4/ip_unprivileged_port_start", "0")
}

pub(super) fn set(switch: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{switch}");
    let mut file = sys::trusted::open_for_writing(path)?;
    file.write_all(value.as_bytes())
}

/// Moves the container's end of a veth pair to another namespace, in which it gets its name.
pub(super) fn move_container_link(
    namespace: BorrowedFd<'_>,
    port: Option<Port>,
) -> Result<(), CommandError> {
    let path = format!("/proc/{}/fd/{}", process::id(), namespace.as_raw_fd());
    let mut ip = command::prepare("ip");
    let name = port.map_or_else(|| CONTAINER_LINK.to_owned(), Port::peer);
    ip.args(["link", "set", "dev", &name, "netns", &path]);
    ip.args(["name", CONTAINER_LINK]);
    command::run(ip, LIMIT).map(|_| ())
}

/// Sets up the container's end of a veth pair in the calling thread's namespace.
pub(super) fn apply_in_container(port: Port) -> Result<(), CommandError> {
    feed("ip", &["-batch", "-"], &container_link(port))
}

/// Creates the packet filter and the interfaces in the calling thread's namespace.
pub(super) fn apply(link: LinkType) -> Result<(), CommandError> {
    // The filter comes first: no interface ever exists without it.
    feed("nft", &["-f", "-"], &filter(link, Port::first(1)))?;
    feed("ip", &["-batch", "-"], &interfaces(link))
}

/// Runs a program with `input` on its standard input.
pub(super) fn feed(program: &str, arguments: &[&str], input: &str) -> Result<(), CommandError> {
    let mut command = command::prepare(program);
    command.args(arguments).stdin(Stdio::piped());
    let mut running = Running::start(command)?;
    if let Some(mut stdin) = running.child.stdin.take() {
        // A program that does not read reports the reason when it ends.
        let _ = stdin.write_all(input.as_bytes());
    }
    running.finish(LIMIT)
}

/// Returns the input of `ip -batch` for the host's end.
fn interfaces(link: LinkType) -> String {
    let add = match link {
        LinkType::Tap => format!("tuntap add dev {HOST_LINK} mode tap vnet_hdr"),
        LinkType::Veth => format!("link add dev {HOST_LINK} type veth peer name {CONTAINER_LINK}"),
    };
    format!(
        "link set lo up
{add}
link set dev {HOST_LINK} address {HOST_MAC} addrgenmode none
address add {GATEWAY}/24 dev {HOST_LINK}
address add {GATEWAY_BUILD2}/32 dev {HOST_LINK}
link set dev {HOST_LINK} up
"
    )
}

/// Returns the input of `ip -batch` for a container's end.
fn container_link(port: Port) -> String {
    let (hardware, address) = (port.hardware_address(), port.address());
    format!(
        "link set lo up
link set dev {CONTAINER_LINK} address {hardware} addrgenmode none
address add {address}/24 dev {CONTAINER_LINK}
link set dev {CONTAINER_LINK} up
route add default via {GATEWAY}
"
    )
}

/// Returns the input of `nft`: the ports of the host that the guest with this link may reach, and the
/// addresses that the guests at these ports may use.
pub(super) fn filter(link: LinkType, guests: impl Iterator<Item = Port> + Clone) -> String {
    let ports = TRANSFER_PORTS.replace(' ', "-");
    // A virtual machine has virtio ports for its log and its secrets.
    let all = format!("{PR_PORT}, {COMMANDS_PORT}, {CACHE_PORT}, {HASHSERV_PORT}");
    let tcp = match link {
        LinkType::Tap => all,
        LinkType::Veth => format!("{all}, {LOG_TCP_PORT}, {SECRETS_PORT}"),
    };
    let arp = guests.clone().map(|port| {
        let (hardware, address) = (port.hardware_address(), port.address());
        format!("        arp saddr ether {hardware} arp saddr ip {{ {address}, 0.0.0.0 }} accept\n")
    });
    let arp: String = arp.collect();
    let hardware: Vec<_> = guests.clone().map(Port::hardware_address).collect();
    let hardware = match hardware.as_slice() {
        [one] => one.clone(),
        several => format!("{{ {} }}", several.join(", ")),
    };
    let sources = guests.map(|port| format!("        ip saddr {} accept\n", port.address()));
    let sources: String = sources.collect();
    format!(
        "table inet guest {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iif lo accept
        iifname {HOST_LINK} udp dport {{ 53, 67, 69, {ports} }} accept
        iifname {HOST_LINK} tcp dport {{ {tcp} }} accept
        iifname {HOST_LINK} icmp type echo-request accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
    }}
}}
table arp guest {{
    chain input {{
        type filter hook input priority filter; policy drop;
{arp}    }}
}}
table ip guest_source {{
    chain prerouting {{
        type filter hook prerouting priority raw; policy accept;
        iif lo accept
        ether saddr != {hardware} drop
{sources}        ip saddr 0.0.0.0 udp dport 67 accept
        drop
    }}
}}
table ip6 guest_source {{
    chain prerouting {{
        type filter hook prerouting priority raw; policy accept;
        iif != lo drop
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_and_the_packet_filter() {
        let interfaces = interfaces(LinkType::Tap) + "\n" + &interfaces(LinkType::Veth);
        insta::assert_snapshot!(
            interfaces
                + "\n"
                + &container_link(Port::BUILD)
                + "\n"
                + &filter(LinkType::Veth, Port::first(1))
        );
    }
}
