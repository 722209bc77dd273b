//! Files of builds, which their hosts send.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use config::builds::Artifact;
use config::{BuildId, FileName};
use farm_core::transfers::Wanted;
use serde_json::Value;
use web::{FarmArtifacts, FarmSection};

use super::super::auth::Client;
use super::super::{Refusal, Service, transfers};
use super::{error_page, frame, page};

/// The most bytes of a list of artifacts.
const LIST_MAX: usize = 4 << 20;

pub(super) async fn log(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    Path(build): Path<BuildId>,
) -> Response {
    let log = |lease| Wanted::Log {
        lease,
        offset: 0,
        follow: false,
    };
    let sent = transfers::send(&service, build, log).await;
    sent.unwrap_or_else(|refusal| error_page(&service, Some(&client), refusal))
}

pub(super) async fn artifacts(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    Path(build): Path<BuildId>,
    headers: HeaderMap,
) -> Response {
    match list(&service, build).await {
        Ok(artifacts) => {
            let mut frame = frame(
                &service,
                Some(&client),
                FarmSection::Builds,
                format!("Artifacts of {build}"),
            );
            // The host would send the list again each time.
            frame.refresh_seconds = None;
            page(
                &headers,
                &FarmArtifacts {
                    frame,
                    build,
                    artifacts,
                },
            )
        }
        Err(refusal) => error_page(&service, Some(&client), refusal),
    }
}

pub(super) async fn artifact(
    State(service): State<Arc<Service>>,
    Extension(client): Extension<Client>,
    Path((build, name)): Path<(BuildId, FileName)>,
) -> Response {
    let artifact = |lease| Wanted::Artifact { lease, name };
    let sent = transfers::send(&service, build, artifact).await;
    sent.unwrap_or_else(|refusal| error_page(&service, Some(&client), refusal))
}

/// Reads the list of a build's artifacts from its host.
async fn list(service: &Service, build: BuildId) -> Result<Vec<Artifact>, Refusal> {
    let sent = transfers::send(service, build, |lease| Wanted::Artifacts { lease }).await?;
    let status = sent.status();
    let content = to_bytes(sent.into_body(), LIST_MAX).await.map_err(|_| {
        let message = format!("the host has not sent the list of artifacts of build {build} to its end; load the page again");
        Refusal(StatusCode::BAD_GATEWAY, message)
    })?;
    if !status.is_success() {
        return Err(Refusal(status, reason(&content)));
    }
    serde_json::from_slice(&content).map_err(|error| {
        let message = format!("the host has sent something else than a list of artifacts: {error}");
        Refusal(StatusCode::BAD_GATEWAY, message)
    })
}

/// Returns the sentence of an agent's error.
fn reason(content: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(content).unwrap_or_default();
    let detail = problem["detail"].as_str();
    detail
        .unwrap_or("the host has refused to list them")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_of_the_agent_is_passed_on() {
        assert_eq!(
            reason(br#"{"detail": "build 7 does not exist"}"#),
            "build 7 does not exist"
        );
        assert_eq!(reason(b"<html>"), "the host has refused to list them");
    }
}
