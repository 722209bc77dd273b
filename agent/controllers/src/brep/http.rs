//! The HTTP requests to a controller: with limits for time and size, and without redirections, which
//! could send a session elsewhere.

use std::io::Read;

use config::settings::ControllerRules;
use reqwest_tls::StatusCode;
use reqwest_tls::blocking::multipart::Form;
use reqwest_tls::blocking::{Client, RequestBuilder, Response};
use reqwest_tls::header::CONTENT_TYPE;

use crate::{Answer, TakeError, Upload};

const USER_AGENT: &str = concat!("buildhost/", env!("CARGO_PKG_VERSION"));
const MANIFEST: &str = "text/manifest;charset=utf-8";
/// The largest size of a task.
const TASK_BYTES_MAX: u64 = 4 << 20;
/// The largest part of another answer that is read.
const ANSWER_BYTES_MAX: u64 = 4096;
/// The largest part of an answer that a message shows.
const SHOWN_MAX: usize = 200;

/// The client of one controller.
#[derive(Debug)]
pub(super) struct Http {
    rules: ControllerRules,
}

impl Http {
    pub(super) fn new(rules: &ControllerRules) -> Self {
        Self {
            rules: rules.clone(),
        }
    }

    /// Returns a client. It is made for each request, which are rare: its threads end with it.
    fn client(&self) -> Result<Client, String> {
        Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.rules.connect_max)
            .timeout(self.rules.request_max)
            .redirect(reqwest_tls::redirect::Policy::none())
            .build()
            .map_err(|error| sys::error_report::chain(&error))
    }

    /// Sends a request for a task and returns the answer.
    pub(super) fn request_task(&self, body: String) -> Result<String, TakeError> {
        let client = self.client().map_err(TakeError::Unavailable)?;
        let request = client
            .post(&self.rules.url)
            .header(CONTENT_TYPE, MANIFEST)
            .body(body);
        let response = send(request).map_err(TakeError::Unavailable)?;
        let status = response.status();
        if status != StatusCode::OK {
            let text = refusal(response);
            return Err(if is_final(status) {
                TakeError::Refused(text)
            } else {
                TakeError::Unavailable(text)
            });
        }
        let bytes = read(response, TASK_BYTES_MAX).map_err(TakeError::Unavailable)?;
        if bytes.len() as u64 > TASK_BYTES_MAX {
            let limit = TASK_BYTES_MAX >> 20;
            return Err(TakeError::Refused(format!(
                "its answer is larger than {limit} MiB"
            )));
        }
        String::from_utf8(bytes)
            .map_err(|_| TakeError::Refused("its answer is not UTF-8".to_owned()))
    }

    /// Sends a result.
    pub(super) fn report(&self, url: &str, body: Vec<u8>) -> Answer {
        self.client().map_or_else(Answer::Retry, |client| {
            let request = client.post(url).header(CONTENT_TYPE, MANIFEST).body(body);
            answer(send(request))
        })
    }

    /// Uploads a file.
    pub(super) fn upload(
        &self,
        url: &str,
        session: &str,
        challenge: Option<&str>,
        upload: &Upload,
    ) -> Answer {
        let form = match form(session, challenge, upload) {
            Ok(form) => form,
            Err(error) => return Answer::Retry(error.to_string()),
        };
        self.client().map_or_else(Answer::Retry, |client| {
            answer(send(client.post(url).multipart(form)))
        })
    }
}

/// Returns the form of an upload.
fn form(session: &str, challenge: Option<&str>, upload: &Upload) -> std::io::Result<Form> {
    let digest = sys::file::digest(sys::trusted::open(&upload.path)?)?;
    let mut form = Form::new().text("session", session.to_owned());
    if let Some(challenge) = challenge {
        form = form.text("challenge", challenge.to_owned());
    }
    let file = sys::trusted::open(&upload.path)?;
    let bytes = file.metadata()?.len();
    let archive = reqwest_tls::blocking::multipart::Part::reader_with_length(file, bytes)
        .file_name(upload.name.clone());
    Ok(form
        .text("instance", upload.instance.clone())
        .part("archive", archive)
        .text("sha256sum", digest.to_string()))
}

fn send(request: RequestBuilder) -> Result<Response, String> {
    // The address may have a password; the error shows none.
    request
        .send()
        .map_err(|error| sys::error_report::chain(&error.without_url()))
}

fn read(response: Response, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = response.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| sys::error_report::chain(&error))?;
    Ok(bytes)
}

/// Returns true if a request with this answer is not to be repeated as it is.
fn is_final(status: StatusCode) -> bool {
    let is_temporary = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !is_temporary.contains(&status)
}

/// Returns the sentence about an answer.
fn refusal(response: Response) -> String {
    let status = response.status();
    if status.is_redirection() {
        return format!(
            "it answers with a redirection ({status}), which is not followed: set its final address"
        );
    }
    let text = read(response, ANSWER_BYTES_MAX).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.truncate(text.floor_char_boundary(SHOWN_MAX));
    let text = config::printable(&text);
    if text.to_string().is_empty() {
        format!("it answers with status {status}")
    } else {
        format!("it answers with status {status}: {text}")
    }
}

fn answer(sent: Result<Response, String>) -> Answer {
    match sent {
        Err(error) => Answer::Retry(error),
        Ok(response) => {
            let status = response.status();
            if status.is_success() {
                return Answer::Accepted(status.to_string());
            }
            let text = refusal(response);
            if is_final(status) {
                Answer::Refused(text)
            } else {
                Answer::Retry(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_stay_the_same_are_final() {
        for (status, expected) in [
            (200, false),
            (302, false),
            (400, true),
            (401, true),
            (404, true),
            (408, false),
            (413, true),
            (425, false),
            (429, false),
            (500, false),
            (501, false),
            (503, false),
        ] {
            assert_eq!(
                is_final(StatusCode::from_u16(status).unwrap()),
                expected,
                "{status}"
            );
        }
    }
}
