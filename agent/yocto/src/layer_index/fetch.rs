//! The requests to a layer index. Answers and redirections of other hosts are refused, and so are
//! answers without an end.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use reqwest_tls::blocking::{self, Response};
use reqwest_tls::header::{
    ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest_tls::{StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::address::Address;

/// The time limits of a connection and of an answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
pub(super) const ANSWER_LIMIT: Duration = Duration::from_mins(10);
/// The largest size of an answer. The recipes of a branch of the public index have 20 MiB.
const BYTES_MAX: u64 = 512 << 20;
/// The largest number of redirections.
const REDIRECTS_MAX: usize = 5;
const USER_AGENT: &str = concat!("buildhost/", env!("CARGO_PKG_VERSION"));

/// A failure to ask a layer index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The index cannot be reached.
    #[error("cannot get {url}")]
    Unreachable {
        /// The address.
        url: String,
        /// The failure.
        source: reqwest_tls::Error,
    },
    /// The index answers with another status.
    #[error("{url} answers with status {status}{}", remedy(*status))]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// The answer is not what the interface of an index has.
    #[error("{url} does not answer as a layer index: {fault}")]
    Answer {
        /// The address.
        url: String,
        /// The fault.
        fault: String,
    },
    /// The index has no layers of the branches.
    #[error("{index} has no layers of the branches {branches}; what was known of it stays")]
    Empty {
        /// The address.
        index: String,
        /// The branches.
        branches: String,
    },
}

fn remedy(status: u16) -> &'static str {
    match status {
        401 | 403 => "; it wants other credentials (`USER:PASSWORD@` before its host)",
        404 => "; the address of an index ends with `/layerindex/api/`",
        _ => "",
    }
}

/// The validators of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validators {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
}

impl Validators {
    /// Returns true if a change of the answer shows.
    pub(super) fn is_usable(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }

    fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::to_owned);
        Self {
            etag: text(ETAG),
            modified: text(LAST_MODIFIED),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is the same as before.
    Unchanged,
    /// Its body and its validators.
    Content(Vec<u8>, Validators),
}

/// A client of one index.
#[derive(Debug)]
pub(super) struct Client {
    http: blocking::Client,
    base: Url,
    credentials: Option<(String, Option<String>)>,
}

