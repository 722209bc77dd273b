//! The revisions of a farm on this host: they are fetched, put on trial, promoted and rolled back.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use config::canary::{FarmTrial, TrialVerdict};
use config::task::Digest;
use config::{ControllerName, MachineName};
use controllers::farm::FarmKey;
use farm_core::trials::{HostTrial, TrialNumber, TrialOrder};
use farm_core::{Published, Revision, Standing};
use planner::Observed;
use state::AgentState;
use store::{MachineRefusal, StoreError, Volume, VolumeId};
use sys::blocking::blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::transfers::{TransferError, transfer, volume_of};
use super::{Farm, builds, offer};
use crate::scheduler;

/// The result of putting a revision on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// The trial is on disk.
    OnTrial,
    /// This host has made that revision or a newer one current.
    Newer(Revision),
    /// This host has other content under its number.
    OtherContent,
    /// It has not arrived.
    Failed,
}

/// Returns the last trial of each machine that a farm has asked for.
pub(super) fn trials_of(
    observed: &Observed,
    farm: &ControllerName,
) -> BTreeMap<MachineName, HostTrial> {
    let machines = observed.machines.values();
    let trials = machines.filter_map(|state| {
        let (_, trial) = state.view.trial_of_farm(farm)?;
        let candidate = state.view.candidate();
        let is_open = candidate.is_some_and(|(_, it)| it.farm.as_ref() == Some(trial));
        let number = TrialNumber(trial.number);
        Some((state.view.name.clone(), HostTrial { number, is_open }))
    });
    trials.collect()
}

/// Fetches a revision and makes it current, unless this host has it or a newer one.
///
/// Returns true if this host has it then.
pub(super) async fn fetch(
    agent: &Arc<AgentState>,
    farm: &Farm,
    key: &FarmKey,
    machine: &MachineName,
    wanted: &Published,
) -> bool {
    let number = wanted.revision.0;
    match try_fetch(agent, farm, key, machine, wanted).await {
        Ok(is_new) => {
            if is_new {
                info!(%machine, revision = number, "fetched a revision of the farm");
                agent.wake.notify_one();
            }
            true
        }
        Err(failure) => {
            let error = &failure as &dyn Error;
            warn!(%machine, revision = number, error, "cannot fetch a revision of the farm; trying again");
            false
        }
    }
}

async fn try_fetch(
    agent: &Arc<AgentState>,
    farm: &Farm,
    key: &FarmKey,
    machine: &MachineName,
    published: &Published,
) -> Result<bool, TransferError> {
    let wanted = offer::revision(published.revision);
    let (own, name) = (Arc::clone(agent), machine.clone());
    let current = blocking(move || {
        let view = volume_of(&own, &name)?.view(&name);
        Ok::<_, TransferError>(view.ok().and_then(|it| it.current))
    });
    if current.await?.is_some_and(|it| it >= wanted) {
        return Ok(false);
    }
    if promote(agent, farm, machine, published).await? {
        return Ok(true);
    }
    transfer(agent, farm, key, machine, published, None).await
}

/// Puts a revision on trial, which the farm decides. It is transferred only if this host does not have it.
pub(super) async fn begin(
    agent: &Arc<AgentState>,
    farm: &Farm,
    key: &FarmKey,
    machine: &MachineName,
    order: &TrialOrder,
) -> Begun {
    let revision = order.candidate.revision;
    match try_begin(agent, farm, key, machine, order).await {
        Ok(Begun::OnTrial) => {
            info!(%machine, revision = revision.0, "a revision is on trial for a farm");
            agent.wake.notify_one();
            Begun::OnTrial
        }
        Ok(begun) => begun,
        Err(failure) => {
            let error = &failure as &dyn Error;
            warn!(%machine, revision = revision.0, error, "cannot put a revision on trial for a farm; trying again");
            match failure {
                TransferError::OtherContentHere(..) => Begun::OtherContent,
                _ => Begun::Failed,
            }
        }
    }
}

async fn try_begin(
    agent: &Arc<AgentState>,
    farm: &Farm,
    key: &FarmKey,
    machine: &MachineName,
    order: &TrialOrder,
) -> Result<Begun, TransferError> {
    let trial = FarmTrial {
        controller: farm.rules.name.clone(),
        number: order.number.0,
    };
    let adopt = || {
        let (agent, machine) = (Arc::clone(agent), machine.clone());
        let (candidate, trial) = (order.candidate.clone(), trial.clone());
        blocking(move || adopt(&agent, &machine, &candidate, &trial))
    };
    if let Some(begun) = adopt().await? {
        return Ok(begun);
    }
    let candidate = &order.candidate;
    transfer(agent, farm, key, machine, candidate, Some(trial.clone())).await?;
    let (own, name) = (Arc::clone(agent), machine.clone());
    let candidate = candidate.clone();
    blocking(move || check_arrived(&own, &name, &candidate)).await
}

