//! The requests to GitLab.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest_tls::blocking::multipart::{Form, Part};
use reqwest_tls::blocking::{RequestBuilder, Response};
use reqwest_tls::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest_tls::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::artifacts::Archive;
use super::ending::{FailureReason, FinalState};
use super::job::{Given, Hidden, JobKey, parse};
use super::token::{self, TokenError};
use super::trace::{AnswerParts, TraceAnswer, content_range, interpret};
use crate::http::{answer, client, is_final, read, refusal, send};
use crate::{Answer, TakeError};

/// The largest size of a job.
const JOB_BYTES_MAX: u64 = 4 << 20;
const TOKEN: &str = "JOB-TOKEN";
const JOB_STATUS: &str = "Job-Status";
const INTERVAL: &str = "X-GitLab-Trace-Update-Interval";

/// A GitLab, and this host as one of its runners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The address, without `/api/v4`.
    pub url: String,
    /// The file with the token of the runner.
    pub token: PathBuf,
    /// The identity of this host among those with the same token, of [`system_id`].
    pub system_id: String,
    /// The limit for a connection.
    pub connect_max: Duration,
    /// The limit for an answer.
    pub request_max: Duration,
}

/// Returns the identity of a host for GitLab, from a text that stays the same, such as its machine id.
pub fn system_id(host: &str) -> String {
    let mut hash = sys::file::Hasher::default();
    hash.update(b"buildhost gitlab ");
    hash.update(host.as_bytes());
    format!("s_{:.12}", hash.finish().to_string())
}

/// A client of one GitLab.
#[derive(Debug)]
pub struct Client {
    server: Server,
    token: Hidden,
}

/// The body of a change of a job's state.
#[derive(Debug, Serialize)]
struct Update<'a> {
    token: &'a Hidden,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<FailureReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
}

impl Client {
    /// Returns a client.
    ///
    /// # Errors
    /// The token cannot be read, or others than root may read it.
    pub fn new(server: Server) -> Result<Self, TokenError> {
        let token = token::read(&server.token)?;
        Ok(Self { server, token })
    }

    /// Requests a job. A job that is returned runs for GitLab, and needs a final state.
    ///
    /// # Errors
    /// GitLab cannot be reached, refuses the request, or answers with something that is no job.
    pub fn request_job(&self) -> Result<Option<Given>, TakeError> {
        let body = json!({
            "token": self.token,
            "system_id": self.server.system_id,
            "info": {
                "name": "buildhost",
                "version": env!("CARGO_PKG_VERSION"),
                "platform": std::env::consts::OS,
                "architecture": std::env::consts::ARCH,
                "executor": "buildhost",
                "features": {
                    "variables": true, "raw_variables": true, "refspecs": true, "masking": true,
                    "artifacts": true, "upload_multiple_artifacts": true, "cancelable": true,
                    "return_exit_code": true,
                },
            },
        });
        let request = self.build("jobs/request", Method::POST);
        let request = request.map_err(TakeError::Unavailable)?;
        let response = send(with_json(request, &body)).map_err(TakeError::Unavailable)?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::CREATED => job(response).map(Some),
            // The job has gone to another runner meanwhile.
            StatusCode::CONFLICT => Err(TakeError::Unavailable(refusal(response))),
            status if is_final(status) => Err(TakeError::Refused(refusal(response))),
            _ => Err(TakeError::Unavailable(refusal(response))),
        }
    }

    /// Sends a piece of a job's log, masked, which is not empty. `bytes` are those of `piece`.
    pub fn send_trace(&self, key: &JobKey, piece: &Range<u64>, bytes: Vec<u8>) -> TraceAnswer {
        let path = format!("jobs/{}/trace", key.id);
        let request = self.build(&path, Method::PATCH);
        let request = request.map(|request| {
            request
                .header(TOKEN, key.token.reveal())
                .header(CONTENT_TYPE, "text/plain")
                .header(CONTENT_RANGE, content_range(piece))
                .body(bytes)
        });
        trace_answer(request, Some(piece.end))
    }

    /// Tells that a job runs whose log has nothing new, and asks for its state.
    pub fn touch(&self, key: &JobKey) -> TraceAnswer {
        let update = Update {
            token: &key.token,
            state: "running",
            failure_reason: None,
            exit_code: None,
        };
        trace_answer(self.update(key, &update), None)
    }

    /// Uploads an archive of a job, before the final state.
    pub fn upload(&self, key: &JobKey, archive: &Archive, path: &Path) -> Answer {
        let sent = form(archive, path).and_then(|form| {
            let path = format!("jobs/{}/artifacts", key.id);
            let request = self.build(&path, Method::POST)?;
            let expire_in = archive.expire_in.iter().map(|it| ("expire_in", it));
            let request = request.query(&expire_in.collect::<Vec<_>>());
            send(request.header(TOKEN, key.token.reveal()).multipart(form))
        });
        answer(sent)
    }

    /// Sends the final state of a job.
    pub fn finish(&self, key: &JobKey, state: FinalState) -> Answer {
        let (state, failure_reason, exit_code) = match state {
            FinalState::Success => ("success", None, None),
            FinalState::Failed(reason, exit_code) => ("failed", Some(reason), exit_code),
        };
        let update = Update {
            token: &key.token,
            state,
            failure_reason,
            exit_code,
        };
        match self.update(key, &update).and_then(send) {
            // It has not stored the log yet, and expects the same again.
            Ok(response) if response.status() == StatusCode::ACCEPTED => {
                Answer::Retry("GitLab has not stored the log of the job yet".to_owned())
            }
            sent => answer(sent),
        }
    }

    fn update(&self, key: &JobKey, update: &Update<'_>) -> Result<RequestBuilder, String> {
        let request = self.build(&format!("jobs/{}", key.id), Method::PUT)?;
        Ok(with_json(request, update))
    }

    fn build(&self, path: &str, method: Method) -> Result<RequestBuilder, String> {
        let client = client(self.server.connect_max, self.server.request_max)?;
        let url = self.server.url.trim_end_matches('/');
        Ok(client.request(method, format!("{url}/api/v4/{path}")))
    }
}

