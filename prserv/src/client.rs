//! A client of BitBake's protocol, as patient as BitBake's own: 30 seconds a reply, four tries.
//!
//! A request may arrive twice, so only ask what may be asked twice; all requests may.

mod connection;

pub mod target;

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value as Json, json};

use connection::Connection;
pub use target::{Proxies, Proxy, Target, TargetError};

use crate::policy::History;
use crate::store::{Filter, Row};
use crate::tuple::{Package, Tuple};
use crate::value::Value;
use crate::wire::Fault;

/// As many requests are sent before their replies are read.
const PIPELINE: usize = 64;

/// How long to wait and how often to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, and for each reply.
    pub timeout: Duration,
    /// The first try included.
    pub tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            tries: 4,
        }
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection, or making it, failed.
    #[error("cannot talk to {target}")]
    Io {
        /// With whom.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// The proxy will not connect us.
    #[error("the proxy refuses: {0}")]
    Proxy(String),
    /// The reply is no message.
    #[error("the server's reply is malformed: {0}")]
    Malformed(#[from] Fault),
    /// The reply is a message, but not one that answers the request.
    #[error("the server answered {0}")]
    Unexpected(String),
}

/// A client. It connects when it is first asked, and again when the connection is lost.
#[derive(Debug)]
pub struct Client {
    target: Target,
    patience: Patience,
    connection: Option<Connection>,
}

impl Client {
    /// A client of one server.
    pub fn new(target: Target, patience: Patience) -> Self {
        Self {
            target,
            patience,
            connection: None,
        }
    }

    /// Sends one request and waits for its reply, trying again as patience allows.
    pub async fn ask(&mut self, request: &impl Serialize) -> Result<Json, ClientError> {
        let mut replies = self.ask_all(&[request]).await?;
        replies.pop().ok_or_else(|| unexpected(&Json::Null))
    }

    /// Sends many requests, and returns their replies in the same order.
    pub async fn ask_all(&mut self, requests: &[impl Serialize]) -> Result<Vec<Json>, ClientError> {
        let mut replies = Vec::with_capacity(requests.len());
        for some in requests.chunks(PIPELINE) {
            replies.extend(self.ask_some(some).await?);
        }
        Ok(replies)
    }

    /// `get-pr`.
    pub async fn get_pr(&mut self, tuple: &Tuple, history: History) -> Result<String, ClientError> {
        let reply = self
            .ask(&json!({"get-pr": arguments(tuple, history)}))
            .await?;
        match value_of(&reply)? {
            Json::String(text) => Ok(text),
            Json::Number(number) => Ok(number.to_string()),
            other => Err(unexpected(&other)),
        }
    }

    /// `test-pr`.
    pub async fn test_pr(
        &mut self,
        tuple: &Tuple,
        history: History,
    ) -> Result<Option<Value>, ClientError> {
        revision(
            &self
                .ask(&json!({"test-pr": arguments(tuple, history)}))
                .await?,
        )
    }

    /// `max-package-pr`.
    pub async fn max_package_pr(
        &mut self,
        package: &Package,
    ) -> Result<Option<Value>, ClientError> {
        let arguments = json!({"version": package.version, "pkgarch": package.pkgarch});
        revision(&self.ask(&json!({ "max-package-pr": arguments })).await?)
    }

    /// `max-package-pr` and `test-pr` without history, in one round trip.
    pub async fn greatest_and_own(
        &mut self,
        tuple: &Tuple,
    ) -> Result<(Option<Value>, Option<Value>), ClientError> {
        let Package { version, pkgarch } = &tuple.package;
        let greatest = json!({"max-package-pr": {"version": version, "pkgarch": pkgarch}});
        let own = json!({"test-pr": arguments(tuple, History::Ignore)});
        let replies = self.ask_all(&[greatest, own]).await?;
        match replies.as_slice() {
            [greatest, own] => Ok((revision(greatest)?, revision(own)?)),
            _ => Err(unexpected(&Json::Null)),
        }
    }

    /// `import-one` for each row; tells for each whether the server has it now.
    pub async fn import(&mut self, rows: &[Row]) -> Result<Vec<bool>, ClientError> {
        let requests: Vec<Json> = rows.iter().map(import_request).collect();
        let replies = self.ask_all(&requests).await?;
        Ok(replies.into_iter().map(|reply| !reply.is_null()).collect())
    }

    /// `export`.
    pub async fn export(
        &mut self,
        filter: &Filter,
        history: History,
    ) -> Result<Vec<Row>, ClientError> {
        let replies = self
            .export_all(std::slice::from_ref(filter), history)
            .await?;
        Ok(replies.concat())
    }

    /// `export` for each filter.
    pub async fn export_all(
        &mut self,
        filters: &[Filter],
        history: History,
    ) -> Result<Vec<Vec<Row>>, ClientError> {
        let request = |filter: &Filter| {
            json!({"export": {
                "version": filter.version, "pkgarch": filter.pkgarch,
                "checksum": filter.checksum, "colinfo": false,
                "history": history == History::Keep,
            }})
        };
        let requests: Vec<Json> = filters.iter().map(request).collect();
        self.ask_all(&requests).await?.iter().map(rows).collect()
    }

    async fn ask_some(&mut self, requests: &[impl Serialize]) -> Result<Vec<Json>, ClientError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_once(requests).await {
                Ok(replies) => return Ok(replies),
                Err(error) if tries >= self.patience.tries => return Err(error),
                Err(error) => tracing::debug!(target = %self.target, %error, "asking again"),
            }
        }
    }

    /// One try. A connection that failed is not used again.
    async fn try_once(&mut self, requests: &[impl Serialize]) -> Result<Vec<Json>, ClientError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.target, self.patience.timeout).await?,
        };
        let replies = connection
            .exchange(requests, &self.target, self.patience.timeout)
            .await?;
        self.connection = Some(connection);
        Ok(replies)
    }
}

