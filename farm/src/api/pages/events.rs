//! The stream that makes pages read themselves again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::Event;
use futures_util::stream::{Stream, unfold};
use tokio::time::sleep;

use super::super::Service;

/// The time between two events. The view of a farm changes all the time, and no table has its changes.
const INTERVAL: Duration = Duration::from_secs(3);

/// Tells a page to read itself again, until its session ends.
pub(super) async fn stream(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(unfold((service, headers), |(service, headers)| async {
        sleep(INTERVAL).await;
        // The database may be away for a while; a session that has ended does not come back.
        if let Ok(None) = super::client(&service, &headers).await {
            return None;
        }
        let event = Event::default().event("build").data("{}");
        Some((Ok(event), (service, headers)))
    }))
}
