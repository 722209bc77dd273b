//! The requests of a coordinator to others: for a source, and to get one.

use std::path::Path;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderValue;
use config::task::Digest;
use farm_core::copies::CoordinatorName;
use futures_util::stream::{Stream, unfold};
use reqwest_tls::{Certificate, Client, ClientBuilder, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use crate::secret;

/// The time within which a connection must be there.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The time without a byte after which a request is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The time within which another coordinator must have got a source.
const COPY_MAX: Duration = Duration::from_mins(10);
/// The longest refusal that is read.
const REFUSAL_BYTES_MAX: usize = 4_096;

/// The other coordinators.
#[derive(Debug)]
pub(super) struct Peers {
    http: Client,
    key: String,
}

/// The refusal of another coordinator.
#[derive(Debug, Deserialize)]
struct Refused {
    error: String,
}

impl Peers {
    /// Makes a key, by which others know this coordinator.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, String> {
        let mut http = Client::builder()
            .connect_timeout(CONNECT_MAX)
            .redirect(reqwest_tls::redirect::Policy::none());
        if let Some(path) = ca {
            let fault = |reason: String| {
                let path = path.display();
                format!("cannot use the certificates in {path}: {reason}")
            };
            let pem = sys::trusted::read(path).map_err(|error| fault(error.to_string()))?;
            let found = Certificate::from_pem_bundle(&pem);
            let found = found.map_err(|error| fault(error.to_string()))?;
            http = found
                .into_iter()
                .fold(http, ClientBuilder::add_root_certificate);
        }
        let http = http.build().map_err(|error| error.to_string())?;
        let key = secret::random().map_err(|error| error.to_string())?;
        Ok(Self { http, key })
    }

    /// Returns the hash of the key.
    pub(super) fn key_hash(&self) -> [u8; 32] {
        secret::hash(&self.key)
    }

    /// Asks a coordinator for its file of a source.
    ///
    /// # Errors
    /// It does not answer, or does not have it.
    pub(super) async fn get(
        &self,
        from: &CoordinatorName,
        digest: &Digest,
    ) -> Result<Response, String> {
        let request = self.http.get(address(from, digest));
        self.send(from, request).await
    }

    /// Asks a coordinator to get a source from those that have it.
    ///
    /// # Errors
    /// It does not answer, or could not get it.
    pub(super) async fn order(&self, to: &CoordinatorName, digest: &Digest) -> Result<(), String> {
        let request = self.http.post(address(to, digest)).timeout(COPY_MAX);
        self.send(to, request).await.map(drop)
    }

    async fn send(
        &self,
        peer: &CoordinatorName,
        request: RequestBuilder,
    ) -> Result<Response, String> {
        let answer = request.bearer_auth(&self.key).send().await;
        let answer = answer.map_err(|error| format!("{peer}: {}", chain(error)))?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            status => Err(format!("{peer}: {}", refusal(status, answer).await)),
        }
    }
}

/// Returns the content of an answer. Silence is an error.
pub(super) fn content(answer: Response) -> impl Stream<Item = Result<Bytes, String>> {
    unfold(Some(answer), |answer| async {
        let mut answer = answer?;
        match tokio::time::timeout(SILENCE_MAX, answer.chunk()).await {
            Ok(Ok(Some(part))) => Some((Ok(part), Some(answer))),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some((Err(chain(error)), None)),
            Err(_) => Some((Err("the other coordinator is silent".to_owned()), None)),
        }
    })
}

/// Returns the size that an answer announces.
pub(super) fn length(answer: &Response) -> Option<HeaderValue> {
    let value = answer.headers().get(reqwest_tls::header::CONTENT_LENGTH);
    HeaderValue::from_bytes(value?.as_bytes()).ok()
}

fn address(peer: &CoordinatorName, digest: &Digest) -> String {
    format!("{peer}/farm/v1/sources/{digest}")
}

fn chain(error: reqwest_tls::Error) -> String {
    sys::error_report::chain(&error.without_url())
}

async fn refusal(status: StatusCode, mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        bytes.extend_from_slice(&part);
        if bytes.len() > REFUSAL_BYTES_MAX {
            break;
        }
    }
    match serde_json::from_slice(&bytes) {
        Ok(Refused { error }) => error,
        Err(_) => format!("status {status}"),
    }
}