fn arguments(tuple: &Tuple, history: History) -> Json {
    json!({
        "version": tuple.package.version, "pkgarch": tuple.package.pkgarch,
        "checksum": tuple.checksum, "history": history == History::Keep,
    })
}

fn import_request(row: &Row) -> Json {
    let Row {
        tuple: Tuple { package, checksum },
        value,
    } = row;
    json!({"import-one": {
        "version": package.version, "pkgarch": package.pkgarch, "checksum": checksum,
        "value": value,
    }})
}

/// The `value` member of a reply.
fn value_of(reply: &Json) -> Result<Json, ClientError> {
    reply.get("value").cloned().ok_or_else(|| unexpected(reply))
}

/// A revision or null; servers up to BitBake 2.8 send integers.
fn revision(reply: &Json) -> Result<Option<Value>, ClientError> {
    let text = match value_of(reply)? {
        Json::Null => return Ok(None),
        Json::String(text) => text,
        Json::Number(number) => number.to_string(),
        other => return Err(unexpected(&other)),
    };
    text.parse()
        .map(Some)
        .map_err(|_| ClientError::Unexpected(text))
}

fn rows(reply: &Json) -> Result<Vec<Row>, ClientError> {
    let rows = reply.get("datainfo").and_then(Json::as_array);
    rows.ok_or_else(|| unexpected(reply))?
        .iter()
        .map(row)
        .collect()
}

fn row(json: &Json) -> Result<Row, ClientError> {
    let text = |name| {
        json.get(name)
            .and_then(Json::as_str)
            .ok_or_else(|| unexpected(json))
    };
    let tuple = Tuple::new(text("version")?, text("pkgarch")?, text("checksum")?);
    let value = json.get("value").cloned().unwrap_or_default();
    let value = revision(&json!({ "value": value }))?.ok_or_else(|| unexpected(json))?;
    Ok(Row { tuple, value })
}

/// As much of a reply as a message should hold.
fn unexpected(reply: &Json) -> ClientError {
    ClientError::Unexpected(reply.to_string().chars().take(200).collect())
}