fn with_json(request: RequestBuilder, body: &impl Serialize) -> RequestBuilder {
    let body = serde_json::to_vec(body).unwrap_or_default();
    request.header(CONTENT_TYPE, "application/json").body(body)
}

/// Returns the job in an answer.
fn job(response: Response) -> Result<Given, TakeError> {
    let bytes = read(response, JOB_BYTES_MAX).map_err(TakeError::Unavailable)?;
    if bytes.len() as u64 > JOB_BYTES_MAX {
        let limit = JOB_BYTES_MAX >> 20;
        return Err(TakeError::Refused(format!(
            "its job is larger than {limit} MiB"
        )));
    }
    parse(&bytes).map_err(TakeError::Refused)
}

fn trace_answer(request: Result<RequestBuilder, String>, end: Option<u64>) -> TraceAnswer {
    let response = match request.and_then(send) {
        Ok(response) => response,
        Err(error) => return TraceAnswer::Retry(error),
    };
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let parts = AnswerParts {
        status: response.status().as_u16(),
        job: header(JOB_STATUS),
        range: header(RANGE.as_str()),
        interval: header(INTERVAL),
        refusal: String::new(),
    };
    let is_success = response.status().is_success();
    let refusal = if is_success {
        String::new()
    } else {
        refusal(response)
    };
    interpret(&AnswerParts { refusal, ..parts }, end)
}

/// Returns the form of an upload.
fn form(archive: &Archive, path: &Path) -> Result<Form, String> {
    let open = || {
        let file = sys::trusted::open(path)?;
        let bytes = file.metadata()?.len();
        Ok::<_, std::io::Error>((file, bytes))
    };
    let (file, bytes) = open().map_err(|error| error.to_string())?;
    let part = Part::reader_with_length(file, bytes).file_name(archive.name.clone());
    Ok(Form::new()
        .text("artifact_format", archive.format.clone())
        .text("artifact_type", archive.kind.clone())
        .part("file", part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_identity() {
        let one = system_id("a");
        assert_eq!((one.len(), &one[..2]), (14, "s_"));
        assert_eq!(one, system_id("a"));
        assert_ne!(one, system_id("b"));
    }
}
