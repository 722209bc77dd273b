//! Requests about builds.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use config::builds::{Build, Cancel, Listing, Request, Submitter, cancel as verdict};
use config::machine::{self, Kind, Machine};
use config::task::{Breakpoint, Outcome};
use config::tokens::Scope;
use config::{BuildId, ToolchainName};
use jiff::Timestamp;
use store::Volume;
use store::file::Hash;
use tracing::info;

use super::access::Caller;
use super::problem::Refused;
use crate::blocking;
use crate::host::Host;
use crate::reconcile::give_up;
use crate::records::{Once, Removal};
use crate::retention;
use crate::submission::{self, Submission};

/// How many builds another one may come after.
const AFTER_MAX: usize = 100;
/// How many sources a build may have.
const SOURCES_MAX: usize = 1000;
/// The length of the key under which a build is asked for.
const KEY_MAX: usize = 255;

/// The builds that are asked for; the header `Link` tells where the next page is.
pub(super) async fn list(
    State(host): State<Arc<Host>>,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(listing) = listing?;
    let mut builds = host.records.list(listing.clone()).await?;
    count_copies(&host, &mut builds);
    let next = listing.next(&builds).and_then(|next| {
        let query = serde_urlencoded::to_string(next).ok()?;
        Some([(
            header::LINK,
            format!("</api/v1/builds?{query}>; rel=\"next\""),
        )])
    });
    Ok((next, Json(builds)).into_response())
}

