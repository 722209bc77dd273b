//! Keeps what ended builds leave behind within the limits of the settings.
//!
//! A build goes record first, directory second, so that nobody is told of files that
//! are half gone. The records remember what is still to go: what an agent that was
//! ended has left is deleted in the next round.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::BuildId;
use config::schedule::Page;
use config::task::Digest;
use jiff::Timestamp;
use tracing::{info, warn};

use crate::blocking;
use crate::records::{Deletion, RecordsError};
use crate::state::AgentState;

use plan::{Action, Ended, Observed, SOURCE_GRACE, Source, plan};

/// How long it is from one round to the next.
const REST: Duration = Duration::from_mins(5);

/// Why something could not be looked at or deleted.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A file or directory of a build, or a source.
    #[error("cannot look at or delete what a build left behind")]
    File(#[from] io::Error),
}

/// Deletes a build wholly: its record, its log, everything that it gave out. One
/// without an outcome stays as it is.
///
/// # Errors
/// When the record is still there; or when it is gone and the files are not, which
/// then go later.
pub async fn remove(agent: &AgentState, id: BuildId) -> Result<Deletion, RetentionError> {
    let removal = agent.records.delete(id).await?;
    if removal == Deletion::Done {
        drop_directory(agent, id).await?;
    }
    Ok(removal)
}

/// Runs until the agent stops.
pub async fn run(agent: Arc<AgentState>) {
    loop {
        round(&agent).await;
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = tokio::time::sleep(REST) => {}
        }
    }
}

/// Looks, plans and acts once; goes on after a failure.
pub async fn round(agent: &Arc<AgentState>) {
    let (newest, world) = match look(agent).await {
        Ok(seen) => seen,
        Err(error) => {
            return warn!(
                "cannot tell what is to be deleted: {}",
                sys::error_report::chain(&error)
            );
        }
    };
    for step in plan(&world, &agent.settings.records, Timestamp::now()) {
        if agent.stopping.is_cancelled() {
            return;
        }
        if let Err(error) = act(agent, &step, newest).await {
            warn!(?step, "cannot delete: {}", sys::error_report::chain(&error));
        }
    }
}

async fn act(
    agent: &AgentState,
    step: &Action,
    newest: Option<BuildId>,
) -> Result<(), RetentionError> {
    match step {
        Action::DropDirectory(id) => {
            drop_directory(agent, *id).await?;
            info!(build = %id, "deleted the files of a build whose record is gone");
        }
        Action::Remove(id, why) => {
            if remove(agent, *id).await? == Deletion::Done {
                info!(build = %id, "deleted a build: {why}");
            }
        }
        Action::DropSource(digest) => {
            // Nobody asks for a build meanwhile, and those before `newest` were looked at.
            let _queue = agent.queue.lock().await;
            let path = agent.paths.sources().join(digest.as_str());
            let old = age(&path)? >= SOURCE_GRACE;
            if old && !agent.records.names_source(digest, newest).await? {
                fs::remove_file(path)?;
                info!(%digest, "deleted a source that no build names");
            }
        }
    }
    Ok(())
}

async fn drop_directory(agent: &AgentState, id: BuildId) -> Result<(), RetentionError> {
    let directory = agent.paths.build(id);
    blocking(move || match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    })
    .await?;
    Ok(agent.records.forget_deleted(id).await?)
}

/// All that a plan depends on, and the newest build that it knows of.
async fn look(agent: &Arc<AgentState>) -> Result<(Option<BuildId>, Observed), RetentionError> {
    let newest = agent.records.newest_id().await?;
    let world = Observed {
        leftovers: agent.records.deleted_builds().await?,
        wanted: scheduled(agent).await?,
        ..Observed::default()
    };
    let agent = Arc::clone(agent);
    blocking(move || Ok((newest, look_at_all(&agent, world)?))).await
}

/// The sources of schedules.
async fn scheduled(agent: &AgentState) -> Result<BTreeSet<Digest>, RecordsError> {
    let schedules = agent.records.schedules(Page::default()).await?;
    let sources = schedules.into_iter().flat_map(|it| it.build.sources);
    Ok(sources.map(|source| source.sha256).collect())
}

fn look_at_all(agent: &AgentState, mut world: Observed) -> Result<Observed, RetentionError> {
    let measured = agent.settings.records.bytes_max.is_some();
    world.sources = sources(&agent.paths.sources())?;
    for build in agent.records.summaries()? {
        // What is not there, or changes meanwhile, is measured as it is.
        let directory = measured.then(|| agent.paths.build(build.id));
        let bytes = directory.map(|directory| size(&directory).unwrap_or_default());
        let bytes = bytes.unwrap_or_default();
        if let Some(finished) = build.finished {
            world.ended.push(Ended {
                id: build.id,
                finished,
                sources: build.sources,
                bytes,
                held: build.held,
            });
        } else {
            world.awaited.extend(build.after);
            world.wanted.extend(build.sources);
            world.bytes_unfinished += bytes;
        }
    }
    Ok(world)
}

fn sources(all: &Path) -> io::Result<BTreeMap<Digest, Source>> {
    let mut sources = BTreeMap::new();
    for path in sys::file::entries(all)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(Ok(digest)) = name.map(str::parse) else {
            continue;
        };
        let bytes = fs::symlink_metadata(&path)?.len();
        let age = age(&path)?;
        sources.insert(digest, Source { bytes, age });
    }
    Ok(sources)
}

/// How long ago a file was written.
fn age(path: &Path) -> io::Result<Duration> {
    let written = fs::symlink_metadata(path)?.modified()?;
    Ok(SystemTime::now()
        .duration_since(written)
        .unwrap_or_default())
}

/// What the files of a directory take.
fn size(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for path in sys::file::entries(directory)? {
        let metadata = fs::symlink_metadata(&path)?;
        bytes += if metadata.is_dir() {
            size(&path)?
        } else {
            metadata.len()
        };
    }
    Ok(bytes)
}
