//! The request for a build.

use serde::{Deserialize, Serialize};

use super::{ControllerTask, Priority, Resources, Submitter, Target};
use crate::exec::CommandLimits;
use crate::names::{BuildId, MachineName, ProjectName, SecretName, ToolchainName};
use crate::task::{Breakpoint, Source};

/// A request for a build. Its sources have been uploaded before, by their hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The machine to build on.
    pub machine: MachineName,
    /// The toolchain; by default the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<ToolchainName>,
    /// The sources.
    pub sources: Vec<Source>,
    /// The point at which the guest stops for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<Breakpoint>,
    /// Holds the guest when the build fails.
    #[serde(default)]
    pub hold: bool,
    /// Starts a driven guest: it has no sources, and waits for commands within these limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<CommandLimits>,
    /// The name of the build's subject; by default taken from the first source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The priority in the queue.
    #[serde(default)]
    pub priority: Priority,
    /// The resources of its guest.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// The builds that must succeed before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<BuildId>,
    /// The secrets that the build gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
    /// The submitter, if another one than the client. Only administrators may set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// Returns an equivalent unfinished build instead of creating one.
    #[serde(default = "enabled", rename = "attach")]
    pub coalesce: bool,
    /// The project that it builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
    /// The task of a controller that the build is made for. Not part of the API: only the agent
    /// sets it.
    #[serde(skip)]
    pub controller: Option<ControllerTask>,
}

/// A request to fork a running build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// The number of copies, at most [`Fork::COPIES_MAX`].
    pub copies: u32,
}

impl Fork {
    /// The largest number of copies of one fork.
    pub const COPIES_MAX: u32 = 64;
}

fn enabled() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_invalid_names_and_unknown_keys() {
        for text in [
            r#"{"machine": "../x", "sources": []}"#,
            r#"{"machine": "x", "sources": [], "colour": 1}"#,
            r#"{"machine": "x", "sources": [], "controller": null}"#,
            r#"{"machine": "x", "sources": [{"name": "a/b", "sha256": ""}]}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }
}
