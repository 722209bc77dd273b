//! The queue of a farm, at one of its coordinators.

use std::io::Write;

use config::{BuildId, MachineName};
use farm_core::messages::NewBuild;
use farm_core::view::{BuildPage, BuildQuery, BuildView, HostView, MachineView, QueueView};
use serde::Deserialize;

use crate::{Client, Result};
use config::uri::percent_encode;

/// The answer to a submission.
#[derive(Debug, Deserialize)]
struct Submitted {
    build: BuildId,
}

impl Client {
    /// Returns a page of the farm's builds.
    pub fn farm_builds(&self, query: &BuildQuery) -> Result<BuildPage> {
        let query = serde_urlencoded::to_string(query)?;
        self.get(&format!("builds?{query}"))
    }

    /// Returns a build of the farm.
    pub fn farm_build(&self, build: BuildId) -> Result<BuildView> {
        self.get(&format!("builds/{build}"))
    }

    /// Submits a build to the farm. A repetition with the same key returns the same build.
    pub fn farm_submit(&self, new: &NewBuild) -> Result<BuildId> {
        let submitted: Submitted = self.post("builds", new)?;
        Ok(submitted.build)
    }

    /// Cancels a build of the farm.
    pub fn farm_cancel(&self, build: BuildId) -> Result<()> {
        self.command(&format!("builds/{build}/cancel"), &())
    }

    /// Copies the log of a build, which its host sends; with `follows`, as it grows. Returns the number of
    /// bytes.
    pub fn farm_log(&self, build: BuildId, follows: bool, sink: &mut impl Write) -> Result<u64> {
        self.copy(&format!("builds/{build}/log?follow={follows}"), sink)
    }

    /// Returns the queue of the farm.
    pub fn farm_queue(&self) -> Result<QueueView> {
        self.get("queue")
    }

    /// Returns the hosts of the farm.
    pub fn farm_hosts(&self) -> Result<Vec<HostView>> {
        self.get("hosts")
    }

    /// Returns a host of the farm.
    pub fn farm_host(&self, name: &str) -> Result<HostView> {
        self.get(&format!("hosts/{}", percent_encode(name)))
    }

    /// Stops or permits new builds on a host of the farm.
    pub fn farm_drain(&self, name: &str, is_drained: bool) -> Result<()> {
        let verb = if is_drained { "drain" } else { "undrain" };
        self.command(&format!("hosts/{}/{verb}", percent_encode(name)), &())
    }

    /// Returns the machines of the farm.
    pub fn farm_machines(&self) -> Result<Vec<MachineView>> {
        self.get("machines")
    }

    /// Makes a revision of a machine current in the farm, unless a newer one is.
    pub fn farm_publish(&self, machine: &MachineName, revision: u64) -> Result<()> {
        let body = serde_json::json!({ "revision": revision });
        self.command(&format!("machines/{machine}"), &body)
    }
}
