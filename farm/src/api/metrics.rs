//! The metrics, which need no token, as those of an agent.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use linerpc::metrics_format;
use tracing::warn;

use super::Service;
use crate::metrics::gauges;
use crate::view;

/// Returns the metrics, in the format that the header `Accept` prefers.
pub(super) async fn show(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let coordinator = &service.coordinator;
    let farm = match (
        coordinator.store().queue().await,
        view::hosts(coordinator).await,
        coordinator.store().schedules().await,
    ) {
        (Ok(queue), Ok(hosts), Ok(schedules)) => Some((queue, hosts, schedules)),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            let error = &error as &dyn std::error::Error;
            warn!(error, "cannot read the state of the farm for its metrics");
            None
        }
    };
    let farm = farm.as_ref();
    let farm = farm.map(|(queue, hosts, schedules)| (queue, &hosts[..], &schedules[..]));
    metrics_format::respond(&headers, &[gauges(farm), coordinator.counters().to_text()])
}
