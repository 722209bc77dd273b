//! REST for everybody else. `openapi.json` describes it, and a test holds both together.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::access::Rights;
use crate::desk::{Desk, DeskError};
use crate::policy::History;
use crate::store::{Filter, Row};
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// The description of all this.
const OPENAPI: &str = include_str!("openapi.json");

/// A tuple, as a query or a body has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    version: String,
    pkgarch: String,
    checksum: String,
    #[serde(default)]
    history: bool,
}

/// A tuple with the value to record.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    version: String,
    pkgarch: String,
    checksum: String,
    value: String,
}

/// Which rows are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    version: Option<String>,
    pkgarch: Option<String>,
    checksum: Option<String>,
    #[serde(default)]
    history: bool,
}

/// A row, as it is sent.
#[derive(Debug, Serialize)]
struct Sent {
    version: String,
    pkgarch: String,
    checksum: String,
    value: Value,
}

/// Why a request is refused, and with which status.
#[derive(Debug)]
pub(super) struct Refusal(StatusCode, String);

type Answer = Result<Response, Refusal>;

/// `GET /api/v1/pr`: the recorded value of a tuple.
pub(super) async fn test(
    State(desk): State<Desk>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer {
    let Query(asked) = query?;
    let (tuple, history) = asked.into_parts();
    let value = desk.test_pr(&tuple, history).await?;
    value_of(tuple, value)
}

/// `POST /api/v1/pr`: the value of a tuple, giving one if need be.
pub(super) async fn get(
    State(desk): State<Desk>,
    headers: HeaderMap,
    body: Result<Json<Asked>, JsonRejection>,
) -> Answer {
    let Json(asked) = body?;
    let (tuple, history) = asked.into_parts();
    let answer = with_token(desk, &headers).get_pr(&tuple, history).await?;
    Ok(Json(json!({
        "version": tuple.package.version, "pkgarch": tuple.package.pkgarch,
        "checksum": tuple.checksum, "value": answer,
    }))
    .into_response())
}

/// `PUT /api/v1/pr`: records a value given elsewhere.
pub(super) async fn import(
    State(desk): State<Desk>,
    headers: HeaderMap,
    body: Result<Json<Given>, JsonRejection>,
) -> Answer {
    let Json(given) = body?;
    let tuple = Tuple::new(given.version, given.pkgarch, given.checksum);
    let value: Value = given.value.parse().map_err(|error| bad(&error))?;
    match with_token(desk, &headers)
        .import_one(&tuple, &value)
        .await?
    {
        Some(value) => value_of(tuple, Some(value)),
        None => Err(Refusal(
            StatusCode::FORBIDDEN,
            "you may not write here".into(),
        )),
    }
}

/// `GET /api/v1/packages`: the greatest value of a package.
pub(super) async fn package(
    State(desk): State<Desk>,
    query: Result<Query<Package>, QueryRejection>,
) -> Answer {
    let Query(package) = query?;
    match desk.max_package_pr(&package).await? {
        Some(value) => Ok(Json(json!({
            "version": package.version, "pkgarch": package.pkgarch, "value": value,
        }))
        .into_response()),
        None => Err(not_recorded()),
    }
}

/// `GET /api/v1/rows`: what is recorded.
pub(super) async fn rows(
    State(desk): State<Desk>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Answer {
    let Query(wanted) = query?;
    let filter = Filter {
        version: wanted.version,
        pkgarch: wanted.pkgarch,
        checksum: wanted.checksum,
    };
    let rows = desk.export(filter, history(wanted.history)).await?;
    let rows: Vec<Sent> = rows.into_iter().map(Sent::from).collect();
    Ok(Json(rows).into_response())
}

/// `GET /api/v1/openapi.json`.
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// `GET /metrics`.
pub(super) async fn metrics(State(desk): State<Desk>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, kind)],
        desk.service.metrics().to_text(),
    )
        .into_response()
}

/// The desk of a peer that shows a token we know.
fn with_token(mut desk: Desk, headers: &HeaderMap) -> Desk {
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|text| text.to_str().ok());
    let token = authorization.and_then(|text| text.strip_prefix("Bearer "));
    if token.is_some_and(|token| desk.access.knows(token)) {
        desk.peer.rights = Rights::Write;
    }
    desk
}

fn value_of(tuple: Tuple, value: Option<Value>) -> Answer {
    let value = value.ok_or_else(not_recorded)?;
    Ok(Json(Sent::from(Row { tuple, value })).into_response())
}

fn not_recorded() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "this is not recorded".into())
}

fn bad(error: &dyn std::error::Error) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, error.to_string())
}

fn history(is_kept: bool) -> History {
    if is_kept {
        History::Keep
    } else {
        History::Ignore
    }
}

impl Asked {
    fn into_parts(self) -> (Tuple, History) {
        (
            Tuple::new(self.version, self.pkgarch, self.checksum),
            history(self.history),
        )
    }
}

impl From<Row> for Sent {
    fn from(
        Row {
            tuple: Tuple { package, checksum },
            value,
        }: Row,
    ) -> Self {
        Self {
            version: package.version,
            pkgarch: package.pkgarch,
            checksum,
            value,
        }
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<DeskError> for Refusal {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Unknown { .. } => Self(StatusCode::FORBIDDEN, error.to_string()),
            DeskError::Service(error) => {
                tracing::error!(%error, "a request over REST failed");
                Self(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "see the server's log".into(),
                )
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
