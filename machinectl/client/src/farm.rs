//! The queue of a farm, at one of its coordinators.

use std::io::Write;

use config::builds::Artifact;
use config::canary::Terms;
use config::schedule::RunResult;
use config::task::Digest;
use config::{BuildId, MachineName, ScheduleName};
use farm_core::messages::NewBuild;
use farm_core::schedules::NewSchedule;
use farm_core::view::{
    BuildPage, BuildQuery, BuildView, HostQuery, HostView, MachineView, ProjectView, QueueView,
    ScheduleView,
};
use farm_core::windows::{WindowId, WindowRequest};
use farm_core::{Published, Revision};
use serde::Deserialize;

use crate::{Client, Created, Result};
use config::uri::percent_encode;

/// The answer to the offer of a source.
#[derive(Debug, Deserialize)]
struct Offer {
    wanted: bool,
}

/// The answer to a submission.
#[derive(Debug, Deserialize)]
struct Submitted {
    build: BuildId,
}

/// The answer to a run of a schedule.
#[derive(Debug, Deserialize)]
struct Ran {
    build: BuildId,
    result: RunResult,
}

impl Client {
    /// Returns the schedules of the farm.
    pub fn farm_schedules(&self) -> Result<Vec<ScheduleView>> {
        self.get("schedules")
    }

    /// Returns a schedule of the farm.
    pub fn farm_schedule(&self, name: &ScheduleName) -> Result<ScheduleView> {
        self.get(&format!("schedules/{name}"))
    }

    /// Adds or replaces a schedule of the farm. In a dry run, the coordinator only checks it.
    pub fn farm_add_schedule(&self, schedule: &NewSchedule) -> Result<Created<ScheduleView>> {
        // Sources may have to be copied between coordinators first.
        self.create_slowly("schedules", schedule)
    }

    /// Removes a schedule of the farm; its builds stay.
    pub fn farm_remove_schedule(&self, name: &ScheduleName) -> Result<()> {
        self.delete(&format!("schedules/{name}"))
    }

    /// Pauses a schedule of the farm, or ends its pause.
    pub fn farm_pause_schedule(&self, name: &ScheduleName, is_paused: bool) -> Result<()> {
        let verb = if is_paused { "pause" } else { "resume" };
        self.command(&format!("schedules/{name}/{verb}"), &())
    }

    /// Runs a schedule of the farm at once. A repetition with the same key returns the same build.
    pub fn farm_run_schedule(
        &self,
        name: &ScheduleName,
        key: &str,
    ) -> Result<(BuildId, RunResult)> {
        let body = serde_json::json!({ "key": key });
        let ran: Ran = self.post(&format!("schedules/{name}/run"), &body)?;
        Ok((ran.build, ran.result))
    }

    /// Returns the projects of the farm.
    pub fn farm_projects(&self) -> Result<Vec<ProjectView>> {
        self.get("projects")
    }

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
        // Sources may have to be copied between coordinators first.
        let submitted: Created<Submitted> = self.create_slowly("builds", new)?;
        Ok(submitted.value.build)
    }

    /// Returns true if a coordinator takes a source of this size, which none has.
    pub fn farm_wants(&self, sha256: &Digest, bytes: u64) -> Result<bool> {
        let offer: Offer = self.get(&format!("sources/{sha256}/offer?bytes={bytes}"))?;
        Ok(offer.wanted)
    }

    /// Returns the artifacts of a build of the farm, which its host lists.
    pub fn farm_artifacts(&self, build: BuildId) -> Result<Vec<Artifact>> {
        self.get(&format!("builds/{build}/artifacts"))
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

    /// Returns a page of the farm's hosts, by name.
    pub fn farm_hosts(&self, query: &HostQuery) -> Result<Vec<HostView>> {
        let query = serde_urlencoded::to_string(query)?;
        self.get(&format!("hosts?{query}"))
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

    /// Adds a maintenance window to a host of the farm.
    pub fn farm_add_window(&self, name: &str, window: &WindowRequest) -> Result<()> {
        self.command(&format!("hosts/{}/windows", percent_encode(name)), window)
    }

    /// Takes a maintenance window of a host of the farm away.
    pub fn farm_remove_window(&self, name: &str, id: WindowId) -> Result<()> {
        self.delete(&format!("hosts/{}/windows/{}", percent_encode(name), id.0))
    }

    /// Returns the machines of the farm.
    pub fn farm_machines(&self) -> Result<Vec<MachineView>> {
        self.get("machines")
    }

    /// Makes a revision of a machine current in the farm, unless a newer one is. Returns the current one.
    /// A publication without a content gets that of the hosts.
    pub fn farm_publish(&self, machine: &MachineName, wanted: &Published) -> Result<Published> {
        self.post(&format!("machines/{machine}"), wanted)
    }

    /// Puts a revision of a machine on trial in the farm. Returns it with its content.
    pub fn farm_try(
        &self,
        machine: &MachineName,
        revision: Revision,
        terms: Terms,
    ) -> Result<Published> {
        let body = serde_json::json!({ "revision": revision, "canary": terms });
        self.post(&format!("machines/{machine}"), &body)
    }

    /// Ends the trial of a machine's revision in the farm, with `promote` or `rollback`.
    pub fn farm_end_trial(&self, machine: &MachineName, verb: &str) -> Result<()> {
        self.command(&format!("machines/{machine}/{verb}"), &())
    }
}
