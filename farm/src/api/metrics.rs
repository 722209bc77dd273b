//! The metrics, which need no token, as those of an agent.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use farm_store::StoreError;
use linerpc::metrics_format;
use tracing::warn;

use super::Service;
use crate::coordinator::Coordinator;
use crate::metrics::{FarmState, gauges};

/// Returns the metrics, in the format that the header `Accept` prefers.
pub(super) async fn show(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let coordinator = &service.coordinator;
    let farm = read(coordinator).await.inspect_err(|error| {
        let error = error as &dyn std::error::Error;
        warn!(error, "cannot read the state of the farm for its metrics");
    });
    let farm = farm.ok();
    let counters = coordinator.counters().to_text();
    metrics_format::respond(&headers, &[gauges(farm.as_ref()), counters])
}

async fn read(coordinator: &Coordinator) -> Result<FarmState, StoreError> {
    let store = coordinator.store();
    let uploads = match coordinator.objects() {
        Some(_) => Some(store.uploads().await?),
        None => None,
    };
    let rules = coordinator.notify_rules();
    let counts = match rules {
        [] => Vec::new(),
        _ => store.notification_counts().await?,
    };
    let waiting = rules.iter().map(|rules| {
        let count = counts.iter().find(|it| it.rule == rules.name.as_str());
        (rules.name.to_string(), count.map_or(0, |it| it.waiting))
    });
    let (_, trials) = store.revisions().await?;
    let bytes = match coordinator.sources() {
        Some(sources) => sources.bytes().await.inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            warn!(error, "cannot measure the sources for the metrics");
        }),
        None => Ok(0),
    };
    Ok(FarmState {
        notifications: waiting.collect(),
        sources: store.source_counts().await?,
        source_bytes: bytes.ok(),
        queue: store.queue().await?,
        hosts: store.host_states(coordinator.terms().lease_ms).await?,
        schedules: store.schedules().await?,
        uploads,
        trials_open: trials.values().filter(|it| it.is_open()).count(),
    })
}
