//! The delivery of notifications: signed webhooks and mail. Nothing here knows the records or decides
//! about repetition; a delivery is one attempt.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read and write files that they have made"
    )
)]

pub mod mail;
pub mod secret;
mod sendmail;
mod webhook;

use config::notify::Notice;
use config::settings::{NotifyRules, Recipient};

/// The answer to an attempt to deliver a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The recipient has it.
    Delivered(String),
    /// The recipient wants no notifications any more.
    Gone(String),
    /// The attempt failed and may be repeated.
    Failed(String),
}

/// Delivers a notification once. `errors` are the first lines with errors in the build's log. Blocks.
pub fn deliver(
    rules: &NotifyRules,
    host: &str,
    id: &str,
    notice: &Notice,
    errors: &[String],
) -> Delivery {
    match &rules.recipient {
        Recipient::Webhook { url, secret } => {
            webhook::post(rules, host, url, secret.as_deref(), id, notice)
        }
        Recipient::Mail { to, from } => {
            let sender = mail::Sender {
                host,
                from: from.as_deref(),
                link: rules.link.as_deref(),
            };
            sendmail::send(
                &mail::message(&sender, to, id, notice, errors),
                rules.request_max,
            )
        }
    }
}
