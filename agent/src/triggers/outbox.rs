//! The loop that delivers what waits in the records, for feeds and notifications.

use std::time::{Duration, Instant};

use controllers::backoff;
use state::AgentState;
use tokio::time::sleep;

use super::draw;

/// The time between two looks at the records.
const PERIOD: Duration = Duration::from_secs(1);

/// Calls a function that delivers what waits, again and again until the agent stops. If an attempt has
/// failed, it returns the number of failures so far, which gives the pause before the next one.
pub(super) async fn run<F>(agent: &AgentState, deliver: impl Fn() -> F)
where
    F: Future<Output = Option<u32>>,
{
    let mut due = Instant::now();
    while !agent.stopping.is_cancelled() {
        if due <= Instant::now()
            && let Some(failures) = deliver().await
        {
            due = Instant::now() + backoff::report(failures, draw());
        }
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(PERIOD) => {}
        }
    }
}
