//! How far a guest may reach beyond its host: what its machine asks for, within what
//! the host allows, with names looked up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use config::egress::{Destination, Egress, EgressMode};
use config::settings::Guests;

use guest::gateway::dns::{self, Names};
use guest::network::egress::{self, Way};
use guest::network::{Network, NetworkError};

/// The file in a guest's run directory that says what it may reach.
const FILE: &str = "egress";

/// Why a guest may not, or cannot, reach what its machine asks for.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The host allows less.
    #[error(
        "the machine asks for egress `{asked}`, and this host allows `{allowed}`; see the setting guests.egress"
    )]
    Refused {
        /// What the machine asks for.
        asked: Egress,
        /// How far the host lets guests reach.
        allowed: EgressMode,
    },
    /// A name has no address.
    #[error("cannot find the address of {host}, which the machine's egress names")]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The rules.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Our record of it.
    #[error("cannot use what is written down of the guest's egress")]
    Record(#[from] io::Error),
}

/// Opens what a machine asks for, and writes it down for an agent that takes the
/// guest up. Returns the names that the guest is told.
pub(super) async fn open(
    settings: &Guests,
    asked: &Egress,
    network: &Network,
    run: &Path,
) -> Result<Names, EgressError> {
    if asked.mode() > settings.egress {
        return Err(EgressError::Refused {
            asked: asked.clone(),
            allowed: settings.egress,
        });
    }
    let (places, names) = match asked {
        Egress::None => return Ok(nothing()),
        Egress::Nat => (None, dns::resolver().map_or_else(nothing, Names::Ask)),
        Egress::Allow(places) => {
            let (places, table) = look_up(places).await?;
            (Some(places), Names::Table(table))
        }
    };
    let way = Way {
        places,
        private: settings.egress_private.clone(),
    };
    // Written first: whoever finds it closes the way.
    sys::file::replace(&run.join(FILE), asked.to_string().as_bytes())?;
    tokio::task::block_in_place(|| egress::open(network, &way))?;
    Ok(names)
}

/// Opens again what a guest may reach that an earlier agent started.
pub(super) async fn reopen(
    settings: &Guests,
    network: &Network,
    run: &Path,
) -> Result<Names, EgressError> {
    let text = match fs::read_to_string(run.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nothing()),
        text => text?,
    };
    let asked = text.parse().map_err(io::Error::other)?;
    open(settings, &asked, network, run).await
}

/// Closes what a guest could reach.
pub(super) fn close(network: &Network, run: &Path) -> Result<(), NetworkError> {
    if run.join(FILE).exists() {
        egress::close(network)?;
    }
    Ok(())
}

fn nothing() -> Names {
    Names::Table(BTreeMap::new())
}

type Table = BTreeMap<String, Vec<Ipv4Addr>>;

async fn look_up(places: &[Destination]) -> Result<(Vec<SocketAddrV4>, Table), EgressError> {
    let (mut all, mut table) = (Vec::new(), Table::new());
    for place in places {
        let unknown = |source| EgressError::Unknown {
            host: place.host.clone(),
            source,
        };
        let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
        let found: Vec<_> = found
            .map_err(unknown)?
            .filter_map(|address| match address {
                SocketAddr::V4(address) => Some(address),
                SocketAddr::V6(_) => None,
            })
            .collect();
        if found.is_empty() {
            return Err(unknown(io::Error::other("it has no IPv4 address")));
        }
        let addresses = table.entry(place.host.clone()).or_default();
        for address in found {
            if !addresses.contains(address.ip()) {
                addresses.push(*address.ip());
            }
            all.push(address);
        }
    }
    Ok((all, table))
}
