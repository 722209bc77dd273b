//! The enrolment of this host in a farm.

use std::time::Duration;

use config::ControllerName;
use controllers::farm::{Client, FarmError, FarmKey, KeyError};
use farm_core::Terms;
use state::AgentState;
use sys::blocking::blocking;
use tracing::info;

use super::{farm_rules, key_path};

/// A failure to enrol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// The settings have no such farm.
    #[error(
        "the settings have no [[controllers]] with `name = \"{0}\"` and `kind = \"farm\"`; add it and restart the agent"
    )]
    Unknown(ControllerName),
    /// The key cannot be stored.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The farm fails or refuses the token.
    #[error(transparent)]
    Farm(#[from] FarmError),
}

/// Makes a key, stores it, and exchanges the token for the right to use it. May be repeated with the same
/// token. Each coordinator is asked once.
pub(crate) async fn enrol(
    agent: &AgentState,
    name: &ControllerName,
    token: &str,
) -> Result<(), EnrolError> {
    let settings = agent.settings();
    let rules = settings.controllers.iter().find(|it| it.name == *name);
    let found = rules.and_then(|rules| Some((rules, farm_rules(rules)?)));
    let (rules, farm) = found.ok_or_else(|| EnrolError::Unknown(name.clone()))?;
    let (client, path) = (Client::new(rules, farm)?, key_path(agent, rules));
    let prepared = path.clone();
    let key = blocking(move || FarmKey::prepare(&prepared)).await?;
    let limit = Duration::from_millis(Terms::default().request_ms);
    let mut enrolled = client.enrol(token, &key, limit).await;
    for _ in 1..client.coordinators() {
        if let Err(FarmError::Unavailable { .. }) = enrolled {
            enrolled = client.enrol(token, &key, limit).await;
        }
    }
    enrolled?;
    blocking(move || FarmKey::accept(&path)).await?;
    info!(controller = %name, "enrolled in a farm");
    agent.wake.notify_one();
    Ok(())
}
