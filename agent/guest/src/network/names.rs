//! The fixed names and addresses of every guest's network, and its errors.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::machine::Kind;
use sys::command::CommandError;

/// The directory of named namespaces, as `ip netns` has it.
pub(super) const DIRECTORY: &str = "/run/netns";
/// The host's interface in every namespace.
pub(crate) const HOST_LINK: &str = "guest0";
/// The peer of a veth pair, which becomes the network card of a container.
pub(super) const CONTAINER_LINK: &str = "eth0";
/// The host's hardware address in every namespace. It is constant: a restored guest has it
/// in its neighbor table.
pub(super) const HOST_MAC: &str = "02:62:68:00:00:01";
/// The only hardware address that a guest may use.
pub const GUEST_MAC: &str = "02:62:68:00:00:02";
/// The time limit of `ip` and `nft`.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// The link from the host's end to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkType {
    /// A tap, for QEMU: see [`Network::open_tap`](super::Network::open_tap).
    Tap,
    /// A veth pair, for a container: see
    /// [`Network::create_container_end`](super::Network::create_container_end).
    Veth,
}

impl From<Kind> for LinkType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Kvm => Self::Tap,
            Kind::Nspawn => Self::Veth,
        }
    }
}

/// A reason why a guest's network cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The name is invalid.
    #[error("`{0}` cannot name a network; use up to 64 letters, digits, `_` and `-`")]
    Name(String),
    /// A network of this name exists.
    #[error("the network `{0}` exists already; delete it first")]
    Exists(String),
    /// No network of this name exists.
    #[error("there is no network `{0}`")]
    Missing(String),
    /// `ip` or `nft` failed.
    #[error("cannot set up the network `{name}`")]
    Command {
        /// The network.
        name: String,
        /// The error of the command.
        source: CommandError,
    },
    /// The kernel refused.
    #[error("cannot {action} the network `{name}`")]
    Kernel {
        /// The network.
        name: String,
        /// The action that failed.
        action: &'static str,
        /// The error of the kernel.
        source: io::Error,
    },
}

/// Returns the path of a named namespace.
pub(super) fn path(name: &str) -> Result<PathBuf, NetworkError> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_valid) {
        return Err(NetworkError::Name(name.chars().take(70).collect()));
    }
    Ok(Path::new(DIRECTORY).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_directory() {
        for name in ["", ".", "..", "a/b", "a b", "a.b", &"x".repeat(65)] {
            assert!(path(name).is_err(), "{name}");
        }
        assert!(path("buildhost-42").is_ok());
    }
}
