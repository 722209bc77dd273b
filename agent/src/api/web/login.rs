//! The page on which browsers sign in, and the forms that sign them in and out.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Extension, Form as FormBody, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use state::AgentState;
use web::{Login, LoginLink, Section, Template, Viewer};

use super::super::auth::Peer;
use super::super::error::ApiError;
use super::super::sign_in::{Form, SignIn, SignInRefusal, own_path};
use super::answer::error_page;
use super::frame;

/// The largest form.
const FORM_BYTES_MAX: usize = 4096;

/// The options of the page.
#[derive(Debug, Default, Deserialize)]
struct LoginQuery {
    #[serde(default)]
    code: String,
    #[serde(default)]
    next: String,
}

/// Returns the routes with which browsers sign in and out. Everyone may use them.
pub(super) fn routes() -> Router<Arc<AgentState>> {
    Router::new()
        .route("/login", get(show).post(sign_in))
        .route("/logout", post(sign_out))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
}

async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(sign_in): Extension<Arc<SignIn>>,
    query: Result<Query<LoginQuery>, QueryRejection>,
) -> Response {
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let owner = sign_in.owner_of_link(&query.code);
    let refusal = (owner.is_none() && !query.code.is_empty()).then(|| OLD_LINK.to_owned());
    let link = owner.map(|owner| LoginLink {
        code: query.code,
        user: owner.submitter(),
    });
    login_page(&agent, StatusCode::OK, refusal, link, &query.next)
}

/// The refusal of a link.
const OLD_LINK: &str =
    "The link was used or is older than a minute. `buildhost web` prints another one.";

async fn sign_in(
    State(agent): State<Arc<AgentState>>,
    Extension(peer): Extension<Peer>,
    Extension(sign_in): Extension<Arc<SignIn>>,
    headers: HeaderMap,
    form: Result<FormBody<Form>, FormRejection>,
) -> Response {
    let form = match form {
        Ok(FormBody(form)) => form,
        Err(error) => return error_page(&agent, Viewer::default(), error.into()),
    };
    let refusal = match sign_in.sign_in(&peer, &headers, &form).await {
        Ok(response) => return response,
        Err(SignInRefusal::Request(error)) => {
            return error_page(&agent, Viewer::default(), error);
        }
        Err(SignInRefusal::Link) => OLD_LINK,
        Err(SignInRefusal::Token) => {
            "The token is unknown. `buildhost token list` lists the tokens of this host."
        }
    };
    let refusal = Some(refusal.to_owned());
    login_page(&agent, StatusCode::FORBIDDEN, refusal, None, &form.next)
}

async fn sign_out(
    State(agent): State<Arc<AgentState>>,
    Extension(sign_in): Extension<Arc<SignIn>>,
    headers: HeaderMap,
) -> Response {
    let response = sign_in.sign_out(&headers);
    response.unwrap_or_else(|error| error_page(&agent, Viewer::default(), error))
}

fn login_page(
    agent: &AgentState,
    status: StatusCode,
    refusal: Option<String>,
    link: Option<LoginLink>,
    next: &str,
) -> Response {
    let login = Login {
        frame: frame(agent, Viewer::default(), Section::None, "Sign in"),
        refusal,
        link,
        next: own_path(next).to_owned(),
    };
    match login.render() {
        Ok(html) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (status, headers, html).into_response()
        }
        Err(error) => error_page(agent, Viewer::default(), ApiError::internal(&error)),
    }
}
