//! The problems of the host that notifications tell of: the part of an examination that reads little.

use std::io;
use std::sync::Arc;

use config::doctor::{Finding, FindingKey, Id, Subject};
use state::AgentState;

use super::{examine, inspect};

/// The findings of one look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problems {
    /// The findings.
    pub(crate) findings: Vec<Finding>,
    /// The findings of which this agent does not know yet whether they are true.
    pub(crate) undecided: Vec<FindingKey>,
}

/// Looks for problems of the host.
///
/// # Errors
/// A directory of the agent cannot be read.
pub(crate) async fn problems(agent: &Arc<AgentState>) -> io::Result<Problems> {
    let inventory = inspect::inspect_running(agent).await?;
    let found = examine::examine_running(&inventory).into_iter();
    Ok(Problems {
        findings: found.map(|it| it.finding).collect(),
        undecided: undecided(agent),
    })
}

/// Returns the findings about controllers that have neither answered nor failed since the agent started.
fn undecided(agent: &AgentState) -> Vec<FindingKey> {
    let settings = agent.settings();
    let names = settings.controllers.iter().map(|rules| &rules.name);
    let unasked = names.filter(|name| agent.contacts.get(name).answered.is_none());
    let key = |name: &config::ControllerName| FindingKey {
        id: Id::ControllerUnreachable,
        subject: Subject::Controller(name.clone()),
    };
    unasked.map(key).collect()
}
