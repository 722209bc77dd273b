//! The delivery of notifications of hosts and farms: signed webhooks and mail, and the decision when a problem
//! is told. Nothing here knows the records; a delivery is one attempt.

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
pub mod watch;
mod webhook;

use std::time::Duration;

use config::notify::{Notice, NotifyTest, Settlement, ToldBuild};
use config::settings::{NotifyRules, Recipient};
use jiff::Timestamp;

/// The sender of notifications, with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site<'s> {
    /// A host.
    Host(&'s str),
    /// A farm.
    Farm(&'s str),
}

impl<'s> Site<'s> {
    /// Returns the name.
    pub fn name(self) -> &'s str {
        match self {
            Self::Host(name) | Self::Farm(name) => name,
        }
    }

    /// Returns the word for the kind of sender.
    fn word(self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Farm(_) => "farm",
        }
    }
}

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
pub fn deliver<B: ToldBuild>(
    rules: &NotifyRules,
    site: Site<'_>,
    id: &str,
    notice: &Notice<B>,
    errors: &[String],
) -> Delivery {
    match &rules.recipient {
        Recipient::Webhook { url, secret } => {
            webhook::post(rules, site, url, secret.as_deref(), id, notice)
        }
        Recipient::Mail { to, from } => {
            let sender = mail::Sender {
                site,
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

/// Returns the end of the attempts after one at `now` with this result, for a notification of the time
/// `created`; or the failure if there is another attempt.
///
/// # Errors
/// The failure, if there is another attempt.
pub fn settlement(
    rules: &NotifyRules,
    created: Timestamp,
    delivery: Delivery,
    now: Timestamp,
) -> Result<Settlement, String> {
    let age = now.duration_since(created);
    let is_old = Duration::try_from(age).is_ok_and(|age| age >= rules.give_up);
    match delivery {
        Delivery::Delivered(_) => Ok(Settlement::Delivered),
        Delivery::Gone(reason) => Ok(Settlement::GivenUp(reason)),
        Delivery::Failed(failure) if is_old => Ok(Settlement::GivenUp(failure)),
        Delivery::Failed(failure) => Err(failure),
    }
}

impl From<Delivery> for NotifyTest {
    fn from(delivery: Delivery) -> Self {
        let (delivered, answer) = match delivery {
            Delivery::Delivered(answer) => (true, answer),
            Delivery::Gone(failure) | Delivery::Failed(failure) => (false, failure),
        };
        Self { delivered, answer }
    }
}

/// Returns the reason for which no notification of a rule can be delivered, as far as that is known without an
/// attempt.
pub fn obstacle(rules: &NotifyRules) -> Option<String> {
    match &rules.recipient {
        Recipient::Webhook { secret, .. } => {
            let read = secret::Secret::read(secret.as_deref()?);
            read.err().map(|error| sys::error_report::chain(&error))
        }
        Recipient::Mail { .. } => sendmail::program().err(),
    }
}
