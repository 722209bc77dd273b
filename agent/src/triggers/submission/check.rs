//! Whether a build can be had that somebody, or a schedule, asks for.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::ToolchainName;
use config::builds::Request;
use config::machine::{self, Kind, Machine};
use config::task::Breakpoint;
use store::{StoreError, Volume};

use crate::blocking;
use crate::records::RecordsError;
use crate::state::AgentState;

/// How many builds another one may come after.
const AFTER_MAX: usize = 100;
/// How many sources a build may have.
const SOURCES_MAX: usize = 1000;

/// Why a build cannot be had; the words say the way out.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It makes no sense.
    #[error("{0}")]
    Senseless(String),
    /// Something that it names is not there.
    #[error("{0}")]
    Missing(String),
    /// It cannot be had as things are.
    #[error("{0}")]
    Conflict(String),
    /// The toolchains could not be looked at.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The default toolchain of the settings has no name.
    #[error(transparent)]
    Name(#[from] config::NameError),
    /// The records could not be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Checks what can be checked by looking at the request alone.
pub(crate) fn makes_sense(request: &Request) -> Result<(), Unfit> {
    let refuse = |words: String| Err(Unfit::Senseless(words));
    let names = request.sources.iter().map(|source| source.name.as_str());
    let names: BTreeSet<_> = names.collect();
    if request.sources.is_empty() && request.interactive != Some(Breakpoint::Start) {
        return refuse("a build needs at least one source".into());
    }
    if request.interactive == Some(Breakpoint::Attach) {
        return refuse("a build stops at start, warning or error".into());
    }
    if names.len() < request.sources.len() {
        return refuse("two sources have the same name; a build sees them side by side".into());
    }
    if names.len() > SOURCES_MAX {
        return refuse(format!("a build has at most {SOURCES_MAX} sources"));
    }
    if request.after.len() > AFTER_MAX {
        return refuse(format!("a build comes after at most {AFTER_MAX} others"));
    }
    Ok(())
}

/// Checks that there is a machine and a toolchain for it, which is returned.
pub(crate) async fn has_machine(
    agent: &Arc<AgentState>,
    request: &Request,
) -> Result<ToolchainName, Unfit> {
    let toolchain = toolchain(agent, request)?;
    match kind(agent, request).await {
        Some(Kind::Nspawn) if request.hold => Err(Unfit::Conflict(format!(
            "machine {} is a container, which cannot be suspended: build without holding it, or with a breakpoint",
            request.machine
        ))),
        Some(_) => Ok(toolchain),
        None => Err(Unfit::Missing(format!(
            "there is no machine {} to build with toolchain {toolchain}; `buildhost list` shows what there is",
            request.machine
        ))),
    }
}

fn toolchain(agent: &AgentState, request: &Request) -> Result<ToolchainName, Unfit> {
    let default = || agent.settings.builds.toolchain.parse();
    let name = request.toolchain.clone().map_or_else(default, Ok)?;
    if agent.toolchains.list()?.contains(&name) {
        return Ok(name);
    }
    Err(Unfit::Missing(format!(
        "there is no toolchain {name}; `buildhost toolchain list` shows what there is"
    )))
}

/// What runs the guests of the machine, if there is one.
async fn kind(agent: &Arc<AgentState>, request: &Request) -> Option<Kind> {
    let (agent, machine) = (Arc::clone(agent), request.machine.clone());
    blocking(move || {
        let mut volumes = agent.volumes.iter();
        let is_live = |volume: &&Volume| volume.view(&machine).is_ok_and(|view| view.is_live());
        let volume = volumes.find(is_live)?;
        // The machine's directory holds a link of its name to the current revision.
        let current = volume.path().join(&machine).join(&machine);
        let text = std::fs::read_to_string(current.join(machine::FILE)).unwrap_or_default();
        // What is wrong with a manifest is told by who starts the machine.
        Some(Machine::parse(&text).map_or(Kind::Kvm, |machine| machine.kind))
    })
    .await
}

/// Checks that its sources are here. They stay as long as the caller holds
/// [`AgentState::queue`], and longer when something that was recorded meanwhile names them.
pub(crate) fn has_sources(agent: &AgentState, request: &Request) -> Result<(), Unfit> {
    let directory = agent.paths.sources();
    let mut sources = request.sources.iter();
    match sources.find(|source| !directory.join(source.sha256.as_str()).exists()) {
        Some(source) => Err(Unfit::Conflict(format!(
            "the content of source {} is not here; put it to /api/v1/sources/{} first",
            source.name, source.sha256
        ))),
        None => Ok(()),
    }
}

/// Checks that the builds are there that it is to come after, so that no two of them
/// ever wait for each other.
pub(crate) async fn comes_after(agent: &AgentState, request: &Request) -> Result<(), Unfit> {
    for id in &request.after {
        if agent.records.get(*id).await?.is_none() {
            return Err(Unfit::Missing(format!(
                "there is no build {id}; `buildhost builds` shows what there is"
            )));
        }
    }
    Ok(())
}
