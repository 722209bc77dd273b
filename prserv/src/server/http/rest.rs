//! The REST API. `openapi.json` describes it, and a test compares both.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use linerpc::metrics_format;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{keep_until_sent, with_token};
use crate::policy::History;
use crate::session::{AuthorizedService, Export, RequestError};
use crate::store::{Filter, Row};
use crate::tuple::{Package, Tuple};
use crate::value::Value;

const OPENAPI: &str = include_str!("openapi.json");

/// The parameters of a request for a tuple's value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrRequest {
    version: String,
    pkgarch: String,
    checksum: String,
    #[serde(default)]
    history: bool,
}

/// The body of an import.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportRequest {
    version: String,
    pkgarch: String,
    checksum: String,
    value: String,
}

/// The parameters of a request for rows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowsRequest {
    version: Option<String>,
    pkgarch: Option<String>,
    checksum: Option<String>,
    #[serde(default)]
    history: bool,
}

/// A row in a response.
#[derive(Debug, Serialize)]
struct RowBody {
    version: String,
    pkgarch: String,
    checksum: String,
    value: Value,
}

/// An error response: its status and its text.
#[derive(Debug)]
pub(super) struct ApiError(StatusCode, String);

type ApiResult = Result<Response, ApiError>;

/// `GET /api/v1/pr`: returns the recorded value of a tuple.
pub(super) async fn test(
    State(service): State<AuthorizedService>,
    query: Result<Query<PrRequest>, QueryRejection>,
) -> ApiResult {
    let Query(request) = query?;
    let (tuple, history) = request.into_parts();
    let value = service.test_pr(&tuple, history).await?;
    row_response(tuple, value)
}

/// `POST /api/v1/pr`: returns the value of a tuple and assigns a new one if necessary.
pub(super) async fn get(
    State(service): State<AuthorizedService>,
    headers: HeaderMap,
    body: Result<Json<PrRequest>, JsonRejection>,
) -> ApiResult {
    let Json(request) = body?;
    let (tuple, history) = request.into_parts();
    let service = with_token(service, &headers)?;
    let answer = service.get_pr(&tuple, history).await?;
    Ok(Json(json!({
        "version": tuple.package.version, "pkgarch": tuple.package.pkgarch,
        "checksum": tuple.checksum, "value": answer,
    }))
    .into_response())
}

/// `PUT /api/v1/pr`: records a value that another server assigned.
pub(super) async fn import(
    State(service): State<AuthorizedService>,
    headers: HeaderMap,
    body: Result<Json<ImportRequest>, JsonRejection>,
) -> ApiResult {
    let Json(request) = body?;
    let tuple = Tuple::new(request.version, request.pkgarch, request.checksum);
    let value: Value = request.value.parse().map_err(|error| {
        let text = format!("the value of {tuple} cannot be imported: {error}");
        ApiError(StatusCode::BAD_REQUEST, text)
    })?;
    let service = with_token(service, &headers)?;
    match service.import_one(&tuple, &value).await? {
        Some(value) => row_response(tuple, Some(value)),
        None => Err(ApiError(
            StatusCode::FORBIDDEN,
            "this client may not write, or the server is read-only".into(),
        )),
    }
}

/// `GET /api/v1/packages`: returns the greatest value of a package.
pub(super) async fn package(
    State(service): State<AuthorizedService>,
    query: Result<Query<Package>, QueryRejection>,
) -> ApiResult {
    let Query(package) = query?;
    match service.max_package_pr(&package).await? {
        Some(value) => Ok(Json(json!({
            "version": package.version, "pkgarch": package.pkgarch, "value": value,
        }))
        .into_response()),
        None => Err(not_recorded()),
    }
}

/// `GET /api/v1/rows`: returns the rows that match.
pub(super) async fn rows(
    State(service): State<AuthorizedService>,
    query: Result<Query<RowsRequest>, QueryRejection>,
) -> ApiResult {
    let Query(request) = query?;
    let filter = Filter {
        version: request.version,
        pkgarch: request.pkgarch,
        checksum: request.checksum,
    };
    let Export { rows, permit } = service.export(filter, history(request.history)).await?;
    let rows: Vec<RowBody> = rows.into_iter().map(RowBody::from).collect();
    Ok(keep_until_sent(Json(rows).into_response(), permit))
}

/// `GET /api/v1/openapi.json`: returns the description of the API.
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// `GET /metrics`: returns the counters.
pub(super) async fn metrics(
    State(service): State<AuthorizedService>,
    headers: HeaderMap,
) -> ApiResult {
    service.require_all_requests("metrics")?;
    let text = service.metrics().to_text();
    Ok(metrics_format::respond(&headers, &[text]))
}

fn row_response(tuple: Tuple, value: Option<Value>) -> ApiResult {
    let value = value.ok_or_else(not_recorded)?;
    Ok(Json(RowBody::from(Row { tuple, value })).into_response())
}

fn not_recorded() -> ApiError {
    ApiError(StatusCode::NOT_FOUND, "no value is recorded".into())
}

fn history(keep: bool) -> History {
    if keep { History::Keep } else { History::Ignore }
}

impl PrRequest {
    fn into_parts(self) -> (Tuple, History) {
        (
            Tuple::new(self.version, self.pkgarch, self.checksum),
            history(self.history),
        )
    }
}

impl From<Row> for RowBody {
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

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NotRecorded { .. }
            | RequestError::NotServed { .. }
            | RequestError::MayNotRemove => Self(StatusCode::FORBIDDEN, error.to_string()),
            RequestError::UnknownToken(_) => Self(StatusCode::UNAUTHORIZED, error.to_string()),
            RequestError::Forget(_) => Self(StatusCode::CONFLICT, error.to_string()),
            RequestError::Busy => Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            RequestError::Service(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "a REST request failed");
                Self(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the request failed; see the server's log".into(),
                )
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}
