//! The task of a controller that a build is made for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::auxiliary::AuxiliaryMachine;
use crate::controllers::ControllerPriority;
use crate::names::{ControllerName, Revision};

/// The task of a controller that a build is made for. The manifest of the task is a file in the
/// directory of the build, byte for byte as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerTask {
    /// The controller.
    pub controller: ControllerName,
    /// Its priority when the task was taken.
    pub priority: ControllerPriority,
    /// The session of the task, which the controller chose. It is sent back unchanged.
    pub session: String,
    /// The name of the package.
    pub package: String,
    /// The version of the package.
    pub version: String,
    /// The end of the lease, at which a build without a result is stopped.
    pub expires: Timestamp,
    /// The auxiliary machines that run beside the build, in the order of the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auxiliaries: Vec<AuxiliaryMachine>,
    /// True if the task is a script instead of a manifest for the toolchain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub script: bool,
    /// True if a guard outside the agent ends its guest at the deadline of the lease, as for builds of a
    /// farm. Such a lease starts one guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guarded: bool,
    /// The revision on trial on which it runs, and on no other; `None` for the current one. Its result is
    /// its controller's, and it is not repeated here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Revision>,
}
