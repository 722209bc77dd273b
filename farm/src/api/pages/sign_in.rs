//! The page on which browsers sign in with a token. Sessions are in the database, because the next request
//! may reach another coordinator.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use tracing::{info, warn};
use web::{FarmSection, Login, Template};
use web_server::answer::{own_path, passing, see_other};
use web_server::{cookie, origin};

use super::super::auth::authenticate;
use super::super::{Refusal, Service};
use super::{error_page, foreign_page, frame};
use crate::secret;

/// The form with which a browser signs in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SignIn {
    token: String,
    next: String,
}

/// Returns the routes with which browsers sign in and out. Everyone may use them.
pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/login", get(show).post(sign_in))
        .route("/logout", post(sign_out))
}

async fn show(
    State(service): State<Arc<Service>>,
    query: Result<Query<SignIn>, QueryRejection>,
) -> Response {
    let next = query.map(|Query(it)| it.next).unwrap_or_default();
    login_page(&service, StatusCode::OK, None, &next)
}

async fn sign_in(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Form(form): Form<SignIn>,
) -> Response {
    if !origin::is_from_own_page(&headers) {
        return error_page(&service, None, foreign_page());
    }
    let token = secret::hash(form.token.trim());
    let client = match authenticate(&service, token).await {
        Ok(Some(client)) => client,
        Ok(None) => {
            let refusal =
                "The token is unknown or revoked. `buildhost-farm token list` lists the tokens.";
            return login_page(&service, StatusCode::FORBIDDEN, Some(refusal), &form.next);
        }
        Err(refusal) => return error_page(&service, None, refusal),
    };
    let session = match opened(&service, token).await {
        Ok(session) => session,
        Err(refusal) => return error_page(&service, None, refusal),
    };
    info!(by = client.name, "signed in to the pages");
    let mut response = see_other(own_path(&form.next));
    if let Some(cookie) = cookie::set(&session, origin::is_over_tls(&headers)) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Opens a session, and returns the content of its cookie.
async fn opened(service: &Service, token: [u8; 32]) -> Result<String, Refusal> {
    let failed = |error: &dyn std::error::Error| {
        let error = error.to_string();
        warn!(error, "cannot open a session");
        Refusal::unavailable()
    };
    let session = secret::random().map_err(|error| failed(&error))?;
    let store = service.coordinator.store();
    let opened = store.open_session(secret::hash(&session), token).await;
    opened.map_err(|error| failed(&error))?;
    Ok(session)
}

async fn sign_out(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    if !origin::is_from_own_page(&headers) {
        return error_page(&service, None, foreign_page());
    }
    if let Some(session) = cookie::of_request(&headers) {
        let store = service.coordinator.store();
        if store.close_session(secret::hash(session)).await.is_err() {
            return error_page(&service, None, Refusal::unavailable());
        }
    }
    let mut response = see_other("/login");
    response
        .headers_mut()
        .insert(header::SET_COOKIE, cookie::clear());
    response
}

fn login_page(
    service: &Service,
    status: StatusCode,
    refusal: Option<&str>,
    next: &str,
) -> Response {
    let login = Login {
        frame: frame(service, None, FarmSection::None, "Sign in"),
        refusal: refusal.map(str::to_owned),
        link: None,
        next: own_path(next).to_owned(),
    };
    passing(status, login.render().unwrap_or_default())
}
