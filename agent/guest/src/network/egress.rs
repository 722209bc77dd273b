//! The way out of a guest's network: a link to the host, which forwards for it.
//!
//! Who may go where is decided inside the guest's network, and goes with it. There,
//! too, packets get the link's address, so that the host's rules are the same for
//! all guests: one table, made with the first link and removed with the last. It also
//! remembers whether the host forwarded before.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::{IpNet, Ipv4Net};
use sys::command::{self, CommandError};

use super::rules::{feed, set_forwarding};
use super::{LIMIT, Network, NetworkError, PORT};

/// What the host's ends of links begin with.
const LINK: &str = "bhost";
/// The guest's network's end.
const OUT: &str = "out0";
/// The table of the host.
const TABLE: &str = "buildhost_egress";
/// How many links there can be: each has two addresses of 198.18.0.0/16, which no
/// network uses but those that test routers.
const LINKS_MAX: u16 = 32_768;
/// Taken by whoever changes links or the table; agents of one host share them.
const LOCK: &str = "/run/buildhost-egress.lock";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Nothing of this is outside.
const NEVER: &str =
    "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 196.254.111.222, 198.18.0.0/15, 224.0.0.0/3";
/// Nor this, if it is not listed.
const PRIVATE: &str = "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16";

/// What a guest may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// These places only; everything that is outside if `None`.
    pub places: Option<Vec<SocketAddrV4>>,
    /// The private networks that count as outside.
    pub private: Vec<IpNet>,
}

/// Opens a way out of a guest's network into the one that the caller is in, or
/// changes what may be reached on the way that there is.
///
/// # Errors
/// When the kernel refuses.
pub fn open(network: &Network, way: &Way) -> Result<(), NetworkError> {
    let opened = locked(|| {
        if inside(network, || Ok(exists(OUT)))? {
            let rules = format!("flush chain inet guest forward\n{}", forward(way));
            return inside(network, || Ok(feed("nft", &["-f", "-"], &rules)?));
        }
        prepare_host()?;
        let number = link(network)?;
        inside(network, || {
            let rules = format!("{}{}", entrance(), forward(way));
            feed("nft", &["-f", "-"], &rules)?;
            feed("ip", &["-batch", "-"], &inner(number))?;
            Ok(set_forwarding(true)?)
        })
    });
    opened.map_err(|fault| fault.of(network, "open a way out of"))
}

/// Takes the way out of a guest's network away, if there is one, and with the last
/// one what the host had for them.
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
        tidy_host()
    });
    closed.map_err(|fault| fault.of(network, "close the way out of"))
}

/// Removes what the host had for ways out, if there is none any more.
///
/// # Errors
/// When the kernel refuses.
pub fn tidy() -> io::Result<()> {
    locked(tidy_host).map_err(|fault| match fault {
        Fault::Command(error) => io::Error::other(error),
        Fault::Kernel(error) => error,
    })
}

/// What went wrong with a way.
enum Fault {
    Command(CommandError),
    Kernel(io::Error),
}

impl From<CommandError> for Fault {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

impl Fault {
    fn of(self, network: &Network, doing: &'static str) -> NetworkError {
        match self {
            Self::Command(source) => NetworkError::Command {
                name: network.name.clone(),
                source,
            },
            Self::Kernel(source) => network.kernel(doing, source),
        }
    }
}

fn inside<T: Send>(
    network: &Network,
    work: impl FnOnce() -> Result<T, Fault> + Send,
) -> Result<T, Fault> {
    network.enter(|| Ok(work()))?
}

fn locked<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let lock = File::create(LOCK)?;
    lock.lock()?;
    work()
}

/// The interfaces of the network that the caller is in.
fn interfaces() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

fn exists(interface: &str) -> bool {
    interfaces().iter().any(|name| name == interface)
}

/// Makes the host's table with the first link, and lets it forward.
fn prepare_host() -> Result<(), Fault> {
    if has_table()? {
        return Ok(());
    }
    let forwards = fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() == "1");
    feed("nft", &["-f", "-"], &host(forwards))?;
    Ok(set_forwarding(true)?)
}

