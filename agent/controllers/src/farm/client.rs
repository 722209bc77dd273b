//! The requests to the coordinators of a farm.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::controllers::{Coordinator, without_password};
use config::settings::{ControllerRules, FarmRules};
use farm_core::Terms;
use farm_core::messages::{Poll, PollAnswer, Release, Report};
use jiff::Timestamp;
use reqwest_tls::{
    Certificate, Client as Http, ClientBuilder, RequestBuilder, Response, StatusCode,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::key::FarmKey;
use crate::http::is_final;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The largest part of an answer that a message shows.
const SHOWN_MAX: usize = 200;

/// A failure of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FarmError {
    /// The coordinator cannot be reached, or fails. The request is repeated.
    #[error("{url}: {reason}")]
    Unavailable {
        /// The address of the coordinator.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The farm does not know the key of this host.
    #[error("{url} refuses the key of this host: {reason}")]
    Key {
        /// The address of the coordinator.
        url: String,
        /// The reason.
        reason: String,
    },
    /// The farm refuses the request, now and later.
    #[error("{url} refuses the request: {reason}")]
    Refused {
        /// The address of the coordinator.
        url: String,
        /// The status.
        status: u16,
        /// The reason.
        reason: String,
    },
    /// No requests can be made.
    #[error("cannot use the certificates in {path}: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// The answer to a result or to a lease that is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The farm has it.
    Recorded,
    /// The lease is over, or belongs to another host.
    Stale(String),
}

/// The error of an answer.
#[derive(Debug, Deserialize)]
struct Fault {
    error: String,
}

/// A client of one farm.
#[derive(Debug)]
pub struct Client {
    pub(super) http: Http,
    urls: Vec<String>,
    current: AtomicUsize,
    /// The contact with each coordinator, in the order of the addresses.
    contacts: Mutex<Vec<Coordinator>>,
}

impl Client {
    /// Returns a client.
    ///
    /// # Errors
    /// The certificates of the settings cannot be used.
    pub fn new(rules: &ControllerRules, farm: &FarmRules) -> Result<Self, FarmError> {
        let mut http = Http::builder()
            .user_agent(concat!("buildhost/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(rules.connect_max)
            .redirect(reqwest_tls::redirect::Policy::none());
        if let Some(path) = &farm.ca {
            let fault = |reason: String| FarmError::Certificates {
                path: path.clone(),
                reason,
            };
            let pem = sys::trusted::read(path).map_err(|error| fault(error.to_string()))?;
            let found = Certificate::from_pem_bundle(&pem);
            let found = found.map_err(|error| fault(sys::error_report::chain(&error)))?;
            http = found
                .into_iter()
                .fold(http, ClientBuilder::add_root_certificate);
        }
        let http = http.build().map_err(|error| FarmError::Certificates {
            path: farm.ca.clone().unwrap_or_default(),
            reason: sys::error_report::chain(&error),
        })?;
        Ok(Self {
            http,
            urls: farm.urls.clone(),
            current: AtomicUsize::new(0),
            contacts: Mutex::new(unasked(farm)),
        })
    }

    /// Returns the address of the coordinator that is asked next.
    pub fn url(&self) -> &str {
        let current = self.current.load(Ordering::Relaxed);
        self.urls
            .get(current % self.urls.len().max(1))
            .map_or("", |it| it)
    }

    /// Returns the coordinators, with the contact with each since this client exists.
    pub fn contacts(&self) -> Vec<Coordinator> {
        let (mut all, current) = (self.lock().clone(), self.current.load(Ordering::Relaxed));
        for (index, coordinator) in all.iter_mut().enumerate() {
            coordinator.in_use = index == current;
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Coordinator>> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the contact with the coordinator of an address.
    fn note(&self, url: &str, change: impl FnOnce(&mut Coordinator)) {
        if let Some(index) = self.urls.iter().position(|it| it == url)
            && let Some(contact) = self.lock().get_mut(index)
        {
            change(contact);
        }
    }

    /// Returns the number of coordinators.
    pub fn coordinators(&self) -> usize {
        self.urls.len()
    }

    /// Asks for the terms of the farm's leases.
    ///
    /// # Errors
    /// The coordinator fails or refuses the request.
    pub async fn terms(&self, key: &FarmKey, limit: Duration) -> Result<Terms, FarmError> {
        let url = self.url();
        let request = self.http.get(format!("{url}/farm/v1/terms"));
        self.json(url, with_key(request, key).timeout(limit)).await
    }

    /// Sends a sign of life.
    ///
    /// # Errors
    /// The coordinator fails or refuses the request.
    pub async fn poll(
        &self,
        key: &FarmKey,
        poll: &Poll,
        limit: Duration,
    ) -> Result<PollAnswer, FarmError> {
        let url = self.url();
        let request = self.post(url, "poll", poll);
        self.json(url, with_key(request, key).timeout(limit)).await
    }

    /// Reports a result.
    ///
    /// # Errors
    /// The coordinator fails or refuses the request.
    pub async fn report(
        &self,
        key: &FarmKey,
        report: &Report,
        limit: Duration,
    ) -> Result<Settled, FarmError> {
        self.settle(key, "report", report, limit).await
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// The coordinator fails or refuses the request.
    pub async fn release(
        &self,
        key: &FarmKey,
        release: &Release,
        limit: Duration,
    ) -> Result<Settled, FarmError> {
        self.settle(key, "release", release, limit).await
    }

    /// Exchanges a single-use token for the right to use a key. A repetition after a lost answer succeeds.
    ///
    /// # Errors
    /// The coordinator fails or refuses the token.
    pub async fn enrol(
        &self,
        token: &str,
        key: &FarmKey,
        limit: Duration,
    ) -> Result<(), FarmError> {
        let url = self.url();
        let body = serde_json::json!({ "token": token, "key": key.reveal() });
        let sent = self.send(url, self.post(url, "enrol", &body).timeout(limit));
        match sent.await {
            // The token is used: by this host, if its key counts already.
            Err(refused @ FarmError::Refused { .. }) => match self.terms(key, limit).await {
                Ok(_) => Ok(()),
                Err(_) => Err(refused),
            },
            sent => sent.map(drop),
        }
    }

    fn post(&self, url: &str, path: &str, body: &impl Serialize) -> RequestBuilder {
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.http
            .post(format!("{url}/farm/v1/{path}"))
            .header(reqwest_tls::header::CONTENT_TYPE, "application/json")
            .body(body)
    }

    async fn settle(
        &self,
        key: &FarmKey,
        path: &str,
        body: &(impl Serialize + Sync),
        limit: Duration,
    ) -> Result<Settled, FarmError> {
        let url = self.url();
        let request = with_key(self.post(url, path, body), key).timeout(limit);
        match self.send(url, request).await {
            Ok(_) => Ok(Settled::Recorded),
            Err(FarmError::Refused { status, reason, .. }) if status == CONFLICT => {
                Ok(Settled::Stale(reason))
            }
            Err(error) => Err(error),
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        url: &str,
        request: RequestBuilder,
    ) -> Result<T, FarmError> {
        let response = self.send(url, request).await?;
        let fault = |reason: String| self.unavailable(url, reason);
        let bytes = read(response).await.map_err(fault)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            self.unavailable(url, format!("its answer is not understood: {error}"))
        })
    }

    /// Sends a request. After a failure that another coordinator may not have, that is asked next.
    pub(super) async fn send(
        &self,
        url: &str,
        request: RequestBuilder,
    ) -> Result<Response, FarmError> {
        let response = match request.send().await {
            Ok(response) => response,
            // The address may have a password.
            Err(error) => {
                return Err(self.unavailable(url, sys::error_report::chain(&error.without_url())));
            }
        };
        let status = response.status();
        if status.is_success() || is_final(status) {
            self.note(url, |it| it.note_answer(Timestamp::now()));
        }
        if status.is_success() {
            return Ok(response);
        }
        let reason = refusal(response).await;
        let url = url.to_owned();
        if status == StatusCode::UNAUTHORIZED {
            Err(FarmError::Key { url, reason })
        } else if is_final(status) {
            let status = status.as_u16();
            Err(FarmError::Refused {
                url,
                status,
                reason,
            })
        } else {
            Err(self.unavailable(&url, reason))
        }
    }

    pub(super) fn unavailable(&self, url: &str, reason: String) -> FarmError {
        // Only from the one that failed, so that two failures at once do not return to it.
        let current = self.current.load(Ordering::Relaxed);
        if self.urls.get(current).is_some_and(|it| it == url) {
            let next = (current + 1) % self.urls.len();
            self.current.store(next, Ordering::Relaxed);
        }
        self.note(url, |it| it.note_failure(&reason, Timestamp::now()));
        FarmError::Unavailable {
            url: without_password(url),
            reason,
        }
    }
}

/// Returns the coordinators of a farm before the first request.
pub fn unasked(farm: &FarmRules) -> Vec<Coordinator> {
    let coordinator = |url: &String| Coordinator {
        url: without_password(url),
        ..Coordinator::default()
    };
    farm.urls.iter().map(coordinator).collect()
}

const CONFLICT: u16 = StatusCode::CONFLICT.as_u16();

pub(super) fn with_key(request: RequestBuilder, key: &FarmKey) -> RequestBuilder {
    request.bearer_auth(key.reveal())
}

/// Reads an answer up to its limit.
async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let chain = |error: reqwest_tls::Error| sys::error_report::chain(&error.without_url());
    while let Some(chunk) = response.chunk().await.map_err(chain)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(format!(
                "its answer is larger than {} MiB",
                ANSWER_BYTES_MAX >> 20
            ));
        }
    }
    Ok(bytes)
}

/// Returns the sentence about a refusal.
pub(super) async fn refusal(response: Response) -> String {
    let status = response.status();
    let bytes = read(response).await.unwrap_or_default();
    let text = serde_json::from_slice(&bytes).map_or_else(
        |_| String::from_utf8_lossy(&bytes).into_owned(),
        |fault: Fault| fault.error,
    );
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.truncate(text.floor_char_boundary(SHOWN_MAX));
    if text.is_empty() {
        format!("status {status}")
    } else {
        config::printable(&text).to_string()
    }
}
