//! Package feeds: publishes the packages of the builds that the records say wait for it.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::builds::Build;
use config::feeds::{FeedRebuilt, FeedStatus};
use config::settings::FeedRules;
use config::{BuildId, MachineName};
use feeds::package::{self, PackageKind};
use feeds::repository::{Addition, Published, Repository, RepositoryError};
use feeds::retention::Retention;
use feeds::signature::{FeedKey, SignError};
use jiff::Timestamp;
use records::RecordsError;
use state::AgentState;
use state::paths::ARTIFACTS;
use sys::blocking::blocking;
use sys::error_report::chain;
use tokio::time::sleep;
use tracing::{info, warn};

use super::outbox;

mod status;

/// The number of builds that are published together.
const BUILDS_MAX: u32 = 100;

/// The time between two looks at the age of packages.
pub const EXPIRY: Duration = Duration::from_hours(1);

/// Publishes the packages of all feeds until the agent stops, and removes those that are too old at each
/// `expiry`.
pub fn run(agent: &Arc<AgentState>, expiry: Duration) {
    for rules in &agent.settings().feeds {
        let (shared, own) = (Arc::clone(agent), rules.clone());
        tokio::spawn(async move {
            settle(&own).await;
            tokio::join!(serve(&shared, &own), expire(&shared, &own, expiry));
        });
    }
}

/// Removes the packages of a feed that are too old, and the files that no client reads any more.
async fn expire(agent: &Arc<AgentState>, rules: &FeedRules, expiry: Duration) {
    loop {
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(expiry) => settle(rules).await,
        }
    }
}

/// Publishes the packages of a feed. After a failure the rest waits: it would fail as well.
async fn serve(agent: &Arc<AgentState>, rules: &FeedRules) {
    let deliver = || async {
        round(agent, rules).await.unwrap_or_else(|error| {
            let error = &error as &dyn Error;
            warn!(feed = %rules.name, error, "cannot use the waiting publications");
            None
        })
    };
    outbox::run(agent, deliver).await;
}

/// Publishes nothing new: completes what a killed agent has left, signs again if the keys have changed, and
/// removes packages that are too old.
async fn settle(rules: &FeedRules) {
    let rules = rules.clone();
    let settle = move || {
        let machines = match machines(&rules) {
            Ok(machines) => machines,
            Err(error) => {
                let error = &error as &dyn Error;
                warn!(feed = %rules.name, error, "cannot read the directory of the feed");
                return;
            }
        };
        for machine in machines {
            match publish(&rules, &machine, Vec::new()) {
                Ok(published) => report(&rules, &machine, &published),
                Err(error) => {
                    let error = &error as &dyn Error;
                    warn!(feed = %rules.name, %machine, error, "cannot use a repository of the feed");
                }
            }
        }
    };
    blocking(settle).await;
}

/// Publishes what waits. Returns the number of failures if an attempt has failed.
async fn round(agent: &Arc<AgentState>, rules: &FeedRules) -> Result<Option<u32>, RecordsError> {
    loop {
        let waiting = agent
            .records
            .waiting_publications(rules.name.clone(), BUILDS_MAX);
        let waiting = waiting.await?;
        if waiting.is_empty() || agent.stopping.is_cancelled() {
            return Ok(None);
        }
        let mut settled = Vec::new();
        let mut machines: BTreeMap<MachineName, Vec<Build>> = BTreeMap::new();
        for publication in &waiting {
            match agent.records.get(publication.build).await? {
                // Its typists may have been recorded since its end.
                Some(build) if rules.takes(&build) => {
                    machines
                        .entry(build.machine.clone())
                        .or_default()
                        .push(build);
                }
                _ => settled.push(publication.build),
            }
        }
        let mut failed = false;
        for (machine, builds) in machines {
            let ids: Vec<BuildId> = builds.iter().map(|build| build.id).collect();
            match publish_builds(agent, rules, machine.clone(), builds).await {
                Ok(published) => {
                    report(rules, &machine, &published);
                    settled.extend(ids);
                }
                Err(error) => {
                    failed = true;
                    let failure = chain(&error);
                    warn!(feed = %rules.name, %machine, failure, "cannot publish packages; trying again");
                    let failed = agent
                        .records
                        .publication_failed(rules.name.clone(), ids, failure);
                    failed.await?;
                }
            }
        }
        agent.records.published(rules.name.clone(), settled).await?;
        if failed {
            let failures = waiting.iter().map(|it| it.failures).max();
            return Ok(Some(failures.unwrap_or(0).saturating_add(1)));
        }
    }
}

