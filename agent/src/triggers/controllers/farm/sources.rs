//! The sources of granted builds: fetched through any coordinator, verified, and kept as those that clients
//! upload to this host.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::task::{Digest, Source};
use controllers::farm::{FarmError, FarmKey};
use state::AgentState;
use sys::blocking::blocking;
use sys::file::Hasher;
use tempfile::NamedTempFile;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Farm;

/// The time for which sources are asked for. Then the lease is given back, so that another host may try, or
/// the farm says that the sources are lost.
const ASK_MAX: Duration = Duration::from_mins(2);
/// The pause before they are asked for again.
const PAUSE: Duration = Duration::from_secs(2);

/// The time without a byte after which a source is asked for again. A coordinator that lacks it gets the
/// whole of it first.
const SILENCE_MAX: Duration = Duration::from_mins(10);

/// A failure to get a source.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    /// The farm.
    #[error(transparent)]
    Farm(#[from] FarmError),
    /// Something else has arrived.
    #[error("source {wanted} arrived with the hash {found}")]
    Wrong { wanted: Digest, found: Digest },
    /// It is larger than sources of this host may be.
    #[error("source {0} has more than {1} bytes, which `builds.sources_mib_max` permits")]
    TooLarge(Digest, u64),
    /// The disk of this host.
    #[error("cannot write to {}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

/// Fetches the sources that this host lacks. Returns false if one has not arrived.
pub(super) async fn fetch(
    agent: &Arc<AgentState>,
    farm: &Farm,
    key: &FarmKey,
    sources: &[Source],
) -> bool {
    let began = Instant::now();
    for source in sources {
        while let Err(failure) = fetch_one(agent, farm, key, &source.sha256).await {
            note_failure(farm, source, &failure);
            let is_final = matches!(failure, SourceError::TooLarge(..));
            if is_final || began.elapsed() > ASK_MAX || agent.stopping.is_cancelled() {
                return false;
            }
            sleep(PAUSE).await;
        }
    }
    true
}

fn note_failure(farm: &Farm, source: &Source, failure: &SourceError) {
    let (controller, name) = (&farm.rules.name, &source.name);
    let error = failure as &dyn Error;
    warn!(%controller, %name, error, "cannot fetch a source of a build");
}

async fn fetch_one(
    agent: &AgentState,
    farm: &Farm,
    key: &FarmKey,
    digest: &Digest,
) -> Result<(), SourceError> {
    let directory = agent.paths.sources();
    let path = directory.join(digest.as_str());
    let failed = |source: io::Error| SourceError::Disk {
        path: directory.clone(),
        source,
    };
    let known = path.clone();
    if blocking(move || renew(&known)).await.map_err(failed)? {
        return Ok(());
    }
    let bytes_max = agent.settings().builds.sources_bytes_max;
    let mut content = farm.client.source(key, digest).await?;
    let place = directory.clone();
    let file = blocking(move || NamedTempFile::new_in(place)).await;
    let mut file = file.map_err(failed)?;
    let (mut hasher, mut bytes) = (Hasher::default(), 0);
    loop {
        let part = timeout(SILENCE_MAX, farm.client.part(&mut content)).await;
        let part = part.unwrap_or_else(|_| Err(farm.client.give_up(&content)));
        let Some(part) = part? else { break };
        bytes += part.len() as u64;
        if bytes > bytes_max {
            return Err(SourceError::TooLarge(digest.clone(), bytes_max));
        }
        hasher.update(&part);
        let written = blocking(move || file.write_all(&part).map(|()| file)).await;
        file = written.map_err(failed)?;
    }
    let found = hasher.finish();
    if found != *digest {
        let wanted = digest.clone();
        return Err(SourceError::Wrong { wanted, found });
    }
    let published = blocking(move || sys::file::publish(file, &path)).await;
    published.map_err(failed)?;
    info!(%digest, bytes, "fetched a source of the farm");
    Ok(())
}

/// Renews the age of a source, so that it is kept until its build names it. Returns false if it is not there.
fn renew(path: &Path) -> io::Result<bool> {
    match sys::trusted::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        opened => opened?.set_modified(SystemTime::now()).map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_there_becomes_young_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        assert!(!renew(&path).unwrap());
        sys::file::replace(&path, b"a").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(renew(&path).unwrap());
        let age = path.metadata().unwrap().modified().unwrap().elapsed();
        assert!(age.is_ok_and(|it| it < Duration::from_hours(1)));
    }
}
