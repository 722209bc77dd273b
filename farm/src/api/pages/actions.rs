//! Actions of pages: cancel a build, drain and undrain a host, run and pause schedules.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use config::tokens::Scope;
use config::{BuildId, ScheduleName};
use farm_core::messages::{Reply, Request};
use web_server::answer::see_other;

use super::super::auth::Client;
use super::super::{Refusal, Service, clients, schedules};
use super::{error_page, require};
use crate::secret;

pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    Path(build): Path<BuildId>,
) -> Response {
    if let Err(refusal) = require(&client, Scope::Submit) {
        return error_page(&service, Some(&client), refusal);
    }
    match service.coordinator.handle(Request::Cancel(build)).await {
        Reply::Canceled(_) => see_other(&format!("/builds/{build}")),
        other => error_page(&service, Some(&client), Refusal::of(other)),
    }
}

pub(super) async fn drain(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    Path((host, action)): Path<(String, String)>,
) -> Response {
    let is_drained = match action.as_str() {
        "drain" => true,
        "undrain" => false,
        _ => {
            let message = format!("hosts have no action {action}");
            return error_page(
                &service,
                Some(&client),
                Refusal(StatusCode::NOT_FOUND, message),
            );
        }
    };
    let done = async {
        require(&client, Scope::Admin)?;
        clients::drain_host(&service, &host, is_drained).await
    };
    match done.await {
        // The name exists, so that it is one segment of a path.
        Ok(()) => see_other(&format!("/hosts/{host}")),
        Err(refusal) => error_page(&service, Some(&client), refusal),
    }
}

pub(super) async fn schedule(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    Path((name, action)): Path<(ScheduleName, String)>,
) -> Response {
    let done = async {
        require(&client, Scope::Submit)?;
        match action.as_str() {
            "run" => {
                let key = secret::random().map_err(|_| Refusal::unavailable())?;
                schedules::run_now(&service, &client, name, key)
                    .await
                    .map(drop)
            }
            "pause" | "resume" => {
                let is_paused = action == "pause";
                let request = Request::PauseSchedule(name, is_paused);
                schedules::change(&service, request).await.map(drop)
            }
            _ => {
                let message = format!("schedules have no action {action}");
                Err(Refusal(StatusCode::NOT_FOUND, message))
            }
        }
    };
    match done.await {
        Ok(()) => see_other("/schedules"),
        Err(refusal) => error_page(&service, Some(&client), refusal),
    }
}