pub(super) async fn show(
    State(host): State<Arc<Host>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<Json<Build>, Refused> {
    let Path(id) = id?;
    let mut build = find(&host, id).await?;
    count_copies(&host, std::slice::from_mut(&mut build));
    Ok(Json(build))
}

/// Adds to records how many copies people look into.
fn count_copies(host: &Host, builds: &mut [Build]) {
    let copies: Vec<_> = host.with_jobs(|jobs| jobs.attached.keys().copied().collect());
    for build in builds {
        let of_it = copies.iter().filter(|copy| copy.build == build.id);
        build.life.copies = NonZeroUsize::new(of_it.count());
    }
}

/// The record of a build, or the refusal that there is none.
pub(super) async fn find(host: &Host, id: BuildId) -> Result<Build, Refused> {
    host.records
        .get(id)
        .await?
        .ok_or_else(|| Refused::no_build(id))
}

pub(super) async fn submit(
    State(host): State<Arc<Host>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<(StatusCode, Json<Build>), Refused> {
    let Json(request) = request?;
    let once = once(&headers, &request)?;
    let submitter = submitter(caller, &request)?;
    // What was answered once is answered again, whatever has changed since.
    if let Some(once) = &once {
        let before = host
            .records
            .submitted_before(once, &submitter, Timestamp::now());
        if let Some(before) = before.await? {
            return answer(before.into());
        }
    }
    if host.stopping.is_cancelled() {
        return Err(Refused::unavailable(
            "the agent stops; ask again when it runs",
        ));
    }
    let toolchain = toolchain(&host, &request)?;
    check_machine(&host, &request, &toolchain).await?;
    // Between the look at the sources and the record that names them none is deleted;
    // and of two equal requests at once the second one finds the first.
    let _queue = host.queue.lock().await;
    check_sources(&host, &request)?;
    check_after(&host, &request).await?;
    answer(submission::submit(&host, request, toolchain, submitter, once).await?)
}

/// In whose name a build is asked for.
fn submitter(caller: Caller, request: &Request) -> Result<Submitter, Refused> {
    let Caller { submitter, scope } = caller;
    match &request.submitter {
        Some(other) if scope < Scope::Admin && *other != submitter => Err(Refused::forbidden(
            format!("{submitter} may not ask for builds in the name of {other}"),
        )),
        Some(other) => Ok(other.clone()),
        None => Ok(submitter),
    }
}

fn answer(submission: Submission) -> Result<(StatusCode, Json<Build>), Refused> {
    match submission {
        Submission::New(build) => Ok((StatusCode::CREATED, Json(build))),
        Submission::There(build) => Ok((StatusCode::OK, Json(build))),
        Submission::Deleted => Err(Refused::conflict(
            "the build that was asked for under this key was deleted; use another key",
        )),
        Submission::Other => Err(Refused::unusable(
            "something else was asked for under this key within a week; use another key",
        )),
    }
}

/// Only builds that are there can come before another one, so that no two of them
/// ever wait for each other.
async fn check_after(host: &Host, request: &Request) -> Result<(), Refused> {
    if request.after.len() > AFTER_MAX {
        return Err(Refused::bad(format!(
            "a build comes after at most {AFTER_MAX} others"
        )));
    }
    for id in &request.after {
        find(host, *id).await?;
    }
    Ok(())
}

/// The key under which a build is asked for, if there is one.
fn once(headers: &HeaderMap, request: &Request) -> Result<Option<Once>, Refused> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > KEY_MAX {
        return Err(Refused::bad(format!(
            "an Idempotency-Key has 1 to {KEY_MAX} printable characters"
        )));
    }
    let mut hash = Hash::default();
    let text = serde_json::to_vec(request).map_err(|error| Refused::fault(&error))?;
    hash.add(&text);
    Ok(Some(Once {
        key: key.to_owned(),
        sha256: hash.finish(),
    }))
}

fn check_sources(host: &Host, request: &Request) -> Result<(), Refused> {
    let names: BTreeSet<_> = request
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    if request.sources.is_empty() && request.interactive != Some(Breakpoint::Start) {
        return Err(Refused::bad("a build needs at least one source"));
    }
    if request.interactive == Some(Breakpoint::Attach) {
        return Err(Refused::bad("a build stops at start, warning or error"));
    }
    if names.len() < request.sources.len() {
        return Err(Refused::bad(
            "two sources have the same name; a build sees them side by side",
        ));
    }
    if names.len() > SOURCES_MAX {
        return Err(Refused::bad(format!(
            "a build has at most {SOURCES_MAX} sources"
        )));
    }
    let directory = host.sources_directory();
    match request
        .sources
        .iter()
        .find(|source| !directory.join(source.sha256.as_str()).exists())
    {
        Some(source) => Err(Refused::conflict(format!(
            "the content of source {} is not here; put it to /api/v1/sources/{} first",
            source.name, source.sha256
        ))),
        None => Ok(()),
    }
}

fn toolchain(host: &Host, request: &Request) -> Result<ToolchainName, Refused> {
    let default = || host.settings.builds.toolchain.parse::<ToolchainName>();
    let name = request.toolchain.clone().map_or_else(default, Ok);
    let name = name.map_err(|error| Refused::fault(&error))?;
    if host.toolchains.list()?.contains(&name) {
        return Ok(name);
    }
    Err(Refused::missing(format!(
        "there is no toolchain {name}; `machinectl toolchain list` shows what there is"
    )))
}

async fn check_machine(
    host: &Arc<Host>,
    request: &Request,
    toolchain: &ToolchainName,
) -> Result<(), Refused> {
    let (host, machine) = (Arc::clone(host), request.machine.clone());
    let kind = blocking(move || {
        let mut volumes = host.volumes.iter();
        let is_live = |volume: &&Volume| volume.look(&machine).is_ok_and(|view| view.is_live());
        let volume = volumes.find(is_live)?;
        // The machine's directory holds a link of its name to the current revision.
        let current = volume.path().join(&machine).join(&machine);
        let text = std::fs::read_to_string(current.join(machine::FILE)).unwrap_or_default();
        // What is wrong with a manifest is told by who starts the machine.
        Some(Machine::parse(&text).map_or(Kind::Kvm, |machine| machine.kind))
    });
    let waits = request.interactive.is_some() || request.hold;
    match kind.await {
        Some(Kind::Nspawn) if waits => {
            return Err(Refused::conflict(format!(
                "machine {} is a container, in which nobody can type and which cannot be suspended: build without a breakpoint, and without holding it",
                request.machine
            )));
        }
        Some(_) => return Ok(()),
        None => {}
    }
    Err(Refused::missing(format!(
        "there is no machine {} to build with toolchain {toolchain}; `machinectl list` shows what there is",
        request.machine
    )))
}

/// Deletes a build wholly.
pub(super) async fn delete(
    State(host): State<Arc<Host>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<StatusCode, Refused> {
    let Path(id) = id?;
    match retention::remove(&host, id).await? {
        Removal::Done => {
            info!(build = %id, "build deleted");
            Ok(StatusCode::NO_CONTENT)
        }
        Removal::Missing => Err(Refused::no_build(id)),
        Removal::Unfinished => Err(Refused::conflict(format!(
            "build {id} has not ended yet; cancel it first"
        ))),
        Removal::Held => Err(Refused::conflict(format!(
            "build {id} is held for a person; `machinectl release {id}` first"
        ))),
        Removal::Awaited => Err(Refused::conflict(format!(
            "a build that waits is to come after build {id}; cancel that first"
        ))),
    }
}

pub(super) async fn cancel(
    State(host): State<Arc<Host>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<(StatusCode, Json<Build>), Refused> {
    let Path(id) = id?;
    let _queue = host.queue.lock().await;
    let mut build = find(&host, id).await?;
    let running = host.with_jobs(|jobs| jobs.builds.get(&id).map(|(_, cancel)| cancel.clone()));
    match (verdict(build.state), running) {
        (Cancel::TooLate, _) => Err(Refused::conflict(match build.outcome {
            Some(outcome) => format!("build {id} has already finished: {outcome}"),
            None => format!("build {id} has its result already, which is being stored"),
        })),
        (Cancel::Drop | Cancel::Interrupt, Some(running)) => {
            running.cancel();
            Ok((StatusCode::ACCEPTED, Json(build)))
        }
        (Cancel::Drop | Cancel::Interrupt, None) => {
            give_up(&mut build, Outcome::Abort, "it was cancelled".to_owned());
            host.records.save(&build).await?;
            host.wake.notify_one();
            Ok((StatusCode::OK, Json(build)))
        }
    }
}
