//! The page of the tokens, and its actions.

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, PathRejection};
use axum::extract::{Extension, Form, Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use config::tokens::{CreatedToken, NewToken, TokenName};
use jiff::Timestamp;
use serde::Deserialize;
use token_file::Mode;
use web::{Confirm, Section, TokensPage, Viewer};

use super::super::auth::{Auth, Caller};
use super::super::error::ApiError;
use super::super::sign_in::see_other;
use super::super::tokens::{create, revoke};
use super::answer::{error_page, page};
use super::frame;
use super::host::require_admin;
use state::AgentState;

/// The path of the page.
const PATH: &str = "/host/tokens";

/// The fields of the form that removes a token.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RemoveForm {
    #[serde(default)]
    confirm: String,
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(auth): Extension<Arc<Auth>>,
    Extension(viewer): Extension<Viewer>,
    headers: HeaderMap,
) -> Response {
    let shown = shown(&agent, &auth, viewer.clone(), None).await;
    let answer = shown.and_then(|shown| page(&headers, &shown));
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

async fn shown(
    agent: &AgentState,
    auth: &Auth,
    viewer: Viewer,
    created: Option<CreatedToken>,
) -> Result<TokensPage, ApiError> {
    require_admin(&viewer)?;
    Ok(TokensPage {
        frame: frame(agent, viewer, Section::Host, "Tokens"),
        tokens: auth.tokens().await,
        created,
        now: Timestamp::now(),
    })
}

/// Creates a token, and shows its secret once.
pub(super) async fn add(
    State(agent): State<Arc<AgentState>>,
    Extension(auth): Extension<Arc<Auth>>,
    Extension(viewer): Extension<Viewer>,
    Extension(caller): Extension<Caller>,
    form: Result<Form<NewToken>, FormRejection>,
) -> Response {
    let added = async {
        let Form(new) = form?;
        require_admin(&viewer)?;
        let created = create(&auth, &caller, new).await?;
        let shown = shown(&agent, &auth, viewer.clone(), Some(created)).await?;
        let mut response = page(&HeaderMap::new(), &shown)?;
        let headers = response.headers_mut();
        headers.remove(header::ETAG);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    };
    let answer: Result<_, ApiError> = added.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

/// Shows what the removal of a token ends, or removes it if the form says that this was shown.
pub(super) async fn remove(
    State(agent): State<Arc<AgentState>>,
    Extension(auth): Extension<Arc<Auth>>,
    Extension(viewer): Extension<Viewer>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<TokenName>, PathRejection>,
    headers: HeaderMap,
    form: Result<Form<RemoveForm>, FormRejection>,
) -> Response {
    let removed = async {
        let (Path(name), Form(form)) = (name?, form?);
        require_admin(&viewer)?;
        if !form.confirm.is_empty() {
            revoke(&auth, &caller, &name, Mode::Change).await?;
            return Ok(see_other(PATH));
        }
        revoke(&auth, &caller, &name, Mode::DryRun).await?;
        let frame = frame(&agent, viewer.clone(), Section::Host, "Remove a token");
        page(&headers, &confirm(frame, &name, auth.sessions_of(&name)))
    };
    let answer: Result<_, ApiError> = removed.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

/// Returns the page that says what the removal of a token ends.
fn confirm(frame: web::Frame, name: &TokenName, sessions: usize) -> Confirm {
    let mut steps = vec![format!("remove token {name}: its clients are refused")];
    match sessions {
        0 => {}
        1 => steps.push("end its web session".to_owned()),
        count => steps.push(format!("end its {count} web sessions")),
    }
    Confirm {
        frame,
        steps,
        kept: vec![format!("The builds and schedules of token:{name} stay.")],
        action: format!("{PATH}/{name}/remove"),
        fields: Vec::new(),
        button: "Remove".to_owned(),
        back: PATH.to_owned(),
    }
}