impl Client {
    /// Returns a client that waits for each answer up to `limit`.
    pub(super) fn new(address: &Address, limit: Duration) -> Result<Self, IndexError> {
        let base = address.shown();
        let failed = |source| IndexError::Unreachable {
            url: base.clone(),
            source,
        };
        let host = Url::parse(&base)
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned));
        let redirect = reqwest_tls::redirect::Policy::custom(move |attempt| {
            let is_same = attempt.url().host_str().map(str::to_owned) == host;
            if is_same && attempt.previous().len() <= REDIRECTS_MAX {
                attempt.follow()
            } else {
                attempt.stop()
            }
        });
        let http = blocking::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_LIMIT)
            .timeout(limit)
            .redirect(redirect)
            .build()
            .map_err(failed)?;
        let base = Url::parse(&base).map_err(|error| IndexError::Answer {
            url: base.clone(),
            fault: error.to_string(),
        })?;
        Ok(Self {
            http,
            base,
            credentials: address.credentials(),
        })
    }

    /// Returns the address of the interface.
    pub(super) fn base(&self) -> &str {
        self.base.as_str()
    }

    /// Returns a link of the index as an absolute address of the same host. The scheme is that of
    /// the index, which may be behind a server for TLS.
    pub(super) fn checked_link(&self, link: &str) -> Result<String, IndexError> {
        let fault = |fault: String| IndexError::Answer {
            url: self.base.to_string(),
            fault,
        };
        let mut url = self.base.join(link).map_err(|error| {
            fault(format!(
                "`{}` is not a link: {error}",
                config::printable(link)
            ))
        })?;
        if url.host_str() != self.base.host_str() {
            let link = config::printable(link);
            return Err(fault(format!("its link {link} leads to another host")));
        }
        // Both succeed between addresses of HTTP.
        let _ = (
            url.set_scheme(self.base.scheme()),
            url.set_port(self.base.port()),
        );
        url.set_query(None);
        Ok(url.to_string())
    }

    /// Gets an object.
    pub(super) fn object<T: DeserializeOwned>(
        &self,
        url: &str,
        answers: &mut BTreeMap<String, Validators>,
    ) -> Result<T, IndexError> {
        let body = self.body(url, answers)?;
        serde_json::from_slice(&body).map_err(|error| IndexError::Answer {
            url: url.to_owned(),
            fault: error.to_string(),
        })
    }

    /// Gets a list of objects.
    pub(super) fn list<T: DeserializeOwned>(
        &self,
        url: &str,
        answers: &mut BTreeMap<String, Validators>,
    ) -> Result<Vec<T>, IndexError> {
        let values: Vec<Value> = self.object(url, answers)?;
        let parse = |(number, value): (usize, Value)| {
            serde_json::from_value(value).map_err(|error| IndexError::Answer {
                url: url.to_owned(),
                fault: format!("object {number}: {error}"),
            })
        };
        (1..).zip(values).map(parse).collect()
    }

    fn body(
        &self,
        url: &str,
        answers: &mut BTreeMap<String, Validators>,
    ) -> Result<Vec<u8>, IndexError> {
        match self.get(url, None)? {
            Answer::Content(body, validators) => {
                answers.insert(url.to_owned(), validators);
                Ok(body)
            }
            Answer::Unchanged => Err(IndexError::Status {
                url: url.to_owned(),
                status: StatusCode::NOT_MODIFIED.as_u16(),
            }),
        }
    }

    /// Gets an answer, unless it is the same as that with these validators. A request that gets
    /// none is repeated once.
    pub(super) fn get(
        &self,
        url: &str,
        validators: Option<&Validators>,
    ) -> Result<Answer, IndexError> {
        self.get_once(url, validators).or_else(|error| match error {
            IndexError::Unreachable { .. } => self.get_once(url, validators),
            error => Err(error),
        })
    }

    fn get_once(&self, url: &str, validators: Option<&Validators>) -> Result<Answer, IndexError> {
        let failed = |source: reqwest_tls::Error| IndexError::Unreachable {
            url: url.to_owned(),
            // The address is in the message already.
            source: source.without_url(),
        };
        let mut request = self.http.get(url);
        if let Some((user, password)) = &self.credentials {
            request = request.basic_auth(user, password.as_ref());
        }
        if let Some(validators) = validators {
            for (name, value) in [
                (IF_NONE_MATCH, &validators.etag),
                (IF_MODIFIED_SINCE, &validators.modified),
            ] {
                request = value
                    .iter()
                    .fold(request, |request, value| request.header(&name, value));
            }
        }
        let response = request.send().map_err(failed)?;
        match response.status() {
            StatusCode::NOT_MODIFIED if validators.is_some() => Ok(Answer::Unchanged),
            StatusCode::OK => {
                let validators = Validators::of(response.headers());
                Ok(Answer::Content(read(url, response)?, validators))
            }
            status => Err(IndexError::Status {
                url: url.to_owned(),
                status: status.as_u16(),
            }),
        }
    }
}

fn read(url: &str, response: Response) -> Result<Vec<u8>, IndexError> {
    let fault = |fault: String| IndexError::Answer {
        url: url.to_owned(),
        fault,
    };
    let mut body = Vec::new();
    let read = response.take(BYTES_MAX + 1).read_to_end(&mut body);
    read.map_err(|error| {
        // The text of the client hides a limit that was exceeded in the error below it.
        fault(format!(
            "it ends early: {}",
            sys::error_report::chain(&error)
        ))
    })?;
    if body.len() as u64 > BYTES_MAX {
        return Err(fault(format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(body)
}
