//! XML-RPC: one call per connection, as clients up to BitBake 1.50 send it.

use std::error::Error;
use std::fmt::Write;

use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response as HttpResponse};

use tokio::sync::OwnedSemaphorePermit;

use super::{keep_until_sent, with_token};
use crate::policy::History;
use crate::session::{Answer, AuthorizedService, Export, RequestError};
use crate::store::{Filter, Row};
use crate::wire::xmlrpc::{Call, CallError, Method, Response, fault};

/// Answers a call. The document of a failed call is also sent with status 200.
/// Only `text/xml` is accepted: pages of other sites can send it only with the server's permission.
pub(super) async fn call(
    State(service): State<AuthorizedService>,
    headers: HeaderMap,
    body: String,
) -> HttpResponse {
    if !is_xml(&headers) {
        let text = "an XML-RPC call has the content type text/xml\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    }
    let service = match with_token(service, &headers) {
        Ok(service) => service,
        Err(error) => return (StatusCode::UNAUTHORIZED, format!("{error}\n")).into_response(),
    };
    let method = Call::parse(&body).and_then(|call| call.method());
    let mut permit = None;
    let document = match method.and_then(|method| allow(&service, method)) {
        Ok(method) => answer(&service, method, &mut permit).await,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn Error,
                peer = %service.peer.identity,
                "an XML-RPC call failed"
            );
            fault(&error)
        }
    };
    let headers = [(CONTENT_TYPE, "text/xml"), (CONNECTION, "close")];
    let response = (headers, document).into_response();
    match permit {
        Some(permit) => keep_until_sent(response, permit),
        None => response,
    }
}

/// Returns true if the content type is `text/xml`, with any parameters.
fn is_xml(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/xml"))
}

/// Rejects `quit` unless the operator allows it, and calls that the server does not answer.
fn allow(service: &AuthorizedService, method: Method) -> Result<Method, CallError> {
    let is_query = !matches!(
        method,
        Method::ImportOne(..) | Method::Export { .. } | Method::DumpDb
    );
    if !is_query {
        let allowed = service.require_all_requests("import and export");
        allowed.map_err(|error| CallError::Refused(error.to_string()))?;
    }
    match method {
        Method::Quit if service.quit.is_none() => Err(CallError::NoMethod("quit".into())),
        method => Ok(method),
    }
}

/// Returns the document of a response. `permit` is set for an export.
async fn answer(
    service: &AuthorizedService,
    method: Method,
    permit: &mut Option<OwnedSemaphorePermit>,
) -> String {
    let mut rows_of = |export: Export| {
        *permit = Some(export.permit);
        export.rows
    };
    let response = match method {
        Method::Ping => Response::Boolean(true),
        Method::ListMethods => Response::Methods,
        Method::MethodHelp => Response::Text(String::new()),
        Method::MethodSignature => Response::Text("signatures not supported".into()),
        Method::Quit => {
            tracing::warn!(peer = %service.peer.identity, "a client ends the server");
            if let Some(quit) = &service.quit {
                quit.notify_one();
            }
            Response::Answer(None)
        }
        Method::GetPr(None) => Response::Answer(None),
        Method::GetPr(Some(tuple)) => {
            let value = service.get_pr(&tuple, History::Ignore).await;
            Response::Answer(or_nil(service, value))
        }
        Method::ImportOne(tuple, value) => {
            let recorded = or_nil(service, service.raise_one(&tuple, &value).await);
            Response::Answer(recorded.flatten().map(Answer::Value))
        }
        Method::DumpDb => {
            let rows = service.export(Filter::default(), History::Keep).await;
            let rows = or_nil(service, rows).map(rows_of);
            Response::Text(dump(&rows.unwrap_or_default()))
        }
        Method::Export {
            filter,
            with_columns,
        } => match or_nil(service, service.export(filter, History::Ignore).await) {
            Some(export) => Response::Export {
                rows: rows_of(export),
                with_columns,
            },
            None => Response::Answer(None),
        },
    };
    response.to_xml()
}

/// Logs an error and returns `None`, which is sent as nil.
fn or_nil<T>(service: &AuthorizedService, result: Result<T, RequestError>) -> Option<T> {
    result
        .inspect_err(|error| {
            tracing::warn!(
                error = error as &dyn Error,
                peer = %service.peer.identity,
                "an XML-RPC call returns nil because it failed"
            );
        })
        .ok()
}

/// Returns the rows as SQL in the format of Python's `iterdump`.
fn dump(rows: &[Row]) -> String {
    let mut script = String::from(
        "BEGIN TRANSACTION;\nCREATE TABLE PRMAIN (version TEXT NOT NULL, pkgarch TEXT NOT NULL, \
         checksum TEXT NOT NULL, value TEXT, PRIMARY KEY (version, pkgarch, checksum, value));\n",
    );
    let quoted = |text: &str| text.replace('\'', "''");
    for Row { tuple, value } in rows {
        let (version, pkgarch) = (
            quoted(&tuple.package.version),
            quoted(&tuple.package.pkgarch),
        );
        let checksum = quoted(&tuple.checksum);
        let _ = writeln!(
            script,
            "INSERT INTO \"PRMAIN\" VALUES('{version}','{pkgarch}','{checksum}','{value}');"
        );
    }
    script.push_str("COMMIT;");
    script
}
