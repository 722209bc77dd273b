//! Controllers: asks them for tasks, ends leases early, and reports results until they have arrived.

mod asking;
pub(crate) mod farm;
pub(crate) mod forget;
mod job_logs;
mod leases;
mod offering;
mod outbox;
mod reporting;

use std::sync::Arc;

use config::controllers::{ControllerStatus, OpenLease, without_password};
use config::settings::{ControllerKind, ControllerRules};
use config::{NameError, ToolchainName};
use controllers::Controller;
use controllers::brep::{Brep, KeyError};
use controllers::farm::FarmError;
use controllers::gitlab::{Gitlab, TokenError};
use records::RecordsError;

use super::draw;
use state::AgentState;

/// A controller of the settings, with its client.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    rules: ControllerRules,
    toolchain: ToolchainName,
    client: Arc<dyn Controller>,
}

/// A reason why the controllers of the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemberError {
    /// The key of one cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token of one cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificates of a farm cannot be used.
    #[error(transparent)]
    Farm(#[from] FarmError),
    /// The name of the default toolchain.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The controllers of the settings.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Those that are asked for one task after the other.
    asked: Vec<Member>,
    /// The farms.
    farms: Vec<Arc<farm::Farm>>,
}

/// Returns the controllers of the settings. Blocks.
///
/// # Errors
/// The key of one cannot be used.
pub(crate) fn members(agent: &AgentState) -> Result<Members, MemberError> {
    let settings = agent.settings();
    let mut members = Members::default();
    for rules in &settings.controllers {
        let client: Arc<dyn Controller> = match &rules.kind {
            ControllerKind::Brep => Arc::new(Brep::new(rules)?),
            ControllerKind::Gitlab(gitlab) => Arc::new(Gitlab::new(rules, gitlab, &settings.name)?),
            ControllerKind::Farm(_) => {
                let farm = farm::of_rules(agent, rules)?;
                members.farms.extend(farm.map(Arc::new));
                continue;
            }
        };
        members.asked.push(Member {
            rules: rules.clone(),
            toolchain: toolchain(agent, rules)?,
            client,
        });
    }
    Ok(members)
}

/// Returns the toolchain that the tasks of a controller are built with.
fn toolchain(agent: &AgentState, rules: &ControllerRules) -> Result<ToolchainName, NameError> {
    let default = || agent.settings().builds.toolchain.parse();
    rules.toolchain.clone().map_or_else(default, Ok)
}

/// Serves the controllers until the agent stops.
pub(crate) async fn run(agent: Arc<AgentState>, members: Members) {
    let Members { asked, farms } = members;
    for member in &asked {
        agent.telemetry.metrics.controllers.show(&member.rules.name);
        let (shared, own) = (Arc::clone(&agent), member.clone());
        tokio::spawn(async move { outbox::run(&shared, &own).await });
        if let ControllerKind::Gitlab(_) = member.rules.kind {
            let (shared, own) = (Arc::clone(&agent), member.clone());
            tokio::spawn(async move { job_logs::run(&shared, &own).await });
        }
    }
    let has_controllers = !asked.is_empty() || !farms.is_empty();
    for farm in farms {
        agent.telemetry.metrics.controllers.show(farm.name());
        tokio::spawn(farm::run(Arc::clone(&agent), farm));
    }
    let watched = Arc::clone(&agent);
    tokio::spawn(async move { leases::run(&watched, has_controllers).await });
    if !asked.is_empty() {
        asking::run(&agent, &asked).await;
    }
}

/// Returns the state of each controller of the settings.
///
/// # Errors
/// The records cannot be read.
pub(crate) async fn describe(agent: &AgentState) -> Result<Vec<ControllerStatus>, RecordsError> {
    let counts = agent.records.lease_counts().await?;
    let open = agent.records.open_leases().await?;
    let describe = |rules: &ControllerRules| {
        Some(ControllerStatus {
            name: rules.name.clone(),
            protocol: match rules.kind {
                ControllerKind::Brep => "brep".to_owned(),
                ControllerKind::Gitlab(_) => "gitlab".to_owned(),
                ControllerKind::Farm(_) => "farm".to_owned(),
            },
            url: without_password(&rules.url),
            priority: rules.priority,
            toolchain: toolchain(agent, rules).ok()?,
            contact: agent.contacts.get(&rules.name),
            tasks: counts
                .iter()
                .find(|it| it.controller == rules.name)
                .map_or(0, |it| it.taken),
            open: open
                .iter()
                .filter(|(lease, _)| lease.controller == rules.name)
                .map(|(lease, build)| OpenLease {
                    build: build.id,
                    ended: build.outcome.is_some(),
                    failures: lease.failures,
                    failure: lease.failure.clone(),
                })
                .collect(),
            coordinators: farm::coordinators(agent, rules),
        })
    };
    let settings = agent.settings();
    let rules = settings.controllers.iter();
    Ok(rules.filter_map(describe).collect())
}
