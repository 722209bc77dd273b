//! The body of `/toastergui/api/builds`, which holds every build that ever ended: it
//! is read from the records once, and then follows the events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use axum::body::Bytes;
use config::BuildId;
use tokio::sync::Mutex;

use super::{python, view};
use crate::records::{Ended, RecordsError};
use crate::state::AgentState;

/// The body, and what it was made of; empty until somebody asks.
#[derive(Debug, Default)]
pub struct Finished {
    made: Mutex<Option<Made>>,
}

/// The place of a build: the newest start comes first.
type Place = (Reverse<i64>, Reverse<BuildId>);

#[derive(Debug)]
struct Made {
    /// What the events counted when the lines were made.
    generation: u64,
    /// The newest event that the lines know of.
    event: u64,
    lines: BTreeMap<Place, Box<str>>,
    body: Bytes,
}

impl Finished {
    /// The body as it is now.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub(super) async fn body(&self, agent: &AgentState) -> Result<Bytes, RecordsError> {
        let mut kept = self.made.lock().await;
        let events = agent.records.events();
        // Asked before we read: what ends meanwhile makes the body old again.
        let (generation, event) = (events.finished(), events.newest());
        let lines = match kept.take() {
            Some(made) if made.generation == generation => {
                return Ok(kept.insert(made).body.clone());
            }
            Some(made) => match events.builds_after(made.event) {
                Some(changed) => follow(agent, made.lines, &changed).await?,
                None => read(agent).await?,
            },
            None => read(agent).await?,
        };
        let body = Bytes::from(join(&lines));
        *kept = Some(Made {
            generation,
            event,
            lines,
            body: body.clone(),
        });
        Ok(body)
    }
}

async fn read(agent: &AgentState) -> Result<BTreeMap<Place, Box<str>>, RecordsError> {
    let lines = agent.records.of_ended(line).await?;
    Ok(lines.into_iter().collect())
}

async fn follow(
    agent: &AgentState,
    mut lines: BTreeMap<Place, Box<str>>,
    changed: &BTreeSet<BuildId>,
) -> Result<BTreeMap<Place, Box<str>>, RecordsError> {
    lines.retain(|(_, id), _| !changed.contains(&id.0));
    for id in changed {
        let build = agent.records.get(*id).await?;
        let ended = build.as_ref().and_then(Ended::of);
        lines.extend(ended.as_ref().map(line));
    }
    Ok(lines)
}

fn line(build: &Ended) -> (Place, Box<str>) {
    let text = python::to_json(&view::finished(build));
    let started = view::micros(view::begun(build));
    ((Reverse(started), Reverse(build.id)), text.into())
}

fn join(lines: &BTreeMap<Place, Box<str>>) -> String {
    let bytes: usize = lines.values().map(|line| line.len() + 2).sum();
    let mut text = String::with_capacity(bytes + 48);
    text.push_str(r#"{"builds": ["#);
    let mut gap = "";
    for line in lines.values() {
        text.push_str(gap);
        text.push_str(line);
        gap = ", ";
    }
    text.push_str(r#"], "count": "#);
    text.push_str(&lines.len().to_string());
    text.push('}');
    text
}
