//! HTTP requests to controllers: with limits for time and size, and without redirections, which could
//! send a session or a token elsewhere.

use std::io::Read;
use std::time::Duration;

use reqwest_tls::StatusCode;
use reqwest_tls::blocking::{Client, RequestBuilder, Response};

use crate::Answer;

const USER_AGENT: &str = concat!("buildhost/", env!("CARGO_PKG_VERSION"));
/// The largest part of an answer to a report that is read.
const ANSWER_BYTES_MAX: u64 = 4096;
/// The largest part of an answer that a message shows.
const SHOWN_MAX: usize = 200;

/// Returns a client. It is made for each request, which are rare: its threads end with it.
pub(crate) fn client(connect_max: Duration, request_max: Duration) -> Result<Client, String> {
    Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(connect_max)
        .timeout(request_max)
        .redirect(reqwest_tls::redirect::Policy::none())
        .build()
        .map_err(|error| sys::error_report::chain(&error))
}

/// Sends a request and returns the answer.
pub(crate) fn send(request: RequestBuilder) -> Result<Response, String> {
    // The address may have a password; the error shows none.
    request
        .send()
        .map_err(|error| sys::error_report::chain(&error.without_url()))
}

/// Returns the body of an answer, up to a byte more than the limit.
pub(crate) fn read(response: Response, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = response.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| sys::error_report::chain(&error))?;
    Ok(bytes)
}

/// Returns true if a request with this answer is not to be repeated as it is.
pub(crate) fn is_final(status: StatusCode) -> bool {
    let is_temporary = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !is_temporary.contains(&status)
}

/// Returns the sentence about an answer.
pub(crate) fn refusal(response: Response) -> String {
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

/// Returns the answer to a part of a report.
pub(crate) fn answer(sent: Result<Response, String>) -> Answer {
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
