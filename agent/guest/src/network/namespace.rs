//! A network of its own for every guest: a named namespace with one interface in it,
//! the host's end of the guest's cable.
//!
//! All guests see the same addresses and cannot see each other: who asks is known
//! from the namespace in which our socket was opened, not from an address that
//! could be forged. The namespace outlives the agent, so that a guest goes on
//! while the agent is restarted; nothing but [`delete`] takes it away.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use config::machine::Kind;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{rules, tap};
use sys::command::{self, CommandError};

/// Where named namespaces live; `ip netns` agrees.
pub(super) const DIRECTORY: &str = "/run/netns";
/// The name of the host's end in every namespace.
pub(crate) const PORT: &str = "guest0";
/// The name of the other end of a pair; where a container has its own network card.
pub(super) const CARD: &str = "eth0";
/// The host's hardware address in every namespace. It never changes: a guest that
/// is woken from its freeze has it in its tables.
pub(super) const HOST_MAC: &str = "02:62:68:00:00:01";
/// The only hardware address that a guest may use.
pub const GUEST_MAC: &str = "02:62:68:00:00:02";
/// How long `ip` and `nft` may take.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Why a guest has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The name cannot be one.
    #[error("`{0}` cannot name a network; use up to 64 letters, digits, `_` and `-`")]
    Name(String),
    /// There is one of this name.
    #[error("the network `{0}` is there already; delete it first")]
    Exists(String),
    /// There is none of this name.
    #[error("there is no network `{0}`")]
    Missing(String),
    /// One of the programs that make it failed.
    #[error("cannot set up the network `{name}`")]
    Command {
        /// The network.
        name: String,
        /// What failed.
        source: CommandError,
    },
    /// The kernel refused.
    #[error("cannot {doing} the network `{name}`")]
    Kernel {
        /// The network.
        name: String,
        /// What we did.
        doing: &'static str,
        /// How it failed.
        source: io::Error,
    },
}

/// What leads from the host's end to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// A tap, for QEMU: see [`Network::tap`].
    Tap,
    /// A pair of interfaces, for a container: see [`Network::inside`].
    Pair,
}

impl From<Kind> for Cable {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Kvm => Self::Tap,
            Kind::Nspawn => Self::Pair,
        }
    }
}

/// One guest's network. Dropping it leaves it there.
#[derive(Debug)]
pub struct Network {
    pub(super) name: String,
    namespace: File,
}

impl Network {
    /// Makes a network: loopback, an interface with the host's addresses, no route, no
    /// forwarding, and rules that let the guest reach nothing but TFTP, DHCP, the PR
    /// service and the log. When it fails, nothing is left.
    ///
    /// # Errors
    /// When there is one already, or the kernel refuses.
    pub fn create(name: &str, cable: Cable) -> Result<Self, NetworkError> {
        let path = path(name)?;
        if path.exists() {
            return Err(NetworkError::Exists(name.to_owned()));
        }
        let made = Self::make(name, cable);
        if made.is_err() {
            // The first failure is the one to tell; what is left is found again by `list`.
            let _ = delete(name);
        }
        made
    }

