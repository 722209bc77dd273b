//! Authentication and authorization. At the administration socket, root may do everything
//! and the members of the socket's group may submit; over TCP a token's scope decides. A browser
//! may have a web session instead of a token.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Extension, MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use config::builds::{self, Submitter};
use config::tokens::{self, Scope, Token};
use sys::file::digest_of;
use tracing::info;

use super::error::ApiError;
use super::reload::Reloadable;
use super::web_sessions::{Identity, WebSessions, cookie, origin};

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// A user of this host, connected to the administration socket.
    Local {
        /// The user ID.
        user: u32,
        /// The user's name, or the ID of a user without a name.
        name: String,
    },
    /// A client on the network.
    Remote(IpAddr),
}

/// The authenticated sender of a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The name under which the caller submits.
    pub(super) submitter: Submitter,
    /// The permissions.
    pub(super) scope: Scope,
    /// The user or token.
    pub(super) identity: Identity,
}

impl Caller {
    /// Returns the submitter of a requested build.
    ///
    /// # Errors
    /// The request names another submitter, and the caller is not an administrator.
    pub(super) fn submitter_of(&self, request: &builds::Request) -> Result<Submitter, ApiError> {
        let Some(other) = &request.submitter else {
            return Ok(self.submitter.clone());
        };
        if self.scope < Scope::Admin && *other != self.submitter {
            return Err(ApiError::forbidden(format!(
                "{} may not submit builds in the name of {other}",
                self.submitter
            )));
        }
        Ok(other.clone())
    }
}

/// The tokens of the host, and the web sessions.
#[derive(Debug)]
pub(super) struct Auth {
    tokens: Arc<Reloadable<Vec<Token>>>,
    /// The web sessions and sign-in links.
    pub(super) web_sessions: WebSessions,
}

impl Auth {
    /// Reads the file of tokens for the first time.
    pub(super) fn new(token_file: PathBuf) -> io::Result<Self> {
        Ok(Self {
            tokens: Arc::new(Reloadable::new(vec![token_file], read_tokens)?),
            web_sessions: WebSessions::default(),
        })
    }

