//! The addresses that a server listens on: all addresses of a name, or a Unix socket.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::lookup_host;

use crate::target::host_and_port;

/// The prefix of a Unix socket, as BitBake writes it.
pub const UNIX_PREFIX: &str = "unix://";

/// The maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// The number of free ports that are tried until all addresses of a name have the same.
const PORTS_MAX: usize = 16;

/// The other programs that may listen on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortSharing {
    /// None.
    Exclusive,
    /// Those of the same user that share it too. The kernel distributes the connections.
    Shared,
}

/// The text of an address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A name or an address, and a port; 0 is a free port.
    Tcp {
        /// The name or the address; empty for all addresses of this host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// The error of a text that is not an address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not HOST:PORT or unix://PATH; :8585 stands for all addresses of this host, and \
     0.0.0.0:8585 for its IPv4 addresses"
)]
pub struct ListenAddressError(String);

/// The error of an address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The name cannot be resolved.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// The cause.
        source: io::Error,
    },
    /// The name has no address.
    #[error("{host} resolves to no address")]
    NoAddress {
        /// The name.
        host: String,
    },
    /// An address cannot be used.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// A socket of systemd cannot be used.
    #[error("cannot use the sockets that systemd passed")]
    Passed(#[source] io::Error),
    /// The Unix socket cannot be created.
    #[error("cannot listen on {}", path.display())]
    Unix {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        let error = || ListenAddressError(text.to_owned());
        match text.strip_prefix(UNIX_PREFIX) {
            Some("") => Err(error()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => {
                let (host, port) = match text.strip_prefix(':') {
                    Some(port) => (String::new(), port.parse().map_err(|_| error())?),
                    None => host_and_port(text, None).map_err(|_| error())?,
                };
                Ok(Self::Tcp { host, port })
            }
        }
    }
}

impl ListenAddress {
    /// Returns the name or the address, and the port, `host:port`; `None` if it has no name.
    pub fn host_and_port(&self) -> Option<String> {
        match self {
            Self::Tcp { host, port } if !host.is_empty() => Some(format!("{host}:{port}")),
            Self::Tcp { .. } | Self::Unix(_) => None,
        }
    }
}

/// Listens on `HOST:PORT` as [`listen_on_all`] does.
///
/// # Errors
/// The text is malformed, or the port cannot be listened on.
pub async fn listen_on_port(text: &str) -> io::Result<Vec<tokio::net::TcpListener>> {
    let (host, port) = host_and_port(text, None).map_err(io::Error::other)?;
    let listeners = listen_on_all(&host, port, PortSharing::Exclusive).await;
    let listeners = listeners.map_err(io::Error::other)?;
    listeners
        .into_iter()
        .map(tokio::net::TcpListener::from_std)
        .collect()
}

/// Listens on a port of all addresses of a name. Addresses that this host does not have are left
/// out, unless it has none of them. The empty name stands for all addresses of this host.
///
/// # Errors
/// The name cannot be resolved, or another program has the port.
pub async fn listen_on_all(
    host: &str,
    port: u16,
    sharing: PortSharing,
) -> Result<Vec<TcpListener>, ListenError> {
    if host.is_empty() {
        return listen_everywhere(port, sharing).map(|listener| vec![listener]);
    }
    let found = lookup_host((host, port)).await;
    let found = found.map_err(|source| ListenError::Resolve {
        host: host.to_owned(),
        source,
    })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(ListenError::NoAddress {
            host: host.to_owned(),
        });
    }
    let mut tries = 1;
    loop {
        match bind_all(&addresses, sharing) {
            Err(ListenError::Bind { source, .. })
                if port == 0 && source.kind() == ErrorKind::AddrInUse && tries < PORTS_MAX =>
            {
                tries += 1;
            }
            bound => return bound,
        }
    }
}

/// Listens on all addresses of this host: on a socket for both families, or one for IPv4 if the host
/// has no IPv6.
fn listen_everywhere(port: u16, sharing: PortSharing) -> Result<TcpListener, ListenError> {
    let (both, only_v4) = (
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    );
    let failed = |address| move |source| ListenError::Bind { address, source };
    match bind(both, sharing) {
        Err(error) if is_missing(&error) => bind(only_v4, sharing).map_err(failed(only_v4)),
        bound => bound.map_err(failed(both)),
    }
}

