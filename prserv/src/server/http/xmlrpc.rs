//! XML-RPC: one call per connection, as clients up to BitBake 1.50 make it.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response as HttpResponse};

use crate::desk::{Answer, Desk, DeskError};
use crate::policy::History;
use crate::store::{Filter, Row};
use crate::tuple::Tuple;
use crate::value::Value;
use crate::wire::xmlrpc::{Call, CallError, Method, Response, fault};

/// Answers a call. Faults are answers too.
pub(super) async fn call(State(desk): State<Desk>, body: String) -> HttpResponse {
    let method = Call::parse(&body).and_then(|call| call.method());
    let document = match method.and_then(|method| allow(&desk, method)) {
        Ok(method) => answer(&desk, method).await,
        Err(error) => {
            tracing::warn!(peer = %desk.peer.name, %error, "an XML-RPC call failed");
            fault(&error)
        }
    };
    (
        [(CONTENT_TYPE, "text/xml"), (CONNECTION, "close")],
        document,
    )
        .into_response()
}

/// `quit` exists only where the operator allows it.
fn allow(desk: &Desk, method: Method) -> Result<Method, CallError> {
    match method {
        Method::Quit if desk.quit.is_none() => Err(CallError::NoMethod("quit".into())),
        method => Ok(method),
    }
}

async fn answer(desk: &Desk, method: Method) -> String {
    let response = match method {
        Method::Ping => Response::Truth(true),
        Method::ListMethods => Response::Methods,
        Method::MethodHelp => Response::Text(String::new()),
        Method::MethodSignature => Response::Text("signatures not supported".into()),
        Method::Quit => {
            tracing::warn!(peer = %desk.peer.name, "a client ends the server");
            if let Some(quit) = &desk.quit {
                quit.notify_one();
            }
            Response::Answer(None)
        }
        Method::GetPr(None) => Response::Answer(None),
        Method::GetPr(Some(tuple)) => {
            Response::Answer(or_nil(desk, desk.get_pr(&tuple, History::Ignore).await))
        }
        Method::ImportOne(tuple, value) => {
            let kept = or_nil(desk, import(desk, &tuple, value).await);
            Response::Answer(kept.flatten().map(Answer::Value))
        }
        Method::DumpDb => {
            let rows = or_nil(desk, desk.export(Filter::default(), History::Keep).await);
            Response::Text(dump(&rows.unwrap_or_default()))
        }
        Method::Export {
            filter,
            with_columns,
        } => match or_nil(desk, desk.export(filter, History::Ignore).await) {
            Some(rows) => Response::Export { rows, with_columns },
            None => Response::Answer(None),
        },
    };
    response.to_xml()
}

/// A larger value that is known already wins.
async fn import(desk: &Desk, tuple: &Tuple, value: Value) -> Result<Option<Value>, DeskError> {
    match desk.test_pr(tuple, History::Ignore).await? {
        Some(known) if known >= value => Ok(Some(known)),
        _ => desk.import_one(tuple, &value).await,
    }
}

/// Failures are nil on the wire and say why in our log.
fn or_nil<T>(desk: &Desk, result: Result<T, DeskError>) -> Option<T> {
    result
        .inspect_err(|error| tracing::warn!(peer = %desk.peer.name, %error, "answering nil"))
        .ok()
}

/// The rows as SQL, as Python's `iterdump` has them.
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
