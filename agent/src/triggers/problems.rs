//! Problems of the host, of which the rules for notifications are told: looks at the host, lets `watch`
//! decide about begins and ends, and records these for the outbox.

mod watch;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use records::RecordsError;
use state::AgentState;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::housekeeping::doctor;
pub use watch::Pace;
use watch::Watch;

/// Watches the host until the agent stops, if a rule is about its problems.
pub fn run(agent: &Arc<AgentState>, pace: Pace) {
    let settings = agent.settings();
    if settings.notify.iter().any(|rule| !rule.problems.is_empty()) {
        let agent = Arc::clone(agent);
        tokio::spawn(async move { serve(&agent, pace).await });
    }
}

async fn serve(agent: &Arc<AgentState>, pace: Pace) {
    let mut watch = None;
    while !agent.stopping.is_cancelled() {
        if let Err(error) = round(agent, &mut watch, pace).await {
            let error = &error as &dyn Error;
            warn!(error, "cannot look for problems of the host; trying again");
        }
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(pace.look) => {}
        }
    }
}

/// A failure to look at the host.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The host cannot be read.
    #[error("cannot read the state of the host")]
    Host(#[from] std::io::Error),
    /// The records fail.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Looks at the host once, and records what is to be told.
async fn round(
    agent: &Arc<AgentState>,
    watch: &mut Option<Watch>,
    pace: Pace,
) -> Result<(), Failure> {
    let found = doctor::problems(agent).await?;
    let watch = match watch {
        Some(watch) => watch,
        // What an earlier agent told of is open until it is certain that it has ended.
        None => watch.insert(Watch::new(
            agent.records.told_problems().await?,
            Instant::now(),
        )),
    };
    let open = watch.look(&found, pace, Instant::now(), Timestamp::now());
    let told = agent.records.tell_problems(open, Timestamp::now()).await?;
    if told > 0 {
        info!(
            notifications = told,
            "the problems of the host have changed"
        );
    }
    Ok(())
}

/// The usual pace.
pub const USUAL: Pace = Pace {
    look: Duration::from_secs(30),
    begin: Duration::from_mins(10),
    end: Duration::from_mins(5),
};