fn has_table() -> Result<bool, CommandError> {
    let mut list = command::prepare("nft");
    list.args(["list", "tables", "ip"]);
    let tables = command::run(list, LIMIT)?;
    Ok(String::from_utf8_lossy(&tables).contains(TABLE))
}

fn tidy_host() -> Result<(), Fault> {
    let linked = interfaces().iter().any(|name| name.starts_with(LINK));
    if linked || !has_table()? {
        return Ok(());
    }
    let mut list = command::prepare("nft");
    list.args(["list", "chains", "ip"]);
    let chains = command::run(list, LIMIT)?;
    // The chain is there when the host did not forward before.
    if String::from_utf8_lossy(&chains).contains(CLOSED) {
        set_forwarding(false)?;
    }
    Ok(feed(
        "nft",
        &["-f", "-"],
        &format!("delete table ip {TABLE}\n"),
    )?)
}

/// The chain for others than guests of a host that did not forward.
const CLOSED: &str = "forwards_for_guests_only";

/// The input of `nft` for the host: guests reach neither it nor each other, and are
/// reached by nobody. Its own firewall has the same say as before.
fn host(forwards: bool) -> String {
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

/// Makes a link under the first number that is free, and returns it.
fn link(network: &Network) -> Result<u16, Fault> {
    let taken = interfaces();
    let free = |number: &u16| !taken.contains(&format!("{LINK}{number}"));
    let none = || io::Error::other("all links out of guests' networks are taken");
    let number = (0..LINKS_MAX).find(free).ok_or_else(none)?;
    let (address, _) = addresses(number);
    let namespace = super::DIRECTORY;
    let name = &network.name;
    feed(
        "ip",
        &["-batch", "-"],
        &format!(
            "link add dev {LINK}{number} type veth peer name {OUT} netns {namespace}/{name}
link set dev {LINK}{number} addrgenmode none
address add {address} dev {LINK}{number}
link set dev {LINK}{number} up
"
        ),
    )?;
    Ok(number)
}

/// The addresses of a link: the host's and the guest's network's.
fn addresses(number: u16) -> (Ipv4Net, Ipv4Net) {
    let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + 2 * u32::from(number);
    let address = |offset: u32| Ipv4Net::new_assert(Ipv4Addr::from(base + offset), 31);
    (address(0), address(1))
}

/// The input of `ip -batch` for the guest's network.
fn inner(number: u16) -> String {
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

/// The input of `nft` that lets answers in through the link, and gives what goes out
/// its address.
fn entrance() -> String {
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

/// The input of `nft` that says what may be reached.
fn forward(way: &Way) -> String {
    let listed = way.private.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some(net.to_string()),
        IpNet::V6(_) => None,
    });
    let listed: Vec<_> = listed.collect();
    let but = match listed.as_slice() {
        [] => String::new(),
        listed => format!(" ip daddr != {{ {} }}", listed.join(", ")),
    };
    let to = match &way.places {
        None => vec![String::new()],
        Some(places) => {
            let to = |p: &SocketAddrV4| format!("ip daddr {} th dport {} ", p.ip(), p.port());
            places.iter().map(to).collect()
        }
    };
    let rule = "add rule inet guest forward";
    let accept = to.iter().map(|to| {
        let protocols = if to.is_empty() {
            ""
        } else {
            "meta l4proto { tcp, udp } "
        };
        format!("{rule} iifname {PORT} oifname {OUT} {protocols}{to}accept\n")
    });
    format!(
        "{rule} iifname {OUT} ct state {{ established, related }} accept
{rule} ip daddr {{ {NEVER} }} drop
{rule} ip daddr {{ {PRIVATE} }}{but} drop
{}",
        accept.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_a_way() {
        let places = Way {
            places: Some(vec!["192.0.2.1:443".parse().unwrap()]),
            private: vec!["10.1.0.0/16".parse().unwrap()],
        };
        let texts = [
            host(true),
            host(false),
            inner(300),
            entrance(),
            forward(&places),
            forward(&Way::default()),
        ];
        insta::assert_snapshot!(texts.join("\n"));
    }
}
