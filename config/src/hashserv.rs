//! The hash equivalence service at a guest's gateway: its port, the variable that a build gets, and
//! the rights of builds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The port of the service at the gateway, for its protocol and for websockets.
pub const PORT: u16 = 8686;
/// The variable that tells a build the address of the service, such as `169.254.111.222:8686`. It is
/// BitBake's own name. Not set without a service.
pub const VARIABLE: &str = "BB_HASHSERVE";

/// The rights of a build at the hash equivalence service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashservMode {
    /// It looks up hashes.
    Read,
    /// It reports its tasks as well.
    Report,
}

impl HashservMode {
    /// Returns true if the build reports its tasks.
    pub fn reports(self) -> bool {
        self == Self::Report
    }
}

impl fmt::Display for HashservMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Report => "report",
        })
    }
}
