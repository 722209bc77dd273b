//! The egress of a guest: a link from its network to the host, which forwards for it.
//!
//! The rules that allow or drop packets are in the guest's network and are deleted with it.
//! There, too, packets get the link's address, so that the host's rules are the same for
//! all guests: one table, created with the first link and deleted with the last. It also
//! records whether the host forwarded packets before.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::{IpNet, Ipv4Net};
use sys::command::{self, CommandError};

use super::names::{DIRECTORY, HOST_LINK, LIMIT, NetworkError};
use super::namespace::Network;
use super::rules::{feed, set_forwarding};

/// The prefix of the host's ends of links.
const LINK: &str = "bhost";
/// The end of a link in the guest's network.
const OUT: &str = "out0";
/// The host's table.
const TABLE: &str = "buildhost_egress";
/// The chain of a host that did not forward before: it drops all but guests' packets.
const CLOSED: &str = "forwards_for_guests_only";
/// The maximum number of links: each has two addresses of 198.18.0.0/16, which is reserved
/// for tests of routers.
const LINKS_MAX: u16 = 32_768;
/// The lock on links and the table, which all agents of the host share.
const LOCK: &str = "/run/buildhost-egress.lock";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The destinations that are never allowed.
const NEVER: &str =
    "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 196.254.111.222, 198.18.0.0/15, 224.0.0.0/3";
/// The private networks, which are allowed only if the policy lists them.
const PRIVATE: &str = "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16";

/// The destinations that a guest may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    /// The only destinations; all public ones if `None`.
    pub destinations: Option<Vec<SocketAddrV4>>,
    /// The private networks that count as public.
    pub private: Vec<IpNet>,
}

/// Links a guest's network to the caller's network namespace, or replaces the policy of an
/// existing link.
///
/// # Errors
/// When the kernel refuses.
pub fn open(network: &Network, policy: &EgressPolicy) -> Result<(), NetworkError> {
    let opened = locked(|| {
        if inside(network, || Ok(exists(OUT)))? {
            let rules = format!("flush chain inet guest forward\n{}", forward_rules(policy));
            return inside(network, || Ok(feed("nft", &["-f", "-"], &rules)?));
        }
        prepare_host()?;
        let number = create_link(network)?;
        inside(network, || {
            let rules = format!("{}{}", link_rules(), forward_rules(policy));
            feed("nft", &["-f", "-"], &rules)?;
            feed("ip", &["-batch", "-"], &guest_end(number))?;
            Ok(set_forwarding(true)?)
        })
    });
    opened.map_err(|error| error.of(network, "open the egress of"))
}

/// Deletes the link of a guest's network, if it has one, and with the last link the host's
/// table.
///
/// # Errors
/// When the kernel refuses.
pub fn close(network: &Network) -> Result<(), NetworkError> {
    let closed = locked(|| {
        if !inside(network, || Ok(exists(OUT)))? {
            return Ok(());
        }
        let delete = format!("link delete dev {OUT}\n");
        inside(network, || Ok(feed("ip", &["-batch", "-"], &delete)?))?;
        clean_host()
    });
    closed.map_err(|error| error.of(network, "close the egress of"))
}

/// Deletes the host's table if no link is left, such as after a crash.
///
/// # Errors
/// When the kernel refuses.
pub fn clean_up() -> io::Result<()> {
    locked(clean_host).map_err(|error| match error {
        EgressError::Command(error) => io::Error::other(error),
        EgressError::Kernel(error) => error,
    })
}

/// An error of one step, before it is known of which network.
enum EgressError {
    Command(CommandError),
    Kernel(io::Error),
}

impl From<CommandError> for EgressError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<io::Error> for EgressError {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

impl EgressError {
    fn of(self, network: &Network, action: &'static str) -> NetworkError {
        match self {
            Self::Command(source) => NetworkError::Command {
                name: network.name().to_owned(),
                source,
            },
            Self::Kernel(source) => network.kernel_error(action, source),
        }
    }
}

fn inside<T: Send>(
    network: &Network,
    work: impl FnOnce() -> Result<T, EgressError> + Send,
) -> Result<T, EgressError> {
    network.enter(|| Ok(work()))?
}

#[expect(
    clippy::disallowed_methods,
    reason = "only root may change the directory of the lock"
)]
fn locked<T>(work: impl FnOnce() -> Result<T, EgressError>) -> Result<T, EgressError> {
    let lock = File::create(LOCK)?;
    lock.lock()?;
    work()
}

