//! What the inside of a network looks like, and what a guest may reach in it.

use std::fs::File;
use std::io::{self, Write};
use std::process::Stdio;

use config::task::{GATEWAY, GATEWAY_OLD, GUEST, PR_PORT};
use store::command::{self, CommandError, Running};

use super::{GUEST_MAC, HOST_MAC, LIMIT, TAP};

/// The ports from which the sessions of our TFTP server speak.
const SESSION_PORTS: &str = "32768 60999";

/// Sets what is inherited from the host and must not be: forwarding above all.
pub(super) fn set_kernel_switches() -> io::Result<()> {
    for (switch, value) in [
        ("ipv4/ip_forward", "0"),
        ("ipv4/ip_local_port_range", SESSION_PORTS),
    ] {
        let path = format!("/proc/sys/net/{switch}");
        let mut file = File::options().write(true).open(path)?;
        file.write_all(value.as_bytes())?;
    }
    Ok(())
}

/// Makes the interfaces and the rules in the namespace that the caller is in.
pub(super) fn apply() -> Result<(), CommandError> {
    // The rules come first: at no time is there an interface without them.
    feed("nft", &["-f", "-"], &filter())?;
    feed("ip", &["-batch", "-"], &interfaces())
}

fn feed(program: &str, arguments: &[&str], input: &str) -> Result<(), CommandError> {
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
fn interfaces() -> String {
    format!(
        "link set lo up
tuntap add dev {TAP} mode tap vnet_hdr
link set dev {TAP} address {HOST_MAC} addrgenmode none
address add {GATEWAY}/24 dev {TAP}
address add {GATEWAY_OLD}/32 dev {TAP}
link set dev {TAP} up
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
        iifname {TAP} udp dport {{ 67, 69, {ports} }} accept
        iifname {TAP} tcp dport {PR_PORT} accept
        iifname {TAP} icmp type echo-request accept
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
        insta::assert_snapshot!(interfaces() + "\n" + &filter());
    }
}
