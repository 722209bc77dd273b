//! The auxiliary guests of an attempt: their snapshots and their files.

use std::error::Error;
use std::io;
use std::sync::Arc;

use config::auxiliary::{self, AuxiliaryMachine, BYTES_MAX, FILE};
use config::builds::Build;
use config::machine::Machine;
use config::{AuxiliaryTag, NameError, Tag, task};
use session::{AdoptAuxiliary, AuxiliaryGroup, AuxiliarySpec};
use store::{Snapshot, SnapshotSource, StoreError};
use sys::blocking::blocking;
use tftp::server::{DeferredFile, Namespace};
use tracing::warn;

use super::auxiliary_task::{complete_task, numbered};
use crate::limits;
use crate::runner::JobError;
use state::paths::{CONSOLE, auxiliary_directory};
use state::{AgentState, ImageFacts};

/// Takes the snapshots of the auxiliary guests of a build, and returns the guests to start. Once all
/// of them are ready, the task of the build is provided.
pub(super) async fn prepare(
    agent: &Arc<AgentState>,
    build: &Build,
    task: DeferredFile,
) -> Result<AuxiliaryGroup, JobError> {
    let mut guests = Vec::new();
    for (tag, auxiliary) in numbered(build) {
        let snapshot = take_snapshot(agent, build, tag, auxiliary).await?;
        let path = snapshot.path().to_owned();
        let facts = blocking(move || ImageFacts::read(&path)).await;
        let machine: Machine = facts.machine.map_err(JobError::Manifest)?;
        let settings = agent.settings();
        guests.push(AuxiliarySpec {
            guest: describe(agent, tag, auxiliary).await?,
            start_limit: limits::of_auxiliary(&settings, &auxiliary.machine, &machine).start,
            snapshot,
            machine,
        });
    }
    let (directory, build) = (agent.paths.build(build.id), build.clone());
    let complete = move || {
        task.provide(&complete_task(&directory, &build)?);
        Ok(())
    };
    Ok(AuxiliaryGroup {
        guests,
        complete: Box::new(complete),
    })
}

/// Returns the auxiliary guests of a build to adopt.
pub(super) async fn adopt(agent: &AgentState, build: &Build) -> io::Result<Vec<AdoptAuxiliary>> {
    let mut guests = Vec::new();
    for (tag, auxiliary) in numbered(build) {
        guests.push(describe(agent, tag, auxiliary).await?);
    }
    Ok(guests)
}

/// Returns an auxiliary guest with its files. It may fetch its own task only, and puts its
/// environment.
async fn describe(
    agent: &AgentState,
    tag: AuxiliaryTag,
    auxiliary: &AuxiliaryMachine,
) -> io::Result<AdoptAuxiliary> {
    let directory = auxiliary_directory(&agent.paths.build(tag.build), tag.number);
    let own = directory.clone();
    blocking(move || std::fs::create_dir_all(own)).await?;
    let mut files = Namespace::new(0, 0);
    files.offer(task::TASK, auxiliary::task(auxiliary));
    files.accept(FILE, directory.join(FILE), BYTES_MAX);
    Ok(AdoptAuxiliary {
        tag,
        auxiliary: auxiliary.clone(),
        files,
        console: directory.join(CONSOLE),
        bytes_max: agent.settings().builds.log_bytes_max,
    })
}

async fn take_snapshot(
    agent: &Arc<AgentState>,
    build: &Build,
    tag: AuxiliaryTag,
    auxiliary: &AuxiliaryMachine,
) -> Result<Arc<Snapshot>, JobError> {
    let (agent, machine) = (Arc::clone(agent), auxiliary.machine.clone());
    let toolchain = build.toolchain.clone();
    blocking(move || {
        let located = agent.volumes.of_machine(&machine)?;
        let volume = located.and_then(|it| agent.volumes.get(it.volume));
        let Some(volume) = volume else {
            let reason = format!("auxiliary machine {machine} was deleted");
            return Err(io::Error::new(io::ErrorKind::NotFound, reason).into());
        };
        let tag = tag_of(tag)?;
        volume.delete_snapshot(&machine, &toolchain, &tag)?;
        let image = SnapshotSource::Image(toolchain.clone());
        let snapshot = volume.snapshot(&machine, &image, &toolchain, &tag)?;
        Ok(Arc::new(snapshot))
    })
    .await
}

fn tag_of(tag: AuxiliaryTag) -> Result<Tag, NameError> {
    tag.to_string().parse()
}

/// Deletes the snapshots of the auxiliary guests of a build, which have ended. A failure is logged;
/// the scheduler deletes those that are left.
pub(super) async fn delete_snapshots(agent: &Arc<AgentState>, build: &Build) {
    if build.auxiliaries().next().is_none() {
        return;
    }
    let (shared, build) = (Arc::clone(agent), build.clone());
    blocking(move || {
        for (tag, auxiliary) in numbered(&build) {
            if let Err(error) = delete_snapshot(&shared, &build, tag, auxiliary) {
                let error = &error as &dyn Error;
                let machine = &auxiliary.machine;
                warn!(%machine, error, "cannot delete the snapshot of an auxiliary guest");
            }
        }
    })
    .await;
}

fn delete_snapshot(
    agent: &AgentState,
    build: &Build,
    tag: AuxiliaryTag,
    auxiliary: &AuxiliaryMachine,
) -> Result<(), StoreError> {
    let Ok(tag) = tag_of(tag) else {
        return Ok(());
    };
    let (machine, toolchain) = (&auxiliary.machine, &build.toolchain);
    let volume = agent.volumes.of_snapshot(machine, toolchain, &tag)?;
    if let Some(volume) = volume.and_then(|id| agent.volumes.get(id)) {
        volume.delete_snapshot(machine, toolchain, &tag)?;
    }
    Ok(())
}
