//! The repair of findings about things that the agent manages.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use config::BuildId;
use config::doctor::{FindingKey, Repaired};
use guest::Guest;
use guest::network;
use jiff::Timestamp;
use session::GuestFailure;
use sys::blocking::blocking;
use tracing::{info, warn};

use super::{Leftover, Repair, examine, inspect};
use jobs::JobError;
use jobs::build::{Facts, Rules, Verdict, conclude};
use state::AgentState;

/// A failure of one repair.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Repairs those of the findings that still exist. Meanwhile no build starts. Continues after a
/// failed repair and returns it.
///
/// # Errors
/// The host cannot be inspected.
pub async fn repair(
    agent: &Arc<AgentState>,
    selected: &BTreeSet<FindingKey>,
) -> io::Result<Repaired> {
    let _queue = agent.queue.lock().await;
    let mut repaired = Repaired::default();
    for found in examine(&inspect(agent).await?) {
        let Some(repair) = found
            .repair
            .filter(|_| selected.contains(&found.finding.key()))
        else {
            continue;
        };
        match execute(agent, &repair).await {
            Ok(()) => {
                info!(%repair, "repaired a finding of the doctor");
                repaired.done.push(repair.to_string());
            }
            Err(fault) => {
                let error = sys::error_report::chain(&*fault);
                warn!(%repair, error, "cannot repair a finding of the doctor");
                repaired.failed.push(format!("cannot {repair}: {error}"));
            }
        }
    }
    agent.wake.notify_one();
    Ok(repaired)
}

async fn execute(agent: &AgentState, repair: &Repair) -> Result<(), Fault> {
    if let Repair::Requeue(id) = repair {
        return requeue(agent, *id).await;
    }
    let repair = repair.clone();
    blocking(move || remove(&repair)).await
}

/// Removes something from the host. Blocks.
fn remove(repair: &Repair) -> Result<(), Fault> {
    match repair {
        Repair::EndGuest(guest) => end(guest),
        Repair::RemoveDirectory(path) => accept_missing(fs::remove_dir_all(path)),
        Repair::RemoveGroup(path) => accept_missing(fs::remove_dir(path)),
        Repair::DeleteNetwork(name, _) => Ok(network::delete(name)?),
        Repair::DeleteSources(paths) => paths
            .iter()
            .try_for_each(|path| accept_missing(fs::remove_file(path))),
        Repair::Requeue(_) => Ok(()),
    }
}

/// Accepts that something is missing already.
fn accept_missing(removed: io::Result<()>) -> Result<(), Fault> {
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
    accept_missing(fs::remove_dir_all(run))
}

/// Concludes a build as if the agent had ended.
async fn requeue(agent: &AgentState, id: BuildId) -> Result<(), Fault> {
    let Some(build) = agent.records.get(id).await? else {
        return Ok(());
    };
    let rules = Rules::from(&agent.settings().builds);
    let facts = Facts {
        canceled: build.cancel_requested,
        ..Facts::of_end(Err(JobError::Guest(GuestFailure::AgentGone)))
    };
    let mut build = conclude(build, Verdict::of(facts), &rules, Timestamp::now())?;
    Ok(agent.records.save(&mut build).await?)
}
