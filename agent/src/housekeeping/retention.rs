//! Retention: keeps finished builds, sources and caches within the limits of the settings.
//!
//! The record of a build is deleted before its directory, so that the API never lists partially
//! deleted files. Pending deletions of directories are recorded, and finished after a restart.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::BuildId;
use config::schedule::Page;
use config::task::Digest;
use jiff::Timestamp;
use records::{Deletion, RecordsError};
use sys::blocking::blocking;
use tracing::{info, warn};

use state::AgentState;

use plan::{FinishedBuild, Observed, Removal, SOURCE_GRACE, Source, plan};

/// The interval between rounds.
const INTERVAL: Duration = Duration::from_mins(5);

/// A failure of a deletion, or of an observation for one.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The records failed.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A file of a build, or a source, failed.
    #[error("cannot inspect or delete the files of a build")]
    File(#[from] io::Error),
}

/// Deletes a finished build: its record, log and artifacts.
///
/// # Errors
/// The record cannot be deleted; or it is deleted and the files cannot be, which a later round
/// retries.
pub async fn delete_build(agent: &AgentState, id: BuildId) -> Result<Deletion, RetentionError> {
    let deletion = agent.records.delete(id).await?;
    if deletion == Deletion::Done {
        delete_directory(agent, id).await?;
    }
    Ok(deletion)
}

/// Runs rounds until the agent stops.
pub async fn run(agent: Arc<AgentState>) {
    loop {
        round(&agent).await;
        let caches = agent.caches.clone();
        blocking(move || caches.housekeep()).await;
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Observes, plans and executes once. Continues after a failure and logs it.
pub async fn round(agent: &Arc<AgentState>) {
    let (newest, observed) = match observe(agent).await {
        Ok(observed) => observed,
        Err(error) => {
            let error = &error as &dyn Error;
            return warn!(error, "cannot observe the builds and sources to delete");
        }
    };
    for removal in plan(&observed, &agent.settings().records, Timestamp::now()) {
        if agent.stopping.is_cancelled() {
            return;
        }
        if let Err(error) = delete(agent, &removal, newest).await {
            let error = &error as &dyn Error;
            warn!(?removal, error, "cannot delete a build or a source");
        }
    }
}

async fn delete(
    agent: &AgentState,
    removal: &Removal,
    newest: Option<BuildId>,
) -> Result<(), RetentionError> {
    match removal {
        Removal::Directory(id) => {
            delete_directory(agent, *id).await?;
            info!(build = %id, "deleted the files of a deleted build");
        }
        Removal::Build(id, reason) => {
            if delete_build(agent, *id).await? == Deletion::Done {
                info!(build = %id, %reason, "deleted a build");
            }
        }
        Removal::Source(digest) => {
            // Under the lock no build is submitted. Those up to `newest` were observed.
            let _queue = agent.queue.lock().await;
            if agent.records.names_source(digest, newest).await? {
                return Ok(());
            }
            let path = agent.paths.sources().join(digest.as_str());
            if blocking(move || delete_old_source(&path)).await? {
                info!(%digest, "deleted a source that no build names");
            }
        }
    }
    Ok(())
}

/// Deletes a source unless it was uploaded again meanwhile. Returns true if it did. Blocks.
fn delete_old_source(path: &Path) -> io::Result<bool> {
    let is_old = age(path)? >= SOURCE_GRACE;
    if is_old {
        fs::remove_file(path)?;
    }
    Ok(is_old)
}

async fn delete_directory(agent: &AgentState, id: BuildId) -> Result<(), RetentionError> {
    let directory = agent.paths.build(id);
    blocking(move || match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    })
    .await?;
    Ok(agent.records.forget_deleted(id).await?)
}

/// Returns the facts that the plan depends on, and the newest build that was observed.
async fn observe(agent: &Arc<AgentState>) -> Result<(Option<BuildId>, Observed), RetentionError> {
    let newest = agent.records.newest_id().await?;
    let observed = Observed {
        pending: agent.records.deleted_builds().await?,
        used: scheduled_sources(agent).await?,
        ..Observed::default()
    };
    let agent = Arc::clone(agent);
    blocking(move || Ok((newest, observe_files(&agent, observed)?))).await
}

/// Returns the sources of schedules.
async fn scheduled_sources(agent: &AgentState) -> Result<BTreeSet<Digest>, RecordsError> {
    let schedules = agent.records.schedules(Page::default()).await?;
    let sources = schedules.into_iter().flat_map(|it| it.build.sources);
    Ok(sources.map(|source| source.sha256).collect())
}

/// Adds the builds and the files. Blocks.
fn observe_files(agent: &AgentState, mut observed: Observed) -> Result<Observed, RetentionError> {
    let measured = agent.settings().records.bytes_max.is_some();
    observed.sources = sources(&agent.paths.sources())?;
    for build in agent.records.summaries()? {
        // A directory may be missing or change meanwhile; then its size is approximate.
        let directory = measured.then(|| agent.paths.build(build.id));
        let bytes = directory.map(|directory| size(&directory).unwrap_or_default());
        let bytes = bytes.unwrap_or_default();
        if let Some(finished) = build.finished {
            observed.finished.push(FinishedBuild {
                id: build.id,
                finished,
                sources: build.sources,
                bytes,
                held: build.held,
            });
        } else {
            observed.awaited.extend(build.after);
            observed.used.extend(build.sources);
            observed.bytes_unfinished += bytes;
        }
    }
    Ok(observed)
}

/// Returns the sources that were uploaded.
fn sources(directory: &Path) -> io::Result<BTreeMap<Digest, Source>> {
    let mut sources = BTreeMap::new();
    for path in sys::file::entries(directory)? {
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

/// Returns the time since a file was written.
fn age(path: &Path) -> io::Result<Duration> {
    let written = fs::symlink_metadata(path)?.modified()?;
    Ok(SystemTime::now()
        .duration_since(written)
        .unwrap_or_default())
}

/// Returns the size of the files below a directory.
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
