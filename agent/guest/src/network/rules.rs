//! What the inside of a network looks like, and what a guest may reach in it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::{self, Stdio};

use config::task::{GATEWAY, GATEWAY_BUILD2, GUEST, LOG_TCP_PORT, PR_PORT};
use sys::command::{self, CommandError, Running};

use super::{CARD, Cable, GUEST_MAC, HOST_MAC, LIMIT, PORT};

/// The ports from which the sessions of our TFTP server speak.
const SESSION_PORTS: &str = "32768 60999";

/// Sets what is inherited from the host and must not be: forwarding above all.
pub(super) fn set_kernel_switches() -> io::Result<()> {
    set_forwarding(false)?;
    set("ipv4/ip_local_port_range", SESSION_PORTS)
}

/// Whether the network that the caller is in forwards packets.
pub(super) fn set_forwarding(on: bool) -> io::Result<()> {
    set("ipv4/ip_forward", if on { "1" } else { "0" })
}

/// Lets a container bind every port: it has no right of its own in its network.
pub(super) fn open_ports() -> io::Result<()> {
    set("ipv4/ip_unprivileged_port_start", "0")
}

fn set(switch: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{switch}");
    let mut file = File::options().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// Moves the guest's end of a pair to another namespace.
pub(super) fn hand_over(namespace: BorrowedFd<'_>) -> Result<(), CommandError> {
    let path = format!("/proc/{}/fd/{}", process::id(), namespace.as_raw_fd());
    let mut ip = command::prepare("ip");
    ip.args(["link", "set", "dev", CARD, "netns", &path]);
    command::run(ip, LIMIT).map(|_| ())
}

/// Sets up the guest's end of a pair in the namespace that the caller is in.
pub(super) fn apply_inside() -> Result<(), CommandError> {
    feed("ip", &["-batch", "-"], &card())
}

/// Makes the interfaces and the rules in the namespace that the caller is in.
pub(super) fn apply(cable: Cable) -> Result<(), CommandError> {
    // The rules come first: at no time is there an interface without them.
    feed("nft", &["-f", "-"], &filter())?;
    feed("ip", &["-batch", "-"], &interfaces(cable))
}

pub(super) fn feed(program: &str, arguments: &[&str], input: &str) -> Result<(), CommandError> {
    let mut command = command::prepare(program);
    command.args(arguments).stdin(Stdio::piped());
    let mut running = Running::start(command)?;
    if let Some(mut stdin) = running.child.stdin.take() {
        // A program that does not read says why when it ends.
        let _ = stdin.write_all(input.as_bytes());
    }
    running.finish(LIMIT)
}

/// The input of `ip -batch`.
fn interfaces(cable: Cable) -> String {
    let add = match cable {
        Cable::Tap => format!("tuntap add dev {PORT} mode tap vnet_hdr"),
        Cable::Pair => format!("link add dev {PORT} type veth peer name {CARD}"),
    };
    format!(
        "link set lo up
{add}
link set dev {PORT} address {HOST_MAC} addrgenmode none
address add {GATEWAY}/24 dev {PORT}
address add {GATEWAY_BUILD2}/32 dev {PORT}
link set dev {PORT} up
"
    )
}

/// The input of `ip -batch` in a container.
fn card() -> String {
    format!(
        "link set lo up
link set dev {CARD} address {GUEST_MAC} addrgenmode none
address add {GUEST}/24 dev {CARD}
link set dev {CARD} up
route add default via {GATEWAY}
"
    )
}

/// The input of `nft`: who the guest may say it is, then what it may reach.
fn filter() -> String {
    let ports = SESSION_PORTS.replace(' ', "-");
    format!(
        "table inet guest {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iif lo accept
        iifname {PORT} udp dport {{ 53, 67, 69, {ports} }} accept
        iifname {PORT} tcp dport {{ {PR_PORT}, {LOG_TCP_PORT} }} accept
        iifname {PORT} icmp type echo-request accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
    }}
}}
table arp guest {{
    chain input {{
        type filter hook input priority filter; policy drop;
        arp saddr ether {GUEST_MAC} arp saddr ip {{ {GUEST}, 0.0.0.0 }} accept
    }}
}}
table ip guest_source {{
    chain prerouting {{
        type filter hook prerouting priority raw; policy accept;
        iif lo accept
        ether saddr != {GUEST_MAC} drop
        ip saddr {GUEST} accept
        ip saddr 0.0.0.0 udp dport 67 accept
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
    fn the_inside_of_a_network() {
        let interfaces = interfaces(Cable::Tap) + "\n" + &interfaces(Cable::Pair);
        insta::assert_snapshot!(interfaces + "\n" + &card() + "\n" + &filter());
    }
}