    /// Returns the sender of a request; `None` for one without a token or web session.
    ///
    /// # Errors
    /// The token is unknown, the web session has ended, or a page of another site uses it.
    pub(super) async fn identify(
        &self,
        peer: &Peer,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, ApiError> {
        if let Peer::Local { user, name } = peer {
            let (user, name) = (*user, name.clone());
            return self.caller(&Identity::Local { user, name }).await;
        }
        if let Some(secret) = bearer_token(headers) {
            let token = self.authenticate(secret).await;
            let token = token.ok_or_else(ApiError::invalid_token)?;
            return self.caller(&token).await;
        }
        let Some(secret) = cookie::of_request(headers) else {
            return Ok(None);
        };
        if origin::needs_own_page(method, headers) && !origin::is_from_own_page(headers) {
            return Err(ApiError::foreign_page());
        }
        match self.web_sessions.find(secret) {
            Some(owner) => self.caller(&owner).await,
            None => Ok(None),
        }
    }

    /// Returns true if the web session of a request, if it has one, is still open and still has a
    /// scope. A long connection asks from time to time.
    pub(super) async fn is_still_allowed(&self, session: Option<&str>, needed: Scope) -> bool {
        let Some(session) = session else { return true };
        let Some(owner) = self.web_sessions.find(session) else {
            return false;
        };
        let caller = self.caller(&owner).await.ok().flatten();
        caller.is_some_and(|it| it.scope >= needed)
    }

    /// Returns a caller with the rights that it has at this moment; `None` if its token was removed.
    pub(super) async fn caller(&self, identity: &Identity) -> Result<Option<Caller>, ApiError> {
        let scope = match identity {
            Identity::Local { .. } => identity.scope(&[]),
            Identity::Token { .. } => identity.scope(&self.tokens.get().await),
        };
        let Some(scope) = scope else {
            return Ok(None);
        };
        let submitter = identity.submitter().parse();
        let submitter = submitter.map_err(|error| ApiError::internal(&error))?;
        Ok(Some(Caller {
            submitter,
            scope,
            identity: identity.clone(),
        }))
    }

    /// Returns the names and scopes of the tokens.
    pub(super) async fn tokens(&self) -> Vec<(String, Scope)> {
        let tokens = self.tokens.get().await;
        let tokens = tokens.iter().map(|it| (it.name.to_string(), it.scope));
        tokens.collect()
    }

    /// Returns the bearer of a token; `None` for an unknown one.
    pub(super) async fn authenticate(&self, secret: &str) -> Option<Identity> {
        let hash = digest_of(secret.as_bytes());
        let tokens = self.tokens.get().await;
        // All hashes are compared, so that the time does not depend on the token.
        let found = tokens.iter().fold(None, |found, token| {
            let is_equal = constant_time_eq(token.sha256.as_str(), hash.as_str());
            if is_equal { Some(token) } else { found }
        });
        found.map(|token| Identity::Token {
            name: token.name.clone(),
            sha256: token.sha256.clone(),
        })
    }
}

/// Compares two texts of equal length in a time that does not depend on their content.
fn constant_time_eq(a: &str, b: &str) -> bool {
    let differences = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0 && a.len() == b.len()
}

/// Reads the files of tokens. A missing file has no tokens.
fn read_tokens(paths: &[PathBuf]) -> io::Result<Vec<Token>> {
    let mut all = Vec::new();
    for path in paths {
        let text = match sys::trusted::read_text(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        let found = tokens::parse(&text);
        all.extend(found.map_err(|error| {
            io::Error::other(format!("cannot use {}: {error}", path.display()))
        })?);
    }
    Ok(all)
}

/// The routes that change something and need only [`Scope::Submit`].
const SUBMIT_ROUTES: [(Method, &str); 13] = [
    (Method::PUT, "/api/v1/sources/{sha256}"),
    (Method::POST, "/api/v1/builds"),
    (Method::POST, "/api/v1/builds/{id}/cancel"),
    // An administrator or the submitter of the build.
    (Method::POST, "/api/v1/builds/{id}/exec"),
    (Method::POST, "/api/v1/builds/{id}/stop"),
    (Method::POST, "/api/v1/schedules"),
    (Method::DELETE, "/api/v1/schedules/{name}"),
    (Method::POST, "/api/v1/schedules/{name}/run"),
    // An administrator or the owner of the project.
    (Method::PUT, "/api/v1/projects/{name}"),
    (Method::DELETE, "/api/v1/projects/{name}"),
    (Method::POST, "/api/v1/projects/{name}/builds"),
    (Method::POST, "/api/v1/projects/{name}/commits"),
    // For the rights of the caller.
    (Method::POST, "/api/v1/sign-in-links"),
];

/// Returns the scope that a route needs; [`Scope::Admin`] unless it is known to need less.
pub(super) fn required_scope(method: &Method, path: &str) -> Scope {
    let is_this = |(known, route): &(Method, &str)| known == method && *route == path;
    match *method {
        Method::GET | Method::HEAD => Scope::Read,
        _ if SUBMIT_ROUTES.iter().any(is_this) => Scope::Submit,
        _ => Scope::Admin,
    }
}

/// Authenticates the sender of a request, refuses one without the scope that the route needs,
/// and adds the [`Caller`] to the request.
pub(super) async fn authorize(
    State(auth): State<Arc<Auth>>,
    Extension(peer): Extension<Peer>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let caller = auth.identify(&peer, request.method(), request.headers());
    let caller = caller.await?;
    let caller = caller.ok_or_else(ApiError::missing_token)?;
    let Caller {
        submitter, scope, ..
    } = &caller;
    let required = required_scope(request.method(), path.as_str());
    if *scope < required {
        return Err(ApiError::forbidden(format!(
            "this request needs the scope {required}; {submitter} has {scope}"
        )));
    }
    if required > Scope::Read {
        let (method, path) = (request.method(), request.uri().path());
        info!(by = %submitter, %method, path, "request authorized");
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlisted_route_that_changes_something_needs_an_administrator() {
        for (method, path, scope) in [
            (Method::GET, "/api/v1/anything", Scope::Read),
            (Method::HEAD, "/api/v1/anything", Scope::Read),
            (Method::POST, "/api/v1/builds", Scope::Submit),
            (Method::DELETE, "/api/v1/builds/{id}", Scope::Admin),
            (Method::POST, "/api/v1/anything", Scope::Admin),
        ] {
            assert_eq!(required_scope(&method, path), scope, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn tokens_follow_the_content_of_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let auth = Auth::new(path.clone()).unwrap();
        assert_eq!(auth.authenticate("abc").await, None);
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let line = format!("robot submit {hash}\n");
        sys::file::replace(&path, line.as_bytes()).unwrap();
        let owner = auth.authenticate("abc").await.unwrap();
        let caller = auth.caller(&owner).await.unwrap().unwrap();
        assert_eq!(caller.submitter.to_string(), "token:robot");
        assert_eq!(caller.scope, Scope::Submit);
        assert_eq!(auth.authenticate("abd").await, None);
        sys::file::replace(&path, b"nonsense").unwrap();
        assert!(
            auth.authenticate("abc").await.is_some(),
            "an unusable file changes nothing"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(auth.authenticate("abc").await, None);
        assert!(auth.caller(&owner).await.unwrap().is_none());
    }
}