    fn make(name: &str, cable: Cable) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Command {
            name: name.to_owned(),
            source,
        };
        let mut add = command::prepare("ip");
        add.args(["netns", "add", name]);
        command::run(add, LIMIT).map_err(failed)?;
        let network = Self::open(name)?;
        network
            .enter(|| {
                rules::set_kernel_switches()?;
                Ok(rules::apply(cable))
            })
            .map_err(|source| network.kernel("set up", source))?
            .map_err(failed)?;
        Ok(network)
    }

    /// Opens a network that is there, such as one that an earlier agent made.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn open(name: &str) -> Result<Self, NetworkError> {
        match File::open(path(name)?) {
            Ok(namespace) => Ok(Self {
                name: name.to_owned(),
                namespace,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(NetworkError::Missing(name.to_owned()))
            }
            Err(source) => Err(NetworkError::Kernel {
                name: name.to_owned(),
                doing: "open",
                source,
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread of its own inside the network. Threads, processes
    /// and sockets that it makes stay inside.
    ///
    /// # Errors
    /// What `work` returns, or that the thread could not get there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let inside = || {
            move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("network".to_owned())
                .spawn_scoped(scope, inside)?;
            let panicked = |_| Err(io::Error::other("the thread in the network panicked"));
            thread.join().unwrap_or_else(panicked)
        })
    }

    /// A UDP socket inside. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn udp(&self, address: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        let socket = self.enter(|| UdpSocket::bind(address))?;
        socket.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(socket)
    }

    /// A TCP listener inside. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn tcp_listener(&self, address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        let listener = self.enter(|| TcpListener::bind(address))?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    }

    /// The tap, open, to be handed to QEMU. One process may have it at a time.
    ///
    /// # Errors
    /// `EBUSY` when another process has it.
    pub fn tap(&self) -> io::Result<OwnedFd> {
        self.enter(tap::open)
    }

    /// A namespace with the guest's end of a pair, ready to be used: its address, and
    /// a route to the host. It goes with the last process in it, and takes the pair
    /// with it.
    ///
    /// # Errors
    /// When there is no such end, or it was taken before.
    pub fn inside(&self) -> Result<OwnedFd, NetworkError> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let inside: OwnedFd = File::open("/proc/thread-self/ns/net")?.into();
            rules::open_ports()?;
            move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let moved = rules::hand_over(inside.as_fd());
            move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(moved.and_then(|()| rules::apply_inside()).map(|()| inside))
        };
        self.enter(make)
            .map_err(|source| self.kernel("set up the inside of", source))?
            .map_err(|source| NetworkError::Command {
                name: self.name.clone(),
                source,
            })
    }

    /// How many packets have come from the guest.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn packets(&self) -> io::Result<u64> {
        let text = self.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        Ok(received(&text))
    }

    /// The processes that were started inside.
    ///
    /// # Errors
    /// When the list of processes cannot be read.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let ours = self.namespace.metadata()?;
        let inside = |pid: &u32| {
            // A process that ends while we look is none.
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|other| (other.dev(), other.ino()) == (ours.dev(), ours.ino()))
        };
        let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(pids.filter(inside).collect())
    }

    /// See [`delete`].
    ///
    /// # Errors
    /// See [`delete`].
    pub fn delete(self) -> Result<(), NetworkError> {
        delete(&self.name)
    }

    pub(super) fn kernel(&self, doing: &'static str, source: io::Error) -> NetworkError {
        NetworkError::Kernel {
            name: self.name.clone(),
            doing,
            source,
        }
    }
}

/// The packets that all interfaces but the loopback have received, of the kernel's
/// table: `NAME: BYTES PACKETS …`.
fn received(table: &str) -> u64 {
    let count = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let packets = numbers.split_ascii_whitespace().nth(1)?;
        (name.trim() != "lo").then(|| packets.parse::<u64>().ok())?
    };
    table.lines().filter_map(count).sum()
}

/// The names of all networks that begin with `prefix`.
///
/// # Errors
/// When the directory of namespaces cannot be read.
pub fn list(prefix: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    Ok(names)
}

/// Kills what still runs in a network and takes the network away. It is no fault
/// when there is none.
///
/// # Errors
/// When it is there and cannot be deleted.
pub fn delete(name: &str) -> Result<(), NetworkError> {
    if !path(name)?.exists() {
        return Ok(());
    }
    // Half-made ones are no namespaces and have no processes.
    if let Ok(network) = Network::open(name) {
        let pids = network
            .processes()
            .map_err(|source| network.kernel("look into", source))?;
        pids.into_iter().for_each(kill);
    }
    let mut delete = command::prepare("ip");
    delete.args(["netns", "delete", name]);
    match command::run(delete, LIMIT) {
        Err(source) if path(name)?.exists() => Err(NetworkError::Command {
            name: name.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let handle = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(handle) = handle {
        // It may have ended by itself.
        let _ = pidfd_send_signal(handle, Signal::KILL);
    }
}

fn path(name: &str) -> Result<PathBuf, NetworkError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
        return Err(NetworkError::Name(name.chars().take(70).collect()));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_but_not_those_to_oneself() {
        let table = "Inter-|   Receive\n face |bytes    packets errs\n    lo:  84  1 0\n  tap0: 840 10 0\n  x:1 2\n";
        assert_eq!(received(table), 12);
    }

    #[test]
    fn a_name_stays_in_its_directory() {
        for name in ["", ".", "..", "a/b", "a b", "a.b", &"x".repeat(65)] {
            assert!(path(name).is_err(), "{name}");
        }
        assert!(path("buildhost-42").is_ok());
    }
}
