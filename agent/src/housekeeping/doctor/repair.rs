//! Repairs what was found and is provably ours.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use config::BuildId;
use config::doctor::{FindingKey, Repaired};
use jiff::Timestamp;
use tracing::{info, warn};

use super::{Leftover, Repair, examine, look};
use crate::blocking;
use crate::jobs::JobError;
use crate::jobs::build::{Rules, Verdict, conclude};
use crate::session::GuestFailure;
use crate::state::AgentState;
use guest::Guest;
use guest::network;

/// What went wrong with one repair.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Repairs those of these findings that are still so. Meanwhile no build begins.
/// What cannot be repaired is told and does not stop the rest.
///
/// # Errors
/// When the host cannot be looked at.
pub async fn repair(
    agent: &Arc<AgentState>,
    wanted: &BTreeSet<FindingKey>,
) -> io::Result<Repaired> {
    let _queue = agent.queue.lock().await;
    let mut repaired = Repaired::default();
    for found in examine(&look(agent).await?) {
        let Some(step) = found
            .repair
            .filter(|_| wanted.contains(&found.finding.key()))
        else {
            continue;
        };
        match act(agent, &step).await {
            Ok(()) => {
                info!("doctor: {step}");
                repaired.done.push(step.to_string());
            }
            Err(fault) => {
                let words = format!("cannot {step}: {}", sys::error_report::chain(&*fault));
                warn!("doctor: {words}");
                repaired.failed.push(words);
            }
        }
    }
    agent.wake.notify_one();
    Ok(repaired)
}

async fn act(agent: &AgentState, step: &Repair) -> Result<(), Fault> {
    if let Repair::Requeue(id) = step {
        return requeue(agent, *id).await;
    }
    let step = step.clone();
    blocking(move || remove(&step)).await
}

/// Removes something from the host. Blocks.
fn remove(step: &Repair) -> Result<(), Fault> {
    match step {
        Repair::EndGuest(guest) => end(guest),
        Repair::RemoveDirectory(path) => gone(fs::remove_dir_all(path)),
        Repair::RemoveGroup(path) => gone(fs::remove_dir(path)),
        Repair::DeleteNetwork(name, _) => Ok(network::delete(name)?),
        Repair::DeleteSources(paths) => paths
            .iter()
            .try_for_each(|path| gone(fs::remove_file(path))),
        Repair::Requeue(_) => Ok(()),
    }
}

/// What was to go and is gone already is no fault.
fn gone(removed: io::Result<()>) -> Result<(), Fault> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn end(guest: &Leftover) -> Result<(), Fault> {
    let run: &Path = &guest.run;
    if let Some(guest) = Guest::find(run)? {
        guest.kill_and_wait()?;
    }
    network::delete(&guest.network)?;
    gone(fs::remove_dir_all(run))
}

/// Concludes a build as if its agent had been ended.
async fn requeue(agent: &AgentState, id: BuildId) -> Result<(), Fault> {
    let Some(build) = agent.records.get(id).await? else {
        return Ok(());
    };
    let rules = Rules::new(&agent.settings.builds, false);
    let verdict = Verdict::from(Err(JobError::Guest(GuestFailure::AgentGone)));
    let build = conclude(build, verdict, &rules, Timestamp::now())?;
    Ok(agent.records.save(&build).await?)
}
