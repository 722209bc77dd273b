//! A client of BitBake's protocol with the timeout and the retries of BitBake's own client.
//!
//! A retried request may arrive twice. All requests are idempotent.

mod connection;

pub mod target;

mod token;

use std::io;
use std::time::Duration;

use config::text::printable;
use serde::Serialize;
use serde_json::{Value as Json, json};

use connection::Connection;
pub use linerpc::target::{Proxies, Proxy, TargetError};
pub use target::Target;
pub use token::{MalformedToken, Token};

use crate::forget::Forget;
use crate::policy::History;
use crate::store::{Filter, Row};
use crate::tuple::{Package, Tuple};
use crate::value::{VALUE_CHARS_MAX, Value};
use crate::wire::ProtocolError;

/// The number of requests that are sent before their replies are read.
const PIPELINE: usize = 64;

/// The timeout and the number of attempts of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The timeout for connecting and for each reply.
    pub timeout: Duration,
    /// The maximum number of attempts, including the first.
    pub attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            attempts: 4,
        }
    }
}

/// The error of a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be opened or was lost.
    #[error("cannot communicate with {target}")]
    Io {
        /// The address of the server.
        target: String,
        /// The cause.
        source: io::Error,
    },
    /// The proxy refused to connect.
    #[error("the proxy refused to connect: {}", printable(.0))]
    Proxy(String),
    /// The reply violates the protocol.
    #[error("the server's reply is malformed")]
    Malformed(#[from] ProtocolError),
    /// The reply does not answer the request.
    #[error("unexpected reply from the server: {}", printable(.0))]
    Unexpected(String),
    /// A row of the server has no value, or one that is malformed or too long.
    #[error("the server's value of {tuple} cannot be used")]
    Value {
        /// The key of the row.
        tuple: Tuple,
    },
    /// The server refused the request with this message.
    #[error("the server refused the request: {}", printable(.0))]
    Refused(String),
}

/// A client. It connects on the first request and reconnects when the connection is lost.
#[derive(Debug)]
pub struct Client {
    target: Target,
    token: Option<Token>,
    retry: RetryPolicy,
    connection: Option<Connection>,
}

impl Client {
    /// Creates a client of one server.
    pub fn new(target: Target, retry: RetryPolicy) -> Self {
        Self {
            target,
            token: None,
            retry,
            connection: None,
        }
    }

    /// Presents a token to the server.
    #[must_use]
    pub fn with_token(mut self, token: Option<Token>) -> Self {
        self.token = token;
        self
    }

    /// Sends one request and returns its reply.
    pub async fn request(&mut self, request: &impl Serialize) -> Result<Json, ClientError> {
        let mut replies = self.request_all(&[request]).await?;
        replies.pop().ok_or_else(|| unexpected(&Json::Null))
    }

    /// Sends many requests and returns their replies in the same order.
    pub async fn request_all(
        &mut self,
        requests: &[impl Serialize],
    ) -> Result<Vec<Json>, ClientError> {
        let mut replies = Vec::with_capacity(requests.len());
        for chunk in requests.chunks(PIPELINE) {
            replies.extend(self.request_with_retries(chunk).await?);
        }
        Ok(replies)
    }

