//! Forgets a controller that was removed from the settings: its builds are ended, and then all of its open
//! leases are settled at once.

use std::time::Duration;

use config::builds::Build;
use config::controllers::{Forgotten, GivenUp};
use config::{BuildId, ControllerName};
use jiff::Timestamp;
use records::{Lease, RecordsError};
use state::{AgentState, LeaseEnd};
use tokio::time::{Instant, sleep};

use super::leases;

/// The answer with which the leases are settled.
const ANSWER: &str = "its controller was forgotten";
/// The longest time in which the builds must have ended.
const END_MAX: Duration = Duration::from_secs(20);
/// The pause between two looks at the builds.
const LOOK: Duration = Duration::from_millis(100);

/// A refusal or a failure to forget a controller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForgetError {
    /// The settings name it.
    #[error(
        "the settings of the agent name controller {0}; remove its [[controllers]] and restart the agent first"
    )]
    Configured(ControllerName),
    /// There is nothing to forget.
    #[error(
        "no lease of controller {0} is open; `buildhost doctor` names the controllers of which some are"
    )]
    Unknown(ControllerName),
    /// A build does not end in time.
    #[error("build {0} is still being ended, and no lease was settled; repeat the command")]
    Unfinished(BuildId),
    /// The records fail.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Ends the builds of a controller's open leases and settles these, or only says so. A repetition
/// continues what was interrupted.
pub(crate) async fn forget(
    agent: &AgentState,
    name: &ControllerName,
    dry_run: bool,
) -> Result<Forgotten, ForgetError> {
    if agent
        .settings()
        .controllers
        .iter()
        .any(|it| it.name == *name)
    {
        return Err(ForgetError::Configured(name.clone()));
    }
    let builds = given_up(name, &agent.records.open_leases().await?);
    if builds.is_empty() {
        return Err(ForgetError::Unknown(name.clone()));
    }
    if !dry_run {
        end(agent, &builds).await?;
        let answer = ANSWER.to_owned();
        let settle = agent
            .records
            .settle_leases_of(name.clone(), answer, Timestamp::now());
        let unfinished = || ForgetError::Unfinished(builds[0].build);
        settle.await?.ok_or_else(unfinished)?;
    }
    Ok(Forgotten {
        controller: name.clone(),
        dry_run,
        builds,
    })
}

/// Returns the builds of a controller's leases.
fn given_up(name: &ControllerName, open: &[(Lease, Build)]) -> Vec<GivenUp> {
    let own = open.iter().filter(|(lease, _)| lease.controller == *name);
    let given_up = own.map(|(lease, build)| GivenUp {
        build: lease.build,
        package: build
            .controller
            .as_ref()
            .map_or_else(String::new, |task| task.package.clone()),
        ended: build.outcome.is_some(),
    });
    given_up.collect()
}

/// Ends the builds that have not ended, and waits for their ends.
async fn end(agent: &AgentState, builds: &[GivenUp]) -> Result<(), ForgetError> {
    let deadline = Instant::now() + END_MAX;
    for build in builds.iter().filter(|it| !it.ended) {
        loop {
            // Repeated, because a build that starts is neither in the queue nor among the jobs.
            leases::end(agent, build.build, LeaseEnd::Forgotten).await;
            let record = agent.records.get(build.build).await?;
            if record.is_none_or(|it| it.outcome.is_some()) {
                break;
            }
            if Instant::now() > deadline || agent.stopping.is_cancelled() {
                return Err(ForgetError::Unfinished(build.build));
            }
            sleep(LOOK).await;
        }
    }
    Ok(())
}
