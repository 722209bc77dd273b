//! A named network namespace for every guest, with one interface: the host's end of the
//! link to the guest. The auxiliary guests of a build share the namespace of its guest, with a bridge.
//!
//! All builds' guests see the same addresses and cannot see each other: the agent knows a guest by
//! the namespace in which it opened a socket, not by an address that could be forged. The
//! namespace outlives the agent, so that its guest runs on during a restart; only
//! [`delete`] removes it.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sys::command::{self, CommandError};

use super::names::{DIRECTORY, HOST_LINK, LIMIT, LinkType, NetworkError, path};
use super::port::Port;
use super::{bridge, rules, tap};

/// One guest's network. Dropping it leaves the namespace in place.
#[derive(Debug)]
pub struct Network {
    name: String,
    namespace: File,
}

impl Network {
    /// Creates a network: loopback, an interface with the host's addresses, no route, no
    /// forwarding, and a packet filter that lets the guest reach nothing but TFTP, DHCP, the
    /// PR service and the log. On failure nothing is left.
    ///
    /// # Errors
    /// When the network exists already, or the kernel refuses.
    pub fn create(name: &str, link: LinkType) -> Result<Self, NetworkError> {
        Self::create_with(name, || Ok(rules::apply(link)))
    }

    /// Creates a network for a build's guest and its auxiliary ones, with one link for each: the
    /// build's first. On failure nothing is left.
    ///
    /// # Errors
    /// When the network exists already, or the kernel refuses.
    pub fn create_shared(name: &str, links: &[LinkType]) -> Result<Self, NetworkError> {
        Self::create_with(name, || {
            bridge::set_kernel_switches()?;
            Ok(bridge::apply(links))
        })
    }

    fn create_with(
        name: &str,
        apply: impl FnOnce() -> io::Result<Result<(), CommandError>> + Send,
    ) -> Result<Self, NetworkError> {
        if path(name)?.exists() {
            return Err(NetworkError::Exists(name.to_owned()));
        }
        let created = Self::set_up(name, apply);
        if created.is_err() {
            // The first error is the one to report; `list` finds what is left.
            let _ = delete(name);
        }
        created
    }

    fn set_up(
        name: &str,
        apply: impl FnOnce() -> io::Result<Result<(), CommandError>> + Send,
    ) -> Result<Self, NetworkError> {
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
                apply()
            })
            .map_err(|source| network.kernel_error("set up", source))?
            .map_err(failed)?;
        Ok(network)
    }

    /// Opens a network that exists, such as one of an earlier agent.
    ///
    /// # Errors
    /// When no network of this name exists.
    pub fn open(name: &str) -> Result<Self, NetworkError> {
        match sys::trusted::open(path(name)?) {
            Ok(namespace) => Ok(Self {
                name: name.to_owned(),
                namespace,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(NetworkError::Missing(name.to_owned()))
            }
            Err(source) => Err(NetworkError::Kernel {
                name: name.to_owned(),
                action: "open",
                source,
            }),
        }
    }

    /// Returns the network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the network another name, which no other network has.
    ///
    /// # Errors
    /// When the name is taken, or the kernel refuses. The network may have both names then.
    pub fn rename(self, name: &str) -> Result<Self, NetworkError> {
        let target = path(name)?;
        if target.exists() {
            return Err(NetworkError::Exists(name.to_owned()));
        }
        let old = path(&self.name)?;
        let renamed = File::create_new(&target)
            .and_then(|_| Ok(mount_bind(&old, &target)?))
            .and_then(|()| Ok(unmount(&old, UnmountFlags::DETACH)?))
            .and_then(|()| fs::remove_file(&old));
        renamed.map_err(|source| self.kernel_error("rename", source))?;
        Ok(Self {
            name: name.to_owned(),
            namespace: self.namespace,
        })
    }

    /// Runs `work` on a thread of its own inside the network. Threads, processes and sockets
    /// that it creates stay inside.
    ///
    /// # Errors
    /// When `work` fails, or the thread cannot enter the network.
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

    /// Opens a UDP socket inside.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        self.enter(|| UdpSocket::bind(address))
    }

    /// Opens a TCP listener inside.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn tcp_listener(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.enter(|| TcpListener::bind(address))
    }

    /// Opens the tap for QEMU, of a port if the network has several. One process may have it at a
    /// time.
    ///
    /// # Errors
    /// `EBUSY` when another process has it.
    pub fn open_tap(&self, port: Option<Port>) -> io::Result<OwnedFd> {
        let name = port.map_or_else(|| HOST_LINK.to_owned(), Port::interface);
        self.enter(|| tap::open(&name))
    }

    /// Creates a namespace with the guest's end of a veth pair, of a port if the network has
    /// several, its address, and a route to the host. The namespace ends with the last process in it, and the pair with it.
    ///
    /// # Errors
    /// When there is no such end, or another container has taken it.
    pub fn create_container_end(&self, port: Option<Port>) -> Result<OwnedFd, NetworkError> {
        let create = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let inside: OwnedFd = sys::trusted::open("/proc/thread-self/ns/net")?.into();
            rules::open_ports()?;
            move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let moved = rules::move_container_link(inside.as_fd(), port);
            move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(moved
                .and_then(|()| rules::apply_in_container(port.unwrap_or(Port::BUILD)))
                .map(|()| inside))
        };
        self.enter(create)
            .map_err(|source| self.kernel_error("set up the container's end of", source))?
            .map_err(|source| NetworkError::Command {
                name: self.name.clone(),
                source,
            })
    }

    /// Returns the processes inside.
    ///
    /// # Errors
    /// When the list of processes cannot be read.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let namespace = self.namespace.metadata()?;
        let is_inside = |pid: &u32| {
            // Fails for a process that ends meanwhile.
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|it| (it.dev(), it.ino()) == (namespace.dev(), namespace.ino()))
        };
        let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(pids.filter(is_inside).collect())
    }

    /// Deletes the network: see [`delete`].
    ///
    /// # Errors
    /// See [`delete`].
    pub fn delete(self) -> Result<(), NetworkError> {
        delete(&self.name)
    }

    pub(super) fn kernel_error(&self, action: &'static str, source: io::Error) -> NetworkError {
        NetworkError::Kernel {
            name: self.name.clone(),
            action,
            source,
        }
    }
}

/// Returns the names of all networks that begin with `prefix`.
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

/// Kills the processes in a network and deletes the network. Succeeds when it does not
/// exist.
///
/// # Errors
/// When the network exists and cannot be deleted.
pub fn delete(name: &str) -> Result<(), NetworkError> {
    if !path(name)?.exists() {
        return Ok(());
    }
    // A half-created one is a plain file and has no processes.
    if let Ok(network) = Network::open(name) {
        let pids = network
            .processes()
            .map_err(|source| network.kernel_error("list the processes of", source))?;
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
    let fd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(fd) = fd {
        // Fails when the process has ended by itself.
        let _ = pidfd_send_signal(fd, Signal::KILL);
    }
}