/// Listens on all addresses. If their port is 0, all get the port of the first one.
fn bind_all(
    addresses: &[SocketAddr],
    sharing: PortSharing,
) -> Result<Vec<TcpListener>, ListenError> {
    let (mut listeners, mut missing) = (Vec::new(), None);
    let mut free_port = 0;
    for address in addresses {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(free_port);
        }
        match bind(address, sharing) {
            Ok(listener) => {
                free_port = listener.local_addr().map_or(0, |address| address.port());
                listeners.push(listener);
            }
            Err(source) if is_missing(&source) => {
                missing = Some(ListenError::Bind { address, source });
            }
            Err(source) => return Err(ListenError::Bind { address, source }),
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn bind(address: SocketAddr, sharing: PortSharing) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == PortSharing::Shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Returns true if this host does not have the address or its family.
fn is_missing(error: &io::Error) -> bool {
    let missing = [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT];
    missing
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// Listens on a Unix socket. Its rights follow the umask. A socket that no server answers is
/// replaced. Only the name of the file is limited to about 80 bytes, not the path, which the kernel
/// limits to 107, because the directory is opened first.
///
/// # Errors
/// Another server answers, or the path is not a socket.
pub fn listen_on_unix(path: &Path) -> Result<UnixListener, ListenError> {
    bind_unix(path).map_err(|source| ListenError::Unix {
        path: path.to_owned(),
        source,
    })
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let path = std::path::absolute(path)?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    let opened = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = Path::new(&opened).join(name);
    let listener = match UnixListener::bind(&path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_abandoned(&path) => {
            fs::remove_file(&path)?;
            UnixListener::bind(&path)?
        }
        bound => bound?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).err().is_some_and(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_or_a_unix_socket() {
        let tcp = |host: &str, port| ListenAddress::Tcp {
            host: host.to_owned(),
            port,
        };
        for (text, expected) in [
            ("localhost:0", tcp("localhost", 0)),
            ("0.0.0.0:8585", tcp("0.0.0.0", 8585)),
            ("[::]:8585", tcp("::", 8585)),
            (":8585", tcp("", 8585)),
            ("unix:///run/x y", ListenAddress::Unix("/run/x y".into())),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "8585",
            ":",
            ":99999",
            "host",
            "host:",
            "unix://",
            "[::1]",
            "host:99999",
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(error.contains(" :8585"), "{error}");
        }
    }

    #[test]
    fn all_addresses_get_the_free_port_of_the_first_one() {
        let addresses = ["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"];
        let addresses = addresses.map(|text| text.parse().unwrap());
        let listeners = bind_all(&addresses, PortSharing::Exclusive).unwrap();
        let local: Vec<SocketAddr> = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        assert!(
            local
                .iter()
                .all(|address| address.port() == local[0].port())
        );
        assert!(
            local
                .iter()
                .zip(addresses)
                .all(|(local, asked)| local.ip() == asked.ip())
        );
    }

    #[test]
    fn an_address_of_another_host_is_left_out_unless_it_is_the_only_one() {
        let (foreign, own) = (
            "192.0.2.1:0".parse().unwrap(),
            "127.0.0.1:0".parse().unwrap(),
        );
        let bind_all = |addresses: &[SocketAddr]| bind_all(addresses, PortSharing::Exclusive);
        assert_eq!(bind_all(&[foreign, own]).unwrap().len(), 1);
        assert!(
            matches!(bind_all(&[foreign]), Err(ListenError::Bind { address, .. }) if address == foreign)
        );
    }

    #[test]
    fn a_port_in_use_is_an_error_also_of_the_second_address() {
        let taken = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let addresses = [1, 2].map(|last| SocketAddr::from(([127, 0, 0, last], port)));
        let error = bind_all(&addresses, PortSharing::Exclusive).unwrap_err();
        let text = format!("cannot listen on 127.0.0.2:{port}");
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_port_is_shared_only_with_servers_that_share_it_too() {
        let address = "127.0.0.4:0".parse().unwrap();
        let first = bind(address, PortSharing::Shared).unwrap();
        let address = first.local_addr().unwrap();
        assert!(bind(address, PortSharing::Exclusive).is_err());
        bind(address, PortSharing::Shared).unwrap();
    }

    #[tokio::test]
    async fn the_empty_name_stands_for_all_addresses_of_this_host() {
        let listeners = listen_on_all("", 0, PortSharing::Exclusive).await.unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn a_socket_may_have_a_long_path() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("socket");
        let _first = listen_on_unix(&path).unwrap();
        assert!(listen_on_unix(&path).is_err(), "it is in use");
    }

    #[test]
    fn an_abandoned_socket_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = listen_on_unix(&path).unwrap();
        assert!(listen_on_unix(&path).is_err());
        drop(first);
        listen_on_unix(&path).unwrap();
        let file = directory.path().join("file");
        fs::File::create(&file).unwrap();
        assert!(listen_on_unix(&file).is_err());
        assert!(file.exists());
    }
}
