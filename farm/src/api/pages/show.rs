//! Pages that are read.

use std::sync::Arc;

use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use config::BuildId;
use farm_core::view::{BuildQuery, BuildState};
use farm_store::StoreError;
use jiff::Timestamp;
use tracing::warn;
use web::{
    FarmBuild, FarmBuilds, FarmHost, FarmHosts, FarmMachines, FarmOverview, FarmSchedules,
    FarmSection, Filter,
};

use super::super::auth::Client;
use super::super::{Refusal, Service, views};
use super::{error_page, frame, page};
use crate::view;

/// The builds of a list of the overview.
const SHOWN: u32 = 20;
/// The builds that have finished last, on the overview.
const SHOWN_FINISHED: u32 = 12;

pub(super) async fn overview(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response {
    match gathered(&service, &client).await {
        Ok(overview) => page(&headers, &overview),
        Err(error) => unavailable(&service, &client, &error),
    }
}

async fn gathered(service: &Service, client: &Client) -> Result<FarmOverview, StoreError> {
    let (coordinator, store) = (&service.coordinator, service.coordinator.store());
    let in_state = |state, count| BuildQuery {
        state: Some(state),
        count: Some(count),
        ..BuildQuery::default()
    };
    let running = in_state(BuildState::Running, SHOWN);
    let mut running = store.builds(&running).await?.builds;
    for build in &mut running {
        build.usual_seconds = store.usual_seconds(build).await?;
    }
    let finished = in_state(BuildState::Finished, SHOWN_FINISHED);
    let view::Overview {
        queue,
        states,
        attention,
        more,
    } = view::overview(coordinator).await?;
    Ok(FarmOverview {
        frame: frame(service, Some(client), FarmSection::Overview, "Overview"),
        queue,
        running,
        failing: store.failing().await?,
        finished: store.builds(&finished).await?.builds,
        states,
        attention,
        more,
    })
}

pub(super) async fn builds(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let filter = Filter::parse(&query.unwrap_or_default());
    let query = match filter.farm_query() {
        Ok(query) => query,
        Err(fault) => return unusable(&service, &client, &fault),
    };
    match view::builds(&service.coordinator, &query).await {
        Ok(found) => page(
            &headers,
            &FarmBuilds {
                frame: frame(&service, Some(&client), FarmSection::Builds, "Builds"),
                filter,
                builds: found.builds,
                next: found.next,
                now: Timestamp::now(),
            },
        ),
        Err(error) => unavailable(&service, &client, &error),
    }
}

pub(super) async fn build(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    Path(id): Path<BuildId>,
    headers: HeaderMap,
) -> Response {
    match view::build(&service.coordinator, id).await {
        Ok(Some(build)) => {
            let title = format!("Build {id}");
            let mut frame = frame(&service, Some(&client), FarmSection::Builds, title);
            if build.state == BuildState::Finished {
                frame.refresh_seconds = None;
            }
            let now = Timestamp::now();
            page(&headers, &FarmBuild { frame, build, now })
        }
        Ok(None) => error_page(&service, Some(&client), views::no_build(id)),
        Err(error) => unavailable(&service, &client, &error),
    }
}

pub(super) async fn hosts(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let filter = Filter::of_hosts(&query.unwrap_or_default());
    let mut query = match filter.host_query() {
        Ok(query) => query,
        Err(fault) => return unusable(&service, &client, &fault),
    };
    // One more host tells if there is another page.
    query.count = query.count.map(|count| count + 1);
    let coordinator = &service.coordinator;
    let lease_ms = coordinator.terms().lease_ms;
    let states = coordinator.store().host_states(lease_ms).await;
    match (view::hosts(coordinator, &query).await, states) {
        (Ok(hosts), Ok(states)) => {
            let frame = frame(&service, Some(&client), FarmSection::Hosts, "Hosts");
            let now = Timestamp::now();
            page(&headers, &FarmHosts::new(frame, filter, hosts, states, now))
        }
        (Err(error), _) | (_, Err(error)) => unavailable(&service, &client, &error),
    }
}

pub(super) async fn host(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let hosts = match view::hosts_named(&service.coordinator, &[&name]).await {
        Ok(hosts) => hosts,
        Err(error) => return unavailable(&service, &client, &error),
    };
    let Some(host) = hosts.into_iter().next() else {
        return error_page(&service, Some(&client), views::no_host(&name));
    };
    let frame = frame(&service, Some(&client), FarmSection::Hosts, name);
    let now = Timestamp::now();
    page(&headers, &FarmHost { frame, host, now })
}

pub(super) async fn machines(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response {
    match view::all_machines(&service.coordinator).await {
        Ok(machines) => {
            let frame = frame(&service, Some(&client), FarmSection::Machines, "Machines");
            page(&headers, &FarmMachines { frame, machines })
        }
        Err(error) => unavailable(&service, &client, &error),
    }
}

pub(super) async fn schedules(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response {
    let store = service.coordinator.store();
    match (store.schedules().await, store.projects().await) {
        (Ok(schedules), Ok(projects)) => {
            let frame = frame(&service, Some(&client), FarmSection::Schedules, "Schedules");
            let now = Timestamp::now();
            page(
                &headers,
                &FarmSchedules {
                    frame,
                    schedules,
                    projects,
                    now,
                },
            )
        }
        (Err(error), _) | (_, Err(error)) => unavailable(&service, &client, &error),
    }
}

fn unusable(service: &Service, client: &Client, fault: &str) -> Response {
    let message = format!("the filters cannot be used: {fault}");
    error_page(
        service,
        Some(client),
        Refusal(StatusCode::BAD_REQUEST, message),
    )
}

fn unavailable(service: &Service, client: &Client, error: &StoreError) -> Response {
    warn!(
        error = error as &dyn std::error::Error,
        "cannot read from the farm's store"
    );
    error_page(service, Some(client), Refusal::unavailable())
}
