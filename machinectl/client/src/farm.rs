//! The queue of a farm, at one of its coordinators.

use std::io::Write;

use config::schedule::RunResult;
use config::{BuildId, MachineName, ScheduleName};
use farm_core::messages::NewBuild;
use farm_core::schedules::NewSchedule;
use farm_core::view::{
    BuildPage, BuildQuery, BuildView, HostView, MachineView, ProjectView, QueueView, ScheduleView,
};
use serde::Deserialize;

use crate::http::segment;
use crate::{Client, Created, Result};

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
        self.create("schedules", schedule)
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
        self.get(&format!("hosts/{}", segment(name)))
    }

    /// Stops or permits new builds on a host of the farm.
    pub fn farm_drain(&self, name: &str, is_drained: bool) -> Result<()> {
        let verb = if is_drained { "drain" } else { "undrain" };
        self.command(&format!("hosts/{}/{verb}", segment(name)), &())
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
