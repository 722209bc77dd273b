//! The start of the service of a farm: it continues with the open leases of the records, and with the
//! guests that still run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::BuildId;
use farm_core::host::{OnDisk, Recovered};
use farm_core::{Lease, Moment};
use state::{AgentState, LeaseEnd};
use sys::blocking::blocking;
use tokio::time::sleep;

use super::{Failure, Farm, builds, lease};

/// The pause between two looks at a build that is being ended.
const LOOK: Duration = Duration::from_millis(100);

/// Returns what an agent finds of a farm, with the builds of the leases.
///
/// Builds that wait are ended: nothing starts without an answer of the farm. So are guests without a
/// guard that is alive.
pub(super) async fn recover(
    agent: &Arc<AgentState>,
    farm: &Farm,
) -> Result<(Recovered, BTreeMap<Lease, BuildId>), Failure> {
    let (mut recovered, mut found) = (Recovered::default(), BTreeMap::new());
    for (open, build) in agent.records.open_leases().await? {
        let Some(held) = lease::of_session(&open.session) else {
            continue;
        };
        if open.controller != farm.rules.name {
            continue;
        }
        found.insert(held, build.id);
        let on_disk = lease::on_disk(&build, &open.sent);
        if build.outcome.is_some() || on_disk != OnDisk::Lease {
            recovered.disk.insert(held, on_disk);
            continue;
        }
        if !builds::waits(&build)
            && let Some(deadline) = deadline(agent, build.id).await?
        {
            recovered.disk.insert(held, OnDisk::Lease);
            recovered.guests.insert(held, deadline);
        } else {
            let on_disk = end(agent, build.id, &open.sent).await?;
            recovered.disk.insert(held, on_disk);
        }
    }
    Ok((recovered, found))
}

/// Returns the deadline of the guest of a build, if its guard is alive, and watches that.
async fn deadline(agent: &AgentState, build: BuildId) -> std::io::Result<Option<Moment>> {
    let run_dir = agent.guests.run_dir_of(&build.to_string());
    let found = blocking(move || {
        let found = guard::of_guest(&run_dir)?;
        if found.is_some() {
            guard::adopt(&run_dir)?;
        }
        Ok::<_, std::io::Error>(found)
    });
    Ok(found.await?.map(|it| Moment(it.0)))
}

/// Ends a build, and waits for its end. Returns its state on disk then: it may have got a result.
async fn end(agent: &AgentState, build: BuildId, sent: &[String]) -> Result<OnDisk, Failure> {
    let reason = "the agent was started again, and its guest has no guard".to_owned();
    loop {
        builds::end(agent, build, LeaseEnd::Revoked(reason.clone())).await;
        match agent.records.get(build).await? {
            None => return Ok(OnDisk::Lease),
            Some(build) if build.outcome.is_some() => return Ok(lease::on_disk(&build, sent)),
            Some(_) if agent.stopping.is_cancelled() => return Ok(OnDisk::Lease),
            Some(_) => sleep(LOOK).await,
        }
    }
}
