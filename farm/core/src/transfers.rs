//! Transfers: files and images that a coordinator wants from a host, which sends them to it.

use std::fmt;

use config::{FileName, MachineName};
use serde::{Deserialize, Serialize};

use crate::{Lease, Revision};

/// The protocol to which connections for images switch.
pub const PROTOCOL: &str = "buildhost-transfer";
/// The header of a file with the status that the agent of the sending host has given it.
pub const STATUS: &str = "buildhost-status";

/// The random name of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransferId(pub String);

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The content of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Wanted {
    /// The log of a build.
    Log {
        /// The lease under which the host ran it.
        lease: Lease,
        /// The first byte.
        offset: u64,
        /// True to send until the build has ended.
        follow: bool,
    },
    /// The list of a build's artifacts.
    Artifacts {
        /// The lease under which the host ran it.
        lease: Lease,
    },
    /// One artifact of a build.
    Artifact {
        /// The lease under which the host ran it.
        lease: Lease,
        /// The name.
        name: FileName,
    },
    /// The provenance of a build.
    Provenance {
        /// The lease under which the host ran it.
        lease: Lease,
        /// True for the signed envelope.
        signed: bool,
    },
    /// A revision of a machine, in the dialogue between two hosts that `buildhost pull` has with
    /// `buildhost provide`.
    Image {
        /// The machine.
        machine: MachineName,
        /// The revision.
        revision: Revision,
    },
}

/// A transfer, as the host that sends is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferOrder {
    /// Its name.
    pub id: TransferId,
    /// The address of the coordinator that waits for it.
    pub coordinator: String,
    /// The content.
    pub wanted: Wanted,
}