/// Puts a revision on trial that is here already. Returns `None` if it is not. Blocks.
fn adopt(
    agent: &AgentState,
    machine: &MachineName,
    candidate: &Published,
    trial: &FarmTrial,
) -> Result<Option<Begun>, TransferError> {
    let wanted = offer::revision(candidate.revision);
    let located = agent.volumes.of_machine(machine)?;
    let view = located.map(|it| it.view).filter(|it| !it.deleting);
    let Some((current, view)) = view.and_then(|it| Some((it.current?, it))) else {
        return Err(StoreError::from(MachineRefusal::NotFound(machine.clone())).into());
    };
    if current >= wanted {
        return Ok(Some(Begun::Newer(offer::number(current))));
    }
    let known = view.trials.get(&wanted);
    if known.is_some_and(|it| it.farm.as_ref() == Some(trial)) {
        // It began before; a person may have ended it since.
        return Ok(Some(Begun::OnTrial));
    }
    if view.revision(wanted).is_none_or(|it| !it.complete) {
        return Ok(None);
    }
    let volume = volume_of(agent, machine)?;
    if !has_content(volume, machine, candidate)? {
        return Err(TransferError::OtherContentHere(machine.clone(), wanted));
    }
    volume.adopt_trial(machine, wanted, trial.clone())?;
    Ok(Some(Begun::OnTrial))
}

/// Ends the trial of a revision at once that has arrived with other content than expected. Its stream had
/// no content manifest then. Blocks.
fn check_arrived(
    agent: &AgentState,
    machine: &MachineName,
    candidate: &Published,
) -> Result<Begun, TransferError> {
    let (volume, revision) = (
        volume_of(agent, machine)?,
        offer::revision(candidate.revision),
    );
    if has_content(volume, machine, candidate)? {
        return Ok(Begun::OnTrial);
    }
    let reason = "its content is not the one on trial in the farm";
    volume.reject(machine, revision, reason)?;
    Err(TransferError::OtherContentHere(machine.clone(), revision))
}

/// Returns true if a revision here has the content that a farm has under its number.
fn has_content(
    volume: &Volume,
    machine: &MachineName,
    wanted: &Published,
) -> Result<bool, TransferError> {
    let content = content(volume, machine, offer::revision(wanted.revision))?;
    let standing = wanted.standing(wanted.revision, content.as_ref());
    Ok(standing == Standing::Current)
}

/// Returns the digest of a revision's content, which is read if it is not known yet.
fn content(
    volume: &Volume,
    machine: &MachineName,
    revision: config::Revision,
) -> Result<Option<Digest>, TransferError> {
    let known = volume.content_digest(machine, revision)?;
    if known.is_some() || volume.has_content_manifest(machine, revision) {
        return Ok(known);
    }
    volume.record(machine, revision)?;
    Ok(volume.content_digest(machine, revision)?)
}

/// Makes a revision current that is on trial here with the published content. Returns false if none is.
async fn promote(
    agent: &Arc<AgentState>,
    farm: &Farm,
    machine: &MachineName,
    published: &Published,
) -> Result<bool, TransferError> {
    let revision = offer::revision(published.revision);
    let (own, name, wanted) = (Arc::clone(agent), machine.clone(), published.clone());
    let found = blocking(move || {
        let located = own.volumes.of_machine(&name)?;
        let candidate = located.filter(|it| {
            let candidate = it.view.candidate();
            candidate.is_some_and(|(it, _)| it.revision == revision)
        });
        let Some(located) = candidate else {
            return Ok(None);
        };
        let is_published = has_content(volume_of(&own, &name)?, &name, &wanted)?;
        Ok::<_, TransferError>(is_published.then_some(located.volume))
    });
    let Some(volume) = found.await? else {
        return Ok(false);
    };
    let reason = format!("farm {} has published it", farm.rules.name);
    let verdict = (TrialVerdict::Promoted, reason);
    if scheduler::trials::end(agent, volume, machine.clone(), revision, verdict).await {
        return Ok(true);
    }
    Err(TransferError::NotPromoted(machine.clone(), revision))
}

/// Ends a trial that the farm has rolled back, repeatedly until it is on disk or the agent stops.
pub(super) async fn end(
    agent: &Arc<AgentState>,
    farm: &Farm,
    machine: &MachineName,
    order: &TrialOrder,
) {
    let trial = FarmTrial {
        controller: farm.rules.name.clone(),
        number: order.number.0,
    };
    let reason = order.rolled_back.clone().unwrap_or_default();
    let verdict = (TrialVerdict::RolledBack, reason);
    while !agent.stopping.is_cancelled() {
        let (own, name, wanted) = (Arc::clone(agent), machine.clone(), trial.clone());
        match blocking(move || open(&own, &name, &wanted)).await {
            Ok(None) => return,
            Ok(Some((volume, revision))) => {
                let verdict = verdict.clone();
                if scheduler::trials::end(agent, volume, machine.clone(), revision, verdict).await {
                    return;
                }
            }
            Err(error) => {
                let error = &error as &dyn Error;
                warn!(%machine, error, "cannot end the trial of a farm; trying again");
            }
        }
        sleep(builds::WRITE_PAUSE).await;
    }
}

/// Returns the volume and the revision of a trial that is open here. Blocks.
fn open(
    agent: &AgentState,
    machine: &MachineName,
    trial: &FarmTrial,
) -> Result<Option<(VolumeId, config::Revision)>, StoreError> {
    let located = agent.volumes.of_machine(machine)?;
    Ok(located.and_then(|it| {
        let (candidate, found) = it.view.candidate()?;
        let is_open = found.farm.as_ref() == Some(trial);
        is_open.then_some((it.volume, candidate.revision))
    }))
}
