//! Notifications: delivers what the records say is to be told, until it has arrived or is given up.

use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use config::notify::{Notice, NotifyKind, NotifyStatus, NotifyTest, Settlement};
use config::settings::NotifyRules;
use jiff::Timestamp;
use notifications::{Delivery, Site, deliver, mail, settlement};
use records::RecordsError;
use state::AgentState;
use sys::blocking::blocking;
use tracing::{info, warn};

use super::{draw, outbox};

/// The part of a log in which errors are looked for, in bytes.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// Delivers the notifications of all rules until the agent stops.
pub fn run(agent: &Arc<AgentState>) {
    for rules in &agent.settings().notify {
        let (agent, rules) = (Arc::clone(agent), rules.clone());
        tokio::spawn(async move { serve(&agent, &rules).await });
    }
}

/// Delivers the notifications of a rule. After a failure the rest waits: it would fail as well.
async fn serve(agent: &Arc<AgentState>, rules: &NotifyRules) {
    let deliver = || async {
        round(agent, rules).await.unwrap_or_else(|error| {
            let error = &error as &dyn Error;
            warn!(rule = %rules.name, error, "cannot use the outbox of notifications");
            None
        })
    };
    outbox::run(agent, deliver).await;
}

/// Delivers what waits. Returns the number of failures if an attempt has failed.
async fn round(agent: &Arc<AgentState>, rules: &NotifyRules) -> Result<Option<u32>, RecordsError> {
    while let Some(next) = agent.records.next_notification(rules.name.clone()).await? {
        if agent.stopping.is_cancelled() {
            return Ok(None);
        }
        let now = Timestamp::now();
        let delivery = attempt(agent, rules, next.id.clone(), next.content.clone()).await;
        match settlement(rules, next.created, delivery, now) {
            Ok(settlement) => {
                match &settlement {
                    Settlement::Delivered => {
                        info!(rule = %rules.name, id = next.id, "delivered a notification");
                    }
                    Settlement::GivenUp(reason) => {
                        warn!(rule = %rules.name, id = next.id, reason, "gave up a notification");
                    }
                }
                let settle = agent.records.settle_notification(next.id, settlement, now);
                settle.await?;
            }
            Err(failure) => {
                if next.failure != failure {
                    warn!(rule = %rules.name, failure, "cannot deliver a notification; trying again");
                }
                agent.records.notification_failed(next.id, failure).await?;
                return Ok(Some(next.failures.saturating_add(1)));
            }
        }
    }
    Ok(None)
}

async fn attempt(
    agent: &Arc<AgentState>,
    rules: &NotifyRules,
    id: String,
    notice: Notice,
) -> Delivery {
    let (rules, host) = (rules.clone(), agent.settings().name.clone());
    let build = notice
        .data
        .build
        .as_ref()
        .filter(|_| notice.kind == NotifyKind::Failed);
    let log = build.map(|build| agent.paths.build(build.id).join("log"));
    let attempt = move || {
        let errors = log.map(|log| first_errors(&log)).unwrap_or_default();
        deliver(&rules, Site::Host(&host), &id, &notice, &errors)
    };
    blocking(attempt).await
}

/// Returns the first errors in a log; none if it is not there any more.
fn first_errors(log: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    if let Ok(file) = sys::trusted::open(log) {
        let _ = file.take(LOG_BYTES_MAX).read_to_end(&mut bytes);
    }
    mail::first_errors(&String::from_utf8_lossy(&bytes))
}

/// Tries a rule with a notification that is recorded nowhere.
pub(crate) async fn test(agent: &Arc<AgentState>, rules: &NotifyRules) -> NotifyTest {
    let notice = Notice::test(rules.name.clone(), Timestamp::now());
    let id = format!("test_{:016x}", draw());
    attempt(agent, rules, id, notice).await.into()
}

/// Returns the state of each rule of the settings.
///
/// # Errors
/// The records cannot be read.
pub(crate) async fn describe(agent: &AgentState) -> Result<Vec<NotifyStatus>, RecordsError> {
    let counts = agent.records.notification_counts().await?;
    let settings = agent.settings();
    let rules = settings.notify.iter();
    let describe = |rules: &NotifyRules| {
        let counts = counts.iter().find(|it| it.rule == rules.name.as_str());
        NotifyStatus::new(rules, counts.cloned().unwrap_or_default())
    };
    Ok(rules.map(describe).collect())
}
