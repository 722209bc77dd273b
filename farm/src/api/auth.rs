//! The clients and their rights: a token of the database, or the one of a file.

use std::time::Instant;

use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use config::tokens::Scope;
use tracing::warn;

use super::{Refusal, Service, bearer};

/// The name of the client with the token of a file.
const FILE_CLIENT: &str = "client";

/// A client that may do what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    /// The name of its token.
    pub(super) name: String,
    /// Its rights.
    pub(super) scope: Scope,
}

/// Returns the client of a request that needs some rights.
pub(super) async fn authorize(
    service: &Service,
    headers: &HeaderMap,
    needed: Scope,
) -> Result<Client, Refusal> {
    let client = authenticate(service, bearer(headers)?).await?;
    let client = client.ok_or_else(|| {
        let message = "the token is unknown or revoked; \
                       `buildhost-farm token create NAME` makes another one";
        Refusal(StatusCode::FORBIDDEN, message.to_owned())
    })?;
    if client.scope < needed {
        let Client { name, scope } = client;
        let message = format!("token {name} has the scope {scope}, and this needs {needed}");
        return Err(Refusal(StatusCode::FORBIDDEN, message));
    }
    Ok(client)
}

/// Returns the client of a secret's hash.
pub(super) async fn authenticate(
    service: &Service,
    hash: [u8; 32],
) -> Result<Option<Client>, Refusal> {
    // Hashes are compared, so that the time of the comparison tells nothing about the token.
    if service.client_token.is(hash) {
        return Ok(Some(Client {
            name: FILE_CLIENT.to_owned(),
            scope: Scope::Admin,
        }));
    }
    Refusal::check_attempt(service, &hash)?;
    match service.coordinator.store().client(hash).await {
        Ok(found) => Ok(found
            .inspect(|_| service.attempts.succeeded(hash, Instant::now()))
            .map(|(name, scope)| Client {
                name: name.to_string(),
                scope,
            })),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            warn!(error, "cannot read the tokens of clients");
            Err(Refusal::unavailable())
        }
    }
}
