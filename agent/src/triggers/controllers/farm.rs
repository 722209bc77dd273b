//! Farms: this host polls their coordinators, runs the builds that they grant, and reports the results.
//!
//! The rules are those of [`farm_core::host`]. This is the shell around them: [`driver`] executes
//! effects, [`recovery`] reads what an earlier agent left, [`offer`] is pure.

mod builds;
mod contents;
mod driver;
mod enrol;
mod lease;
mod offer;
mod recovery;
mod revisions;
mod sources;
mod transfers;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::controllers::Coordinator;
use config::settings::{ControllerKind, ControllerRules, FarmRules};
use controllers::backoff;
use controllers::farm::{Client, FarmError, FarmKey, KeyError, unasked};
use farm_core::Terms;
use jiff::Timestamp;
use records::RecordsError;
use state::AgentState;
use sys::blocking::blocking;
use telemetry::metrics::RequestResult;
use tokio::time::sleep;
use tracing::{info, warn};

use super::draw;
use driver::Driver;
pub(crate) use enrol::{EnrolError, enrol};

/// The pause before a farm that fails is asked again for its terms.
const PAUSE: Duration = Duration::from_secs(2);

/// A farm of the settings, with its client.
#[derive(Debug)]
pub(crate) struct Farm {
    rules: ControllerRules,
    client: Client,
    key_path: PathBuf,
}

impl Farm {
    /// Returns the name of the controller.
    pub(super) fn name(&self) -> &config::ControllerName {
        &self.rules.name
    }
}

/// A failure in the service of a farm, which begins again.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The key of this host.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A request.
    #[error(transparent)]
    Farm(#[from] FarmError),
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The run directory of a guest.
    #[error("cannot read the deadline of a guest")]
    Guard(#[from] std::io::Error),
}

/// Returns the farm of a controller's settings; `None` if it is another controller.
///
/// # Errors
/// Its certificates cannot be used.
pub(super) fn of_rules(
    agent: &AgentState,
    rules: &ControllerRules,
) -> Result<Option<Farm>, FarmError> {
    let ControllerKind::Farm(farm) = &rules.kind else {
        return Ok(None);
    };
    Ok(Some(Farm {
        client: Client::new(rules, farm)?,
        key_path: key_path(agent, rules),
        rules: rules.clone(),
    }))
}

/// Returns the file with the key of this host for a farm.
pub(crate) fn key_path(agent: &AgentState, rules: &ControllerRules) -> PathBuf {
    let own = || agent.paths.controller_key(&rules.name);
    rules.key.clone().unwrap_or_else(own)
}

/// Returns the rules of a farm's coordinators.
pub(crate) fn farm_rules(rules: &ControllerRules) -> Option<&FarmRules> {
    match &rules.kind {
        ControllerKind::Farm(farm) => Some(farm),
        ControllerKind::Brep | ControllerKind::Gitlab(_) => None,
    }
}

/// Returns the coordinators of a farm with the contact with each; none of another controller.
pub(super) fn coordinators(agent: &AgentState, rules: &ControllerRules) -> Vec<Coordinator> {
    let asked = agent.contacts.coordinators(&rules.name);
    if !asked.is_empty() {
        return asked;
    }
    farm_rules(rules).map_or_else(Vec::new, unasked)
}

/// Serves a farm until the agent stops.
pub(super) async fn run(agent: Arc<AgentState>, farm: Arc<Farm>) {
    let mut failures = 0;
    while !agent.stopping.is_cancelled() {
        let failed = serve(&agent, &farm, &mut failures).await;
        if let Err(failure) = failed {
            note_failure(&agent, &farm, &failure);
            failures += 1;
        }
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(backoff::poll(PAUSE, failures, draw())) => {}
        }
    }
}

/// Serves a farm until the agent stops or its key cannot be used.
async fn serve(
    agent: &Arc<AgentState>,
    farm: &Arc<Farm>,
    failures: &mut u32,
) -> Result<(), Failure> {
    let path = farm.key_path.clone();
    let key = blocking(move || FarmKey::read(&path)).await?;
    let limit = Duration::from_millis(Terms::default().request_ms);
    let terms = farm.client.terms(&key, limit).await?;
    note_answer(agent, farm, RequestResult::NoTask);
    *failures = 0;
    info!(controller = %farm.rules.name, lease_ms = terms.lease_ms, "polling a farm");
    let (driver, effects) = Driver::begin(agent, farm, key, terms).await?;
    driver.run(effects).await
}

/// Notes that a farm has answered.
fn note_answer(agent: &AgentState, farm: &Farm, result: RequestResult) {
    let name = &farm.rules.name;
    agent.telemetry.metrics.controllers.request(name, result);
    agent
        .contacts
        .note_coordinators(name, farm.client.contacts());
    if agent.contacts.answered(name, Timestamp::now()) {
        info!(controller = %name, "a farm answers again");
    }
}

/// Notes that a request to a farm has failed.
fn note_failure(agent: &AgentState, farm: &Farm, failure: &(dyn Error + 'static)) {
    let name = &farm.rules.name;
    let metrics = &agent.telemetry.metrics.controllers;
    metrics.request(name, RequestResult::Failed);
    agent
        .contacts
        .note_coordinators(name, farm.client.contacts());
    let message = sys::error_report::chain(failure);
    if agent.contacts.failed(name, &message, Timestamp::now()) {
        warn!(controller = %name, error = failure, "cannot use a farm; trying again");
    }
}