    /// Sends `get-pr`: returns the value of a tuple or the server's fallback text.
    pub async fn get_pr(&mut self, tuple: &Tuple, history: History) -> Result<String, ClientError> {
        let reply = self
            .request(&json!({"get-pr": arguments(tuple, history)}))
            .await?;
        match value_of(&reply)? {
            Json::String(text) if is_answer(&text) => Ok(text),
            Json::Number(number) => Ok(number.to_string()),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends `test-pr`: returns the recorded value of a tuple.
    pub async fn test_pr(
        &mut self,
        tuple: &Tuple,
        history: History,
    ) -> Result<Option<Value>, ClientError> {
        revision(
            &self
                .request(&json!({"test-pr": arguments(tuple, history)}))
                .await?,
        )
    }

    /// Sends `max-package-pr`: returns the greatest value of a package.
    pub async fn max_package_pr(
        &mut self,
        package: &Package,
    ) -> Result<Option<Value>, ClientError> {
        let arguments = json!({"version": package.version, "pkgarch": package.pkgarch});
        revision(
            &self
                .request(&json!({ "max-package-pr": arguments }))
                .await?,
        )
    }

    /// Sends `max-package-pr` and `test-pr` without history in one round trip: returns the greatest
    /// value of the package and the recorded value of the tuple.
    pub async fn package_and_tuple_pr(
        &mut self,
        tuple: &Tuple,
    ) -> Result<(Option<Value>, Option<Value>), ClientError> {
        let Package { version, pkgarch } = &tuple.package;
        let max = json!({"max-package-pr": {"version": version, "pkgarch": pkgarch}});
        let test = json!({"test-pr": arguments(tuple, History::Ignore)});
        let replies = self.request_all(&[max, test]).await?;
        match replies.as_slice() {
            [max, test] => Ok((revision(max)?, revision(test)?)),
            _ => Err(unexpected(&Json::Null)),
        }
    }

    /// Sends `import-one` for each row. Returns for each row whether the server accepted it.
    pub async fn import(&mut self, rows: &[Row]) -> Result<Vec<bool>, ClientError> {
        let requests: Vec<Json> = rows.iter().map(import_request).collect();
        let replies = self.request_all(&requests).await?;
        Ok(replies.into_iter().map(|reply| !reply.is_null()).collect())
    }

    /// Sends `forget`: removes rows of a package and returns them. BitBake's server does not know
    /// this request.
    pub async fn forget(&mut self, request: &Forget) -> Result<Vec<Row>, ClientError> {
        let Package { version, pkgarch } = &request.package;
        let reply = self
            .request(&json!({"forget": {
                "version": version, "pkgarch": pkgarch,
                "above": request.above, "greatest": request.greatest,
            }}))
            .await?;
        rows(&reply)
    }

    /// Sends `export`: returns the rows that match.
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

    /// Sends `export` for each filter.
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
        self.request_all(&requests)
            .await?
            .iter()
            .map(rows)
            .collect()
    }

    async fn request_with_retries(
        &mut self,
        requests: &[impl Serialize],
    ) -> Result<Vec<Json>, ClientError> {
        let mut attempt = 1;
        loop {
            match self.try_once(requests).await {
                Ok(replies) => return Ok(replies),
                Err(error @ ClientError::Refused(_)) => return Err(error),
                Err(error) if attempt >= self.retry.attempts => return Err(error),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, server = %self.target, attempt, "retrying a request");
                }
            }
            attempt += 1;
        }
    }

    /// Makes one attempt. A connection that failed is not reused.
    async fn try_once(&mut self, requests: &[impl Serialize]) -> Result<Vec<Json>, ClientError> {
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let token = self.token.as_ref().map(Token::secret);
            Connection::open(&self.target, token, self.retry.timeout).await?
        };
        let replies = connection
            .exchange(requests, &self.target, self.retry.timeout)
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

/// Returns the `value` member of a reply.
fn value_of(reply: &Json) -> Result<Json, ClientError> {
    reply.get("value").cloned().ok_or_else(|| unexpected(reply))
}

/// Returns true for a text that can be a part of a file name: a value or a fallback such as
/// `custom`.
fn is_answer(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    (1..=VALUE_CHARS_MAX).contains(&text.len()) && text.chars().all(is_plain)
}

/// Parses a revision or null. Servers up to BitBake 2.8 send integers.
fn revision(reply: &Json) -> Result<Option<Value>, ClientError> {
    let text = match value_of(reply)? {
        Json::Null => return Ok(None),
        Json::String(text) => text,
        Json::Number(number) => number.to_string(),
        other => return Err(unexpected(&other)),
    };
    text.parse()
        .map(Some)
        .map_err(|_| ClientError::Unexpected(truncated(&text)))
}

fn rows(reply: &Json) -> Result<Vec<Row>, ClientError> {
    reply
        .get("datainfo")
        .and_then(Json::as_array)
        .ok_or_else(|| unexpected(reply))?
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
    match revision(&json!({ "value": value })) {
        Ok(Some(value)) => Ok(Row { tuple, value }),
        Ok(None) | Err(_) => Err(ClientError::Value { tuple }),
    }
}

/// Creates the error with the beginning of a reply.
fn unexpected(reply: &Json) -> ClientError {
    ClientError::Unexpected(truncated(&reply.to_string()))
}

/// Returns the beginning of a text of the server.
fn truncated(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Returns the error of a reply that refuses a request.
fn refusal(reply: &Json) -> Option<ClientError> {
    let message = reply.get("invoke-error")?.get("message")?.as_str()?;
    Some(ClientError::Refused(truncated(message)))
}
