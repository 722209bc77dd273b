//! Signing in to the web page: with a token, or with a link that a user of this host was given.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::Extension;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Json, Response};
use config::web::SignInLink;
use serde::Deserialize;
use tracing::info;

use super::auth::{Auth, Caller, Peer};
use super::error::ApiError;
use super::rate_limit::RateLimiter;
pub(super) use web_server::answer::{own_path, see_other};

use super::web_sessions::{Identity, LINK_DURATION, cookie, origin};

/// The rate of attempts to sign in from one address, a second.
const ATTEMPTS_PER_SECOND_MAX: u32 = 1;

/// The parts that sign browsers in.
#[derive(Debug)]
pub(super) struct SignIn {
    auth: Arc<Auth>,
    attempts: RateLimiter,
    /// The address of the page; `None` without a network address.
    url: Option<String>,
    /// True if this server uses TLS.
    over_tls: bool,
}

/// A form with which a browser signs in.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Form {
    /// A token.
    #[serde(default)]
    pub(super) token: String,
    /// The code of a sign-in link.
    #[serde(default)]
    pub(super) code: String,
    /// The path of the page to show then.
    #[serde(default)]
    pub(super) next: String,
}

/// A refusal to sign in.
#[derive(Debug)]
pub(super) enum SignInRefusal {
    /// The token is unknown.
    Token,
    /// The link was used or is too old.
    Link,
    /// The request itself is refused.
    Request(ApiError),
}

impl From<ApiError> for SignInRefusal {
    fn from(error: ApiError) -> Self {
        Self::Request(error)
    }
}

impl SignIn {
    /// Returns the parts for a server at these addresses.
    pub(super) fn new(auth: Arc<Auth>, address: Option<SocketAddr>, over_tls: bool) -> Self {
        let hostname = nix::unistd::gethostname().unwrap_or_default();
        let hostname = hostname.to_string_lossy();
        Self {
            auth,
            attempts: RateLimiter::new(ATTEMPTS_PER_SECOND_MAX),
            url: address.map(|it| page_url(it, over_tls, &hostname)),
            over_tls,
        }
    }

    /// Returns the user to whom a valid sign-in link was given.
    pub(super) fn owner_of_link(&self, code: &str) -> Option<Identity> {
        self.auth.web_sessions.owner_of_link(code)
    }

    /// Opens a web session and returns the redirection with its cookie.
    pub(super) async fn sign_in(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        form: &Form,
    ) -> Result<Response, SignInRefusal> {
        if !origin::is_from_own_page(headers) {
            return Err(ApiError::foreign_page().into());
        }
        if let Peer::Remote(address) = peer {
            let taken = self.attempts.take(*address, Instant::now());
            taken.map_err(ApiError::too_many_requests)?;
        }
        let sessions = &self.auth.web_sessions;
        let owner = if form.code.is_empty() {
            let owner = self.auth.authenticate(form.token.trim()).await;
            owner.ok_or(SignInRefusal::Token)?
        } else {
            sessions.take_link(&form.code).ok_or(SignInRefusal::Link)?
        };
        let secret = sessions.open(owner.clone());
        let secret = secret.map_err(|error| ApiError::internal(&error))?;
        info!(by = owner.submitter(), "signed in to the web page");
        let over_tls = self.over_tls || origin::is_over_tls(headers);
        let mut response = see_other(own_path(&form.next));
        if let Some(cookie) = cookie::set(secret.as_str(), over_tls) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// Ends the web session of a request.
    pub(super) fn sign_out(&self, headers: &HeaderMap) -> Result<Response, ApiError> {
        if !origin::is_from_own_page(headers) {
            return Err(ApiError::foreign_page());
        }
        if let Some(session) = cookie::of_request(headers) {
            self.auth.web_sessions.close(session);
        }
        let mut response = see_other("/");
        let cookie = cookie::clear();
        response.headers_mut().insert(header::SET_COOKIE, cookie);
        Ok(response)
    }
}

/// Gives the caller a link that signs a browser in with the same rights.
pub(super) async fn create_link(
    Extension(caller): Extension<Caller>,
    Extension(sign_in): Extension<Arc<SignIn>>,
) -> Result<(StatusCode, Json<SignInLink>), ApiError> {
    let Some(url) = &sign_in.url else {
        return Err(ApiError::conflict(
            "the agent has no network address for the page; set http.listen, such as \
             \"127.0.0.1:8000\", and restart the agent",
        ));
    };
    let code = sign_in.auth.web_sessions.add_link(caller.identity);
    let code = code.map_err(|error| ApiError::internal(&error))?;
    let link = SignInLink {
        url: format!("{url}/login?code={}", code.as_str()),
        valid_seconds: LINK_DURATION.as_secs(),
    };
    Ok((StatusCode::CREATED, Json(link)))
}

/// Returns the address of the page of a server that listens at an address.
fn page_url(address: SocketAddr, over_tls: bool, hostname: &str) -> String {
    let (scheme, default_port) = if over_tls {
        ("https", 443)
    } else {
        ("http", 80)
    };
    let port = match address.port() {
        port if port == default_port => String::new(),
        port => format!(":{port}"),
    };
    let host = match address {
        _ if address.ip().is_unspecified() && !hostname.is_empty() => hostname.to_owned(),
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    format!("{scheme}://{host}{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_page_is_one_that_a_browser_can_open() {
        for (address, over_tls, expected) in [
            ("127.0.0.1:8000", false, "http://127.0.0.1:8000"),
            ("[::1]:80", false, "http://[::1]"),
            ("0.0.0.0:443", true, "https://build1"),
            ("[::]:8443", true, "https://build1:8443"),
        ] {
            let url = page_url(address.parse().unwrap(), over_tls, "build1");
            assert_eq!(url, expected);
        }
    }
}