/// Returns the interfaces in the calling thread's namespace.
fn interfaces() -> Vec<String> {
    let table = sys::trusted::read_text("/proc/thread-self/net/dev").unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

fn exists(interface: &str) -> bool {
    interfaces().iter().any(|name| name == interface)
}

/// Creates the host's table with the first link, and turns on forwarding.
fn prepare_host() -> Result<(), EgressError> {
    if has_table()? {
        return Ok(());
    }
    let forwards = sys::trusted::read_text(FORWARDING).is_ok_and(|text| text.trim() == "1");
    feed("nft", &["-f", "-"], &host_table(forwards))?;
    Ok(set_forwarding(true)?)
}

fn has_table() -> Result<bool, CommandError> {
    let mut list = command::prepare("nft");
    list.args(["list", "tables", "ip"]);
    let tables = command::run(list, LIMIT)?;
    Ok(String::from_utf8_lossy(&tables).contains(TABLE))
}

fn clean_host() -> Result<(), EgressError> {
    let is_linked = interfaces().iter().any(|name| name.starts_with(LINK));
    if is_linked || !has_table()? {
        return Ok(());
    }
    let mut list = command::prepare("nft");
    list.args(["list", "chains", "ip"]);
    let chains = command::run(list, LIMIT)?;
    if String::from_utf8_lossy(&chains).contains(CLOSED) {
        set_forwarding(false)?;
    }
    let delete = format!("delete table ip {TABLE}\n");
    Ok(feed("nft", &["-f", "-"], &delete)?)
}

/// Returns the input of `nft` for the host. Guests reach neither the host nor each other,
/// and nothing reaches them. The host's own firewall still decides about their packets.
fn host_table(forwards: bool) -> String {
    let closed = if forwards {
        String::new()
    } else {
        format!(
            "    chain {CLOSED} {{
        type filter hook forward priority filter - 10; policy accept;
        iifname != \"{LINK}*\" oifname != \"{LINK}*\" drop
    }}
"
        )
    };
    format!(
        "table ip {TABLE} {{
    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname \"{LINK}*\" drop
    }}
    chain forward {{
        type filter hook forward priority filter - 10; policy accept;
        iifname \"{LINK}*\" oifname \"{LINK}*\" drop
        iifname \"{LINK}*\" ip saddr != 198.18.0.0/16 drop
        oifname \"{LINK}*\" ct state != {{ established, related }} drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 198.18.0.0/16 oifname != \"{LINK}*\" masquerade
    }}
{closed}}}
"
    )
}

/// Creates a link under the first free number, and returns the number.
fn create_link(network: &Network) -> Result<u16, EgressError> {
    let taken = interfaces();
    let is_free = |number: &u16| !taken.contains(&format!("{LINK}{number}"));
    let exhausted = || io::Error::other("all egress links are taken");
    let number = (0..LINKS_MAX).find(is_free).ok_or_else(exhausted)?;
    let (address, _) = addresses(number);
    let name = network.name();
    feed(
        "ip",
        &["-batch", "-"],
        &format!(
            "link add dev {LINK}{number} type veth peer name {OUT} netns {DIRECTORY}/{name}
link set dev {LINK}{number} addrgenmode none
address add {address} dev {LINK}{number}
link set dev {LINK}{number} up
"
        ),
    )?;
    Ok(number)
}

/// Returns the addresses of a link: the host's end and the guest's.
fn addresses(number: u16) -> (Ipv4Net, Ipv4Net) {
    let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + 2 * u32::from(number);
    let address = |offset: u32| Ipv4Net::new_assert(Ipv4Addr::from(base + offset), 31);
    (address(0), address(1))
}

/// Returns the input of `ip -batch` for the guest's end of a link.
fn guest_end(number: u16) -> String {
    let (host, own) = addresses(number);
    format!(
        "link set dev {OUT} addrgenmode none
address add {own} dev {OUT}
link set dev {OUT} up
route add default via {}
",
        host.addr()
    )
}

/// Returns the input of `nft` that accepts packets from the link, and gives outgoing packets
/// the link's address.
fn link_rules() -> String {
    format!(
        "insert rule ip guest_source prerouting iifname {OUT} accept
insert rule arp guest input iifname {OUT} accept
table ip guest_way {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname {OUT} masquerade
    }}
}}
"
    )
}

/// Returns the input of `nft` that enforces the policy.
fn forward_rules(policy: &EgressPolicy) -> String {
    let listed: Vec<_> = policy
        .private
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) => Some(net.to_string()),
            IpNet::V6(_) => None,
        })
        .collect();
    let except = match listed.as_slice() {
        [] => String::new(),
        listed => format!(" ip daddr != {{ {} }}", listed.join(", ")),
    };
    let matches = match &policy.destinations {
        None => vec![String::new()],
        Some(destinations) => {
            let to = |it: &SocketAddrV4| format!("ip daddr {} th dport {} ", it.ip(), it.port());
            destinations.iter().map(to).collect()
        }
    };
    let rule = "add rule inet guest forward";
    let accept = matches.iter().map(|to| {
        let protocols = if to.is_empty() {
            ""
        } else {
            "meta l4proto { tcp, udp } "
        };
        format!("{rule} iifname {HOST_LINK} oifname {OUT} {protocols}{to}accept\n")
    });
    format!(
        "{rule} iifname {OUT} ct state {{ established, related }} accept
{rule} ip daddr {{ {NEVER} }} drop
{rule} ip daddr {{ {PRIVATE} }}{except} drop
{}",
        accept.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_a_policy() {
        let policy = EgressPolicy {
            destinations: Some(vec!["192.0.2.1:443".parse().unwrap()]),
            private: vec!["10.1.0.0/16".parse().unwrap()],
        };
        let texts = [
            host_table(true),
            host_table(false),
            guest_end(300),
            link_rules(),
            forward_rules(&policy),
            forward_rules(&EgressPolicy::default()),
        ];
        insta::assert_snapshot!(texts.join("\n"));
    }
}
