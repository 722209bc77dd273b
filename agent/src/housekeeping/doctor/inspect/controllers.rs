//! The facts about controllers.

use config::ControllerName;
use config::builds::ImageState;
use config::settings::{ControllerKind, ControllerRules};
use controllers::brep::check_key;
use controllers::farm::FarmKey;
use controllers::gitlab::check_token;
use jiff::Timestamp;
use records::ControllerCounts;
use sys::error_report::chain;

use super::super::inventory::ControllerFacts;
use crate::triggers::controllers::farm::key_path;
use state::AgentState;

/// Returns the facts about each controller of the settings.
pub(super) fn facts(agent: &AgentState) -> Vec<ControllerFacts> {
    let settings = agent.settings();
    let rules = settings.controllers.iter();
    rules.map(|rules| facts_of(agent, rules)).collect()
}

fn facts_of(agent: &AgentState, rules: &ControllerRules) -> ControllerFacts {
    let contact = agent.contacts.get(&rules.name);
    let now = Timestamp::now();
    let failing = contact.failing_since.map(|since| {
        let seconds = now.duration_since(since).as_secs();
        (
            contact.failure.clone(),
            u64::try_from(seconds).unwrap_or_default(),
        )
    });
    let key = rules.key.as_deref();
    ControllerFacts {
        name: rules.name.clone(),
        failing,
        key_fault: match &rules.kind {
            ControllerKind::Brep => key
                .and_then(|key| check_key(key).err())
                .map(|it| chain(&it)),
            ControllerKind::Gitlab(gitlab) => check_token(&gitlab.token).err().map(|it| chain(&it)),
            ControllerKind::Farm(_) => FarmKey::read(&key_path(agent, rules))
                .err()
                .map(|it| chain(&it)),
        },
        machines: machines(agent, rules),
        unlike: contact.unlike,
    }
}

/// Returns the number of machines with an image that a controller may be offered.
fn machines(agent: &AgentState, rules: &ControllerRules) -> usize {
    let toolchain = match &rules.toolchain {
        Some(toolchain) => toolchain.as_str(),
        None => &agent.settings().builds.toolchain,
    };
    let images = agent.status().map(|it| it.machines).unwrap_or_default();
    let is_offered = |image: &config::builds::Readiness| {
        let has_image = matches!(image.image, ImageState::Ready | ImageState::Outdated);
        has_image
            && image.toolchain.as_str() == toolchain
            && rules.preference(&image.machine).is_some()
    };
    images.iter().filter(|image| is_offered(image)).count()
}

/// Returns the controllers with open leases that the settings do not name.
pub(super) fn unnamed(
    agent: &AgentState,
    counts: &[ControllerCounts],
) -> Vec<(ControllerName, u32)> {
    let is_named = |name: &ControllerName| {
        let settings = agent.settings();
        let mut rules = settings.controllers.iter();
        rules.any(|rules| rules.name == *name)
    };
    let unnamed = counts
        .iter()
        .filter(|it| it.open > 0 && !is_named(&it.controller));
    unnamed.map(|it| (it.controller.clone(), it.open)).collect()
}
