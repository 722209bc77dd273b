//! The stream of all changes as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use telemetry::events::{Event, Events, ResumeError};
use tokio::time::timeout;

use state::AgentState;

/// The interval of comments on a quiet stream. A failed write reveals a disconnected client.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Streams all events from now on, or after the event in `Last-Event-ID`. If that one is
/// forgotten, the stream starts with the event `reset`: the client has to read the current
/// state again.
pub(super) async fn stream(State(agent): State<Arc<AgentState>>, headers: HeaderMap) -> Response {
    let events = &agent.telemetry.events;
    let last = headers
        .get("last-event-id")
        .map(|id| id.to_str().unwrap_or_default());
    let (begin, first) = match last.map(|id| events.resume(id)) {
        Some(Ok(begin)) => (begin, hello(events, begin)),
        Some(Err(reason)) => {
            let newest = events.newest();
            (newest, reset(events, newest, reason))
        }
        None => {
            let newest = events.newest();
            (newest, hello(events, newest))
        }
    };
    let pieces = stream::unfold(
        (agent, begin, Some(first)),
        |(agent, seen, first)| async move {
            if let Some(text) = first {
                return Some((Ok::<_, std::convert::Infallible>(text), (agent, seen, None)));
            }
            let (text, seen) = next(&agent, seen).await?;
            Some((Ok(text), (agent, seen, None)))
        },
    );
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// Returns the text of the events after number `seen` and the number of the last one, or of a
/// comment if none comes in time; `None` when the agent stops.
async fn next(agent: &AgentState, seen: u64) -> Option<(String, u64)> {
    let events = &agent.telemetry.events;
    let mut newest = events.subscribe();
    let changed = newest.wait_for(|newest| *newest > seen);
    tokio::select! {
        () = agent.stopping.cancelled() => return None,
        changed = timeout(KEEP_ALIVE_INTERVAL, changed) => match changed {
            Err(_) => return Some((": keep-alive\n\n".to_owned(), seen)),
            Ok(Err(_)) => return None,
            Ok(Ok(_)) => {}
        }
    }
    let Some(new) = events.after(seen) else {
        // The client reads too slowly.
        let newest = events.newest();
        return Some((reset(events, newest, ResumeError::Expired), newest));
    };
    let last = new.last().map_or(seen, |event| event.number);
    Some((new.iter().map(|event| text(events, event)).collect(), last))
}

/// Returns the first event, whose ID lets a client resume before any other event.
fn hello(events: &Events, number: u64) -> String {
    format!(
        "retry: 2000\nid: {}\nevent: hello\ndata: {{}}\n\n",
        events.id(number)
    )
}

/// Returns the event for a client that cannot resume.
fn reset(events: &Events, number: u64, reason: ResumeError) -> String {
    let data = json!({ "reason": format!("{reason}; read the current state again") });
    format!(
        "retry: 2000\nid: {}\nevent: reset\ndata: {data}\n\n",
        events.id(number)
    )
}

fn text(events: &Events, event: &Event) -> String {
    format!(
        "id: {}\nevent: {}\ndata: {}\n\n",
        events.id(event.number),
        event.kind.name(),
        event.data
    )
}
