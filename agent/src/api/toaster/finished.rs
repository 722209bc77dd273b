//! The cached body of `/toastergui/api/builds`, which lists all finished builds. It is read
//! from the records once and then updated by the events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use config::BuildId;
use config::builds::{Progress, State};
use records::{FinishedBuild, RecordsError};
use tokio::sync::Mutex;

use state::AgentState;
use toaster::Facts;

/// The cache, which is empty until the first request.
#[derive(Debug, Default)]
pub(super) struct FinishedBuilds {
    cached: Mutex<Option<Cached>>,
}

/// The position of a build in the list: the latest start comes first.
type Position = (Reverse<i64>, Reverse<BuildId>);

#[derive(Debug)]
struct Cached {
    /// The events' count of finished and deleted builds before the entries were read.
    generation: u64,
    /// The newest event before the entries were read.
    event: u64,
    /// The JSON object of each build.
    entries: BTreeMap<Position, Box<str>>,
    body: Bytes,
}

impl FinishedBuilds {
    /// Returns the current body.
    ///
    /// # Errors
    /// The records cannot be read.
    pub(super) async fn body(&self, agent: &AgentState) -> Result<Bytes, RecordsError> {
        let mut cached = self.cached.lock().await;
        let events = &agent.telemetry.events;
        // Taken before the records are read, so that a build that finishes meanwhile makes
        // the body stale.
        let (generation, event) = (events.finished(), events.newest());
        let entries = match cached.take() {
            Some(current) if current.generation == generation => {
                return Ok(cached.insert(current).body.clone());
            }
            Some(stale) => match events.builds_after(stale.event) {
                Some(changed) => update(agent, stale.entries, &changed).await?,
                None => read_all(agent).await?,
            },
            None => read_all(agent).await?,
        };
        let body = Bytes::from(list(&entries));
        *cached = Some(Cached {
            generation,
            event,
            entries,
            body: body.clone(),
        });
        Ok(body)
    }
}

async fn read_all(agent: &AgentState) -> Result<BTreeMap<Position, Box<str>>, RecordsError> {
    let entries = agent.records.finished_builds(entry).await?;
    Ok(entries.into_iter().collect())
}

/// Replaces the entries of the changed builds.
async fn update(
    agent: &AgentState,
    mut entries: BTreeMap<Position, Box<str>>,
    changed: &BTreeSet<BuildId>,
) -> Result<BTreeMap<Position, Box<str>>, RecordsError> {
    entries.retain(|(_, id), _| !changed.contains(&id.0));
    for id in changed {
        let build = agent.records.get(*id).await?;
        let ended = build.as_ref().and_then(FinishedBuild::of);
        entries.extend(ended.as_ref().map(entry));
    }
    Ok(entries)
}

fn entry(build: &FinishedBuild) -> (Position, Box<str>) {
    let facts = facts(build);
    let text = toaster::to_json(&toaster::finished(&facts, build.outcome));
    let start = toaster::micros(facts.start());
    ((Reverse(start), Reverse(build.id)), text.into())
}

fn facts(build: &FinishedBuild) -> Facts {
    Facts {
        id: build.id,
        machine: build.machine.clone(),
        toolchain: build.toolchain.clone(),
        target: build.target.clone(),
        project: build.project.clone(),
        submitter: build.submitter.to_string(),
        state: State::Finished,
        outcome: Some(build.outcome),
        submitted: build.submitted,
        started: build.started,
        contacted: None,
        finished: build.finished,
        sources: 0,
        progress: Progress {
            errors: build.errors,
            warnings: build.warnings,
            ..Progress::default()
        },
    }
}

fn list(entries: &BTreeMap<Position, Box<str>>) -> String {
    let bytes: usize = entries.values().map(|entry| entry.len() + 2).sum();
    let mut text = String::with_capacity(bytes + 48);
    text.push_str(r#"{"builds": ["#);
    let mut separator = "";
    for entry in entries.values() {
        text.push_str(separator);
        text.push_str(entry);
        separator = ", ";
    }
    text.push_str(r#"], "count": "#);
    text.push_str(&entries.len().to_string());
    text.push('}');
    text
}
