//! The egress of a guest: the policy that its machine asks for, within the limit that the
//! host sets, with names resolved.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::Path;

use config::egress::{Destination, Egress, EgressMode};
use config::settings::Guests;
use guest::gateway::dns::{Table, host_resolver};
use guest::network::egress::{self, EgressPolicy};
use guest::network::{Network, NetworkError};

use super::gateway::dns::Names;

/// The file in a guest's run directory that records its egress.
const FILE: &str = "egress";

/// A reason why a guest's egress is refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The host allows less than the machine asks for.
    #[error(
        "the machine asks for egress `{requested}`, and this host allows `{allowed}`; see the setting guests.egress"
    )]
    Refused {
        /// The egress that the machine asks for.
        requested: Egress,
        /// The limit that the host sets.
        allowed: EgressMode,
    },
    /// A name cannot be resolved.
    #[error("cannot find the address of {host}, which the machine's egress names")]
    Unresolved {
        /// The name.
        host: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// The link or its rules failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The record in the run directory failed.
    #[error("cannot read or write the record of the guest's egress")]
    Record(#[from] io::Error),
}

/// Opens the egress that a machine asks for, and records it for an agent that adopts the
/// guest. Returns the names that the guest may resolve. Blocks.
pub(super) fn open(
    settings: &Guests,
    requested: &Egress,
    network: &Network,
    run_dir: &Path,
) -> Result<Names, EgressError> {
    if requested.mode() > settings.egress {
        return Err(EgressError::Refused {
            requested: requested.clone(),
            allowed: settings.egress,
        });
    }
    let (destinations, names) = match requested {
        Egress::None => return Ok(Names::none()),
        Egress::Nat => (
            None,
            host_resolver().map_or_else(Names::none, Names::Forward),
        ),
        Egress::Allow(destinations) => {
            let (addresses, table) = resolve(destinations)?;
            (Some(addresses), Names::Table(table))
        }
    };
    let policy = EgressPolicy {
        destinations,
        private: settings.egress_private.clone(),
    };
    // Recorded first: `close` looks for a link only where there is a record.
    sys::file::replace(&run_dir.join(FILE), requested.to_string().as_bytes())?;
    egress::open(network, &policy)?;
    Ok(names)
}

/// Opens the recorded egress of a guest to adopt. Blocks.
pub(super) fn reopen(
    settings: &Guests,
    network: &Network,
    run_dir: &Path,
) -> Result<Names, EgressError> {
    let record = match sys::trusted::read_text(run_dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Names::none()),
        record => record?,
    };
    let requested = record.parse().map_err(io::Error::other)?;
    open(settings, &requested, network, run_dir)
}

/// Closes the recorded egress of a guest. Blocks.
pub(super) fn close(network: &Network, run_dir: &Path) -> Result<(), NetworkError> {
    if run_dir.join(FILE).exists() {
        egress::close(network)?;
    }
    Ok(())
}

/// Resolves the destinations. Returns their addresses, and the table of their names.
fn resolve(destinations: &[Destination]) -> Result<(Vec<SocketAddrV4>, Table), EgressError> {
    let (mut addresses, mut table) = (Vec::new(), Table::new());
    for destination in destinations {
        let unresolved = |source| EgressError::Unresolved {
            host: destination.host.clone(),
            source,
        };
        let resolved: Vec<_> = (destination.host.as_str(), destination.port)
            .to_socket_addrs()
            .map_err(unresolved)?
            .filter_map(|address| match address {
                SocketAddr::V4(address) => Some(address),
                SocketAddr::V6(_) => None,
            })
            .collect();
        if resolved.is_empty() {
            return Err(unresolved(io::Error::other("it has no IPv4 address")));
        }
        let of_host = table.entry(destination.host.clone()).or_default();
        for address in resolved {
            if !of_host.contains(address.ip()) {
                of_host.push(*address.ip());
            }
            addresses.push(address);
        }
    }
    Ok((addresses, table))
}
