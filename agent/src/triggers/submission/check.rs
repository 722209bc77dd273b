//! Checks of requests for builds, from clients and schedules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::builds::{Request, Submitter};
use config::layout::Entry;
use config::machine::{Kind, Role};
use config::secrets::COUNT_MAX;
use config::task::{Breakpoint, Source};
use config::{MachineName, ResourceCounts, ToolchainName};
use records::RecordsError;
use secrets::SecretsError;
use store::StoreError;
use sys::blocking::blocking;

use state::{AgentState, ImageFacts};

/// The maximum number of dependencies of a build.
const AFTER_MAX: usize = 100;
/// The maximum number of sources of a build.
const SOURCES_MAX: usize = 1000;

/// A reason to refuse a request. Its text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// The request is contradictory or out of limits.
    #[error("{0}")]
    Malformed(String),
    /// Something that it names does not exist.
    #[error("{0}")]
    Missing(String),
    /// Its submitter may not have something that it names.
    #[error("{0}")]
    Forbidden(String),
    /// It conflicts with the state of the host.
    #[error("{0}")]
    Conflict(String),
    /// The toolchains or the volumes cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The default toolchain in the settings is not a valid name.
    #[error(transparent)]
    Name(#[from] config::NameError),
    /// The records cannot be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The secrets cannot be read.
    #[error(transparent)]
    Secrets(SecretsError),
}

impl From<SecretsError> for InvalidRequest {
    fn from(error: SecretsError) -> Self {
        match error {
            SecretsError::Missing(_) => Self::Missing(error.to_string()),
            SecretsError::Forbidden { .. } => Self::Forbidden(error.to_string()),
            SecretsError::Exists(_) | SecretsError::Full => Self::Conflict(error.to_string()),
            error @ (SecretsError::Permissions { .. }
            | SecretsError::Content { .. }
            | SecretsError::File { .. }) => Self::Secrets(error),
        }
    }
}

/// Checks the form of a request, without the state of the host.
pub(crate) fn check_form(request: &Request) -> Result<(), InvalidRequest> {
    let refuse = |reason: String| Err(InvalidRequest::Malformed(reason));
    if request.commands.is_some() {
        check_driven(request)?;
        return check_unresolved(request);
    }
    if request.sources.is_empty() && request.interactive != Some(Breakpoint::Start) {
        return refuse("a build needs at least one source".into());
    }
    check_unresolved(request)
}

/// Checks that a request for a driven guest asks for nothing that belongs to a task.
fn check_driven(request: &Request) -> Result<(), InvalidRequest> {
    let refuse = |reason: &str| Err(InvalidRequest::Malformed(reason.to_owned()));
    if !request.sources.is_empty() {
        return refuse("a guest for commands has no sources: copy files into it when it runs");
    }
    if request.interactive.is_some() || request.hold {
        return refuse("a guest for commands has neither breakpoints nor a hold");
    }
    if request.project.is_some() {
        return refuse("a guest for commands builds no project");
    }
    Ok(())
}

/// Checks a request as [`check_form`] does, but for its sources, which may come later.
pub(crate) fn check_unresolved(request: &Request) -> Result<(), InvalidRequest> {
    let refuse = |reason: String| Err(InvalidRequest::Malformed(reason));
    let names = request.sources.iter().map(|source| source.name.as_str());
    let names: BTreeSet<_> = names.collect();
    if request.interactive == Some(Breakpoint::Attach) {
        return refuse("the breakpoints of a build are start, warning and error".into());
    }
    if names.len() < request.sources.len() {
        return refuse("two sources have the same name; all are in one directory".into());
    }
    if names.len() > SOURCES_MAX {
        return refuse(format!("a build has at most {SOURCES_MAX} sources"));
    }
    if request.after.len() > AFTER_MAX {
        return refuse(format!("a build has at most {AFTER_MAX} dependencies"));
    }
    let secrets: BTreeSet<_> = request.secrets.iter().collect();
    if request.secrets.len() > COUNT_MAX {
        return refuse(format!("a build has at most {COUNT_MAX} secrets"));
    }
    if secrets.len() < request.secrets.len() {
        return refuse("the build names a secret twice".into());
    }
    Ok(())
}

/// Checks that the machine and the toolchain of a request exist, and that the machine permits
/// what the request asks for. Returns the toolchain.
pub(crate) async fn resolve_toolchain(
    agent: &Arc<AgentState>,
    request: &Request,
) -> Result<ToolchainName, InvalidRequest> {
    let (agent, request) = (Arc::clone(agent), request.clone());
    blocking(move || {
        let toolchain = existing_toolchain(&agent, request.toolchain.clone())?;
        let machine = &request.machine;
        match current_revision(&agent, machine)? {
            Some((facts, directory)) => {
                check_machine(&request, &facts, &directory)?;
                check_counts(&request, &facts, &agent.settings().guests.resources)?;
                Ok(toolchain)
            }
            None => Err(InvalidRequest::Missing(format!(
                "there is no machine {machine} to build with toolchain {toolchain}; `buildhost list` lists all machines"
            ))),
        }
    })
    .await
}

