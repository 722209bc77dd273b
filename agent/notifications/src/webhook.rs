//! Webhooks: one request with JSON, signed, with limits of time and size, and without redirections,
//! which could send the content elsewhere.

use std::io::Read;
use std::path::Path;

use config::notify::{Notice, ToldBuild};
use config::settings::NotifyRules;
use jiff::Timestamp;
use reqwest_tls::StatusCode;
use reqwest_tls::blocking::{Client, Response};
use reqwest_tls::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::secret::Secret;
use crate::{Delivery, Site};

const USER_AGENT: &str = concat!("buildhost/", env!("CARGO_PKG_VERSION"));
/// The largest part of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 4096;
/// The largest part of an answer that a message shows.
const SHOWN_MAX: usize = 200;

/// Posts a notification once. Blocks.
pub(crate) fn post<B: ToldBuild>(
    rules: &NotifyRules,
    site: Site<'_>,
    url: &str,
    secret: Option<&Path>,
    id: &str,
    notice: &Notice<B>,
) -> Delivery {
    let secret = match secret.map(Secret::read).transpose() {
        Ok(secret) => secret,
        Err(error) => return Delivery::Failed(sys::error_report::chain(&error)),
    };
    let body = body(site, rules.link.as_deref(), notice).to_string();
    let seconds = Timestamp::now().as_second();
    // A client is made for each request, which are rare: its threads end with it.
    let client = Client::builder()
        .user_agent(USER_AGENT)
        .timeout(rules.request_max)
        .redirect(reqwest_tls::redirect::Policy::none())
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return Delivery::Failed(sys::error_report::chain(&error)),
    };
    let mut request = client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds);
    if let Some(secret) = secret {
        request = request.header(
            "webhook-signature",
            secret.sign(id, seconds, body.as_bytes()),
        );
    }
    match request.body(body).send() {
        Ok(response) => answer(response),
        // The address may have a password; the error shows none.
        Err(error) => Delivery::Failed(sys::error_report::chain(&error.without_url())),
    }
}

/// Returns the body of a request.
fn body<B: ToldBuild>(site: Site<'_>, link: Option<&str>, notice: &Notice<B>) -> Value {
    let mut body = json!(notice);
    body["data"][site.word()] = json!(site.name());
    if let (Some(link), Some(build)) = (link, &notice.data.build) {
        body["data"]["link"] = json!(format!("{link}{}", build.id()));
    }
    body
}

fn answer(response: Response) -> Delivery {
    let status = response.status();
    if status.is_success() {
        return Delivery::Delivered(status.to_string());
    }
    if status.is_redirection() {
        return Delivery::Failed(format!(
            "it answers with a redirection ({status}), which is not followed: set its final address"
        ));
    }
    let text = shown(response);
    let text = format!("it answers with status {status}{text}");
    if status == StatusCode::GONE {
        Delivery::Gone(text)
    } else {
        Delivery::Failed(text)
    }
}

/// Returns the beginning of an answer for a message.
fn shown(response: Response) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is not shown.
    let _ = response.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.truncate(text.floor_char_boundary(SHOWN_MAX));
    match config::printable(&text).to_string() {
        text if text.is_empty() => text,
        text => format!(": {text}"),
    }
}
