//! The stream of everything that changes, as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use tokio::time::timeout;

use crate::state::AgentState;
use crate::telemetry::events::{Event, Events, Lost};

/// How long a stream is silent at the most: a client that has gone is noticed then.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Everything that changes from now on, or after the event in `Last-Event-ID`. When
/// that is not known any more, an event `reset` comes first: the client is to read
/// anew what it wants to know, and goes on from here.
pub(super) async fn stream(State(agent): State<Arc<AgentState>>, headers: HeaderMap) -> Response {
    let events = agent.records.events();
    let last = headers
        .get("last-event-id")
        .map(|id| id.to_str().unwrap_or_default());
    let (begin, first) = match last.map(|id| events.resume(id)) {
        Some(Ok(begin)) => (begin, hello(events, begin)),
        Some(Err(why)) => {
            let newest = events.newest();
            (newest, reset(events, newest, why))
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

/// What comes after the event that was seen last; nothing more when the agent stops.
async fn next(agent: &AgentState, seen: u64) -> Option<(String, u64)> {
    let events = agent.records.events();
    let mut bell = events.bell();
    let rung = bell.wait_for(|newest| *newest > seen);
    tokio::select! {
        () = agent.stopping.cancelled() => return None,
        rung = timeout(SILENCE_MAX, rung) => match rung {
            Err(_) => return Some((": nothing new\n\n".to_owned(), seen)),
            Ok(Err(_)) => return None,
            Ok(Ok(_)) => {}
        }
    }
    let Some(new) = events.after(seen) else {
        // A client that reads more slowly than things change.
        let newest = events.newest();
        return Some((reset(events, newest, Lost::Forgotten), newest));
    };
    let last = new.last().map_or(seen, |event| event.number);
    Some((new.iter().map(|event| text(events, event)).collect(), last))
}

/// Tells the client where it stands, so that it can resume even before the first event.
fn hello(events: &Events, number: u64) -> String {
    format!(
        "retry: 2000\nid: {}\nevent: hello\ndata: {{}}\n\n",
        events.id(number)
    )
}

/// Tells a client that cannot go on where it was what to do, and why.
fn reset(events: &Events, number: u64, why: Lost) -> String {
    let data = json!({ "reason": format!("{why}; read anew what you need") });
    format!(
        "retry: 2000\nid: {}\nevent: reset\ndata: {data}\n\n",
        events.id(number)
    )
}

fn text(events: &Events, event: &Event) -> String {
    format!(
        "id: {}\nevent: {}\ndata: {}\n\n",
        events.id(event.number),
        event.kind.word(),
        event.data
    )
}