/// Logs a publication.
fn report(rules: &FeedRules, machine: &MachineName, published: &Published) {
    for refused in &published.refused {
        let (file, reason) = (&refused.file, &refused.reason);
        let build = refused.build.map(|build| build.0);
        warn!(feed = %rules.name, %machine, build, file, reason, "a feed has refused a package");
    }
    let (generation, packages) = (published.generation, published.added.len());
    if packages > 0 {
        info!(feed = %rules.name, %machine, generation, packages, "published packages");
    }
    let expired = published.expired;
    if expired > 0 {
        info!(feed = %rules.name, %machine, generation, expired, "removed packages from a feed");
    }
}

async fn publish_builds(
    agent: &Arc<AgentState>,
    rules: &FeedRules,
    machine: MachineName,
    builds: Vec<Build>,
) -> Result<Published, PublishError> {
    let (agent, rules) = (Arc::clone(agent), rules.clone());
    let publish = move || {
        let mut additions = Vec::new();
        for build in &builds {
            let directory = agent.paths.build(build.id).join(ARTIFACTS);
            let added = of_build(&rules, &directory, build);
            additions.extend(added.map_err(PublishError::Artifact)?);
        }
        publish(&rules, &machine, additions)
    };
    blocking(publish).await
}

/// A failure to publish packages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// An artifact cannot be read.
    #[error("cannot read the packages of a build")]
    Artifact(#[source] io::Error),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] SignError),
    /// The repository cannot be changed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Returns the packages of a build that a feed has. Blocks.
fn of_build(
    rules: &FeedRules,
    directory: &std::path::Path,
    build: &Build,
) -> io::Result<Vec<Addition>> {
    let mut additions = Vec::new();
    for artifact in &build.artifacts {
        let Some(kind) = PackageKind::of_file(artifact.name.as_str()) else {
            continue;
        };
        let file = match sys::untrusted::open(directory, &artifact.name) {
            // Retention may delete the build meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        // A package that cannot be read is refused where that is remembered.
        let id = package::read(kind, &file);
        if id.is_ok_and(|(id, _)| !rules.has_package(&id.name)) {
            continue;
        }
        additions.push(Addition {
            file,
            name: artifact.name.to_string(),
            kind,
            sha256: artifact.sha256.clone(),
            build: Some(build.id),
        });
    }
    Ok(additions)
}

/// Changes the repository of a machine. Blocks.
fn publish(
    rules: &FeedRules,
    machine: &MachineName,
    additions: Vec<Addition>,
) -> Result<Published, PublishError> {
    let keys = keys(rules)?;
    let published = repository(rules, machine).publish(additions, &keys, Timestamp::now())?;
    Ok(published)
}

/// Reads the keys of a feed. Blocks.
fn keys(rules: &FeedRules) -> Result<Vec<FeedKey>, SignError> {
    rules.keys.iter().map(|path| FeedKey::read(path)).collect()
}

fn repository(rules: &FeedRules, machine: &MachineName) -> Repository {
    let retention = Retention {
        versions_max: rules.versions_max,
        age_max: rules.age_max,
    };
    let origin = format!("buildhost {}/{machine}", rules.name);
    Repository::new(&directory(rules, machine), origin, retention)
}

/// Returns the directory of the repository of a machine.
pub(crate) fn directory(rules: &FeedRules, machine: &MachineName) -> PathBuf {
    rules.path.join(machine.as_str())
}

/// Returns the machines with a repository in a feed. Blocks.
fn machines(rules: &FeedRules) -> io::Result<Vec<MachineName>> {
    let entries = match sys::file::entries(&rules.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries?,
    };
    let name = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    Ok(entries
        .iter()
        .filter(|it| it.is_dir())
        .filter_map(name)
        .collect())
}

/// Makes the indexes of a feed again from its packages.
///
/// # Errors
/// A repository cannot be changed; those before it are done.
pub(crate) async fn rebuild(rules: &FeedRules) -> Result<Vec<FeedRebuilt>, PublishError> {
    let rules = rules.clone();
    let rebuild = move || {
        let keys = keys(&rules)?;
        let mut rebuilt = Vec::new();
        for machine in machines(&rules).map_err(PublishError::Artifact)? {
            let Published {
                generation, lost, ..
            } = repository(&rules, &machine).rebuild(&keys, Timestamp::now())?;
            info!(feed = %rules.name, %machine, generation, "rebuilt the indexes of a feed");
            rebuilt.push(FeedRebuilt {
                machine,
                generation,
                lost,
            });
        }
        Ok(rebuilt)
    };
    blocking(rebuild).await
}

/// Returns the state of each feed of the settings.
///
/// # Errors
/// The records cannot be read.
pub(crate) async fn describe(agent: &AgentState) -> Result<Vec<FeedStatus>, RecordsError> {
    let counts = agent.records.publication_counts().await?;
    let feeds = agent.settings().feeds.clone();
    let describe = move || {
        let status = |rules: &FeedRules| {
            let counts = counts.iter().find(|it| it.feed == rules.name.as_str());
            status::of(rules, counts.cloned().unwrap_or_default())
        };
        feeds.iter().map(status).collect()
    };
    Ok(blocking(describe).await)
}
