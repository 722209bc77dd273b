//! Problems of the host, of which the rules for notifications are told: looks at the host, lets
//! `notifications::watch` decide about begins and ends, and records these for the outbox.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use config::doctor::{Finding, FindingKey, Id, PROBLEMS};
use config::notify::{Problem, ProblemId};
use jiff::Timestamp;
pub use notifications::watch::Pace;
use notifications::watch::{Found, Key, Watch};
use records::RecordsError;
use state::AgentState;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::housekeeping::doctor;

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
    if watch.is_none() {
        // What an earlier agent told of is open until it is certain that it has ended.
        let told = agent.records.told_problems().await?;
        let watch = watch.insert(Watch::default());
        watch.adopt(told, Instant::now());
    }
    let watch = watch.get_or_insert_default();
    let found = Found {
        problems: gather(&found.findings, Timestamp::now()),
        undecided: found.undecided.iter().map(subject).collect(),
    };
    let open = watch.look(found, pace, Instant::now());
    let told = agent.records.tell_problems(open, Timestamp::now()).await?;
    if told > 0 {
        info!(
            notifications = told,
            "the problems of the host have changed"
        );
    }
    Ok(())
}

/// Returns the problem that a finding belongs to: all leftovers of a kind are one.
fn subject(key: &FindingKey) -> Key {
    let subject = match key.id {
        Id::LeftoverGuest | Id::LeftoverDirectory | Id::LeftoverNetwork | Id::LeftoverGroup => {
            String::new()
        }
        _ => key.subject.to_string(),
    };
    (ProblemId::Host(key.id), subject)
}

/// Returns the problems among findings.
fn gather(findings: &[Finding], time: Timestamp) -> Vec<Problem> {
    let mut problems = BTreeMap::new();
    let told = findings.iter().filter(|it| PROBLEMS.contains(&it.id));
    for finding in told {
        let (count, _) = problems
            .entry(subject(&finding.key()))
            .or_insert((0, finding));
        *count += 1;
    }
    let problem = |((id, subject), (count, first)): (Key, (usize, &Finding))| {
        let name = first.subject.to_string();
        let proof = match (subject.is_empty(), count) {
            (false, _) => first.proof.clone(),
            (true, 1) => format!("{name}: {}", first.proof),
            (true, _) => format!("{name}: {}, and {} more", first.proof, count - 1),
        };
        Problem {
            id,
            subject,
            proof,
            advice: first.advice.clone(),
            since: time,
        }
    };
    problems.into_iter().map(problem).collect()
}

#[cfg(test)]
mod tests {
    use config::doctor::Subject;

    use super::*;

    fn finding(id: Id, subject: Subject) -> Finding {
        Finding::new(id, subject, "proof", "advice")
    }

    #[test]
    fn leftovers_of_a_kind_are_one_problem() {
        let left = |tag: &str| finding(Id::LeftoverGuest, Subject::Guest(tag.to_owned()));
        let other = finding(Id::OldImage, Subject::Guest("1".to_owned()));
        let problems = gather(&[left("7"), left("8"), other], Timestamp::UNIX_EPOCH);
        let [problem] = &problems[..] else {
            panic!("{problems:?}");
        };
        assert_eq!(problem.proof, "guest 7: proof, and 1 more");
        assert_eq!(problem.subject, "");
    }
}