fn existing_toolchain(
    agent: &AgentState,
    requested: Option<ToolchainName>,
) -> Result<ToolchainName, InvalidRequest> {
    let default = || agent.settings().builds.toolchain.parse();
    let name = requested.map_or_else(default, Ok)?;
    if agent.toolchains.list()?.contains(&name) {
        return Ok(name);
    }
    Err(InvalidRequest::Missing(format!(
        "there is no toolchain {name}; `buildhost toolchain list` lists all toolchains"
    )))
}

/// Checks that a machine permits what a request asks for. The start of the guest reports an
/// invalid manifest.
fn check_machine(
    request: &Request,
    facts: &ImageFacts,
    directory: &Path,
) -> Result<(), InvalidRequest> {
    let Ok(machine) = &facts.machine else {
        return Ok(());
    };
    let name = &request.machine;
    if machine.role == Role::Auxiliary {
        return Err(InvalidRequest::Conflict(format!(
            "machine {name} is auxiliary, as its manifest says: it runs beside builds of controllers, and no build runs on it; choose another machine"
        )));
    }
    if request.hold && machine.kind == Kind::Nspawn {
        return Err(InvalidRequest::Conflict(format!(
            "machine {name} is a container, which cannot be suspended: build without holding it, or with a breakpoint"
        )));
    }
    request.resources.check(machine).map_err(|error| {
        let file = directory.join(config::machine::FILE);
        InvalidRequest::Conflict(format!(
            "machine {name}: {error} in its manifest ({})",
            file.display()
        ))
    })
}

/// Checks that the host has the countable resources that a request and its machine need.
fn check_counts(
    request: &Request,
    facts: &ImageFacts,
    declared: &ResourceCounts,
) -> Result<(), InvalidRequest> {
    let machine = facts.machine.as_ref().map(|machine| &machine.resources);
    let counts = machine.map_or_else(
        |_| request.resources.counts.clone(),
        |machine| request.resources.counts.max(machine),
    );
    for (name, wanted) in counts.iter() {
        let by = match request.resources.counts.get(name) {
            Some(own) if own == wanted => "the build".to_owned(),
            _ => format!("machine {}", request.machine),
        };
        match declared.get(name) {
            None => {
                let known = match declared.to_string() {
                    none if none.is_empty() => "none".to_owned(),
                    known => known,
                };
                return Err(InvalidRequest::Missing(format!(
                    "this host has no resource {name}, which {by} needs; its setting guests.resources declares: {known}"
                )));
            }
            Some(total) if wanted > total => {
                return Err(InvalidRequest::Conflict(format!(
                    "{by} needs {wanted} of resource {name}, and this host has {total}; its setting guests.resources declares them"
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Returns the facts and the directory of a live machine's current revision.
fn current_revision(
    agent: &AgentState,
    machine: &MachineName,
) -> Result<Option<(Arc<ImageFacts>, PathBuf)>, StoreError> {
    let located = agent.volumes.of_machine(machine)?;
    Ok(located.and_then(|located| {
        let (volume, current) = (agent.volumes.get(located.volume)?, located.view.current()?);
        let directory = volume.entry(machine, &Entry::Revision(current.revision));
        let facts = agent.image_facts.get(current.uuid, &directory);
        Some((facts, directory))
    }))
}

/// Checks that the content of all sources was uploaded. The sources stay while the caller
/// holds [`AgentState::queue`], and then as long as a record names them.
pub(crate) async fn check_sources(
    agent: &AgentState,
    request: &Request,
) -> Result<(), InvalidRequest> {
    let (directory, sources) = (agent.paths.sources(), request.sources.clone());
    match blocking(move || find_missing(&directory, sources)).await {
        Some(source) => Err(InvalidRequest::Conflict(format!(
            "the content of source {} was not uploaded; put it to /api/v1/sources/{} first",
            source.name, source.sha256
        ))),
        None => Ok(()),
    }
}

/// Returns the first source whose content is not in the directory. Blocks.
fn find_missing(directory: &Path, sources: Vec<Source>) -> Option<Source> {
    sources
        .into_iter()
        .find(|source| !directory.join(source.sha256.as_str()).exists())
}

/// Checks that all secrets exist and that builds of the submitter may have them.
pub(crate) async fn check_secrets(
    agent: &AgentState,
    request: &Request,
    submitter: &Submitter,
) -> Result<(), InvalidRequest> {
    if request.secrets.is_empty() {
        return Ok(());
    }
    let (store, names) = (agent.secrets.clone(), request.secrets.clone());
    let submitter = submitter.clone();
    Ok(blocking(move || store.check(&names, &submitter)).await?)
}

/// Checks that all dependencies exist already, so that builds never depend on each other in a
/// circle.
pub(crate) async fn check_dependencies(
    agent: &AgentState,
    request: &Request,
) -> Result<(), InvalidRequest> {
    for id in &request.after {
        if agent.records.get(*id).await?.is_none() {
            return Err(InvalidRequest::Missing(format!(
                "there is no build {id}; `buildhost builds` lists all builds"
            )));
        }
    }
    Ok(())
}
