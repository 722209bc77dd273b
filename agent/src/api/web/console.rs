//! The page with the console of a build's guest. The console itself comes over a WebSocket of the
//! API.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use config::BuildId;
use web::{ConsolePage, Section, Viewer};

use super::super::builds::find;
use super::super::error::ApiError;
use super::answer::{error_page, page};
use super::frame;
use state::AgentState;

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    id: Result<Path<BuildId>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let shown = async {
        let Path(id) = id?;
        let build = find(&agent, id).await?;
        let title = format!("Console of build {id}");
        let shown = ConsolePage {
            frame: frame(&agent, viewer.clone(), Section::Builds, title),
            build: id,
            machine: build.machine.to_string(),
        };
        page(&headers, &shown)
    };
    let answer: Result<_, ApiError> = shown.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}
