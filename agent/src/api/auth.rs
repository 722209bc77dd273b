//! Authentication and authorization. At the administration socket, root may do everything
//! and the members of the socket's group may submit; over TCP a token's scope decides. A browser
//! may have a web session instead of a token.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::{HeaderMap, Method, header};
use config::builds::{self, Submitter};
use config::task::Digest;
use config::tokens::{self, CreatedToken, NewToken, Scope, Token, TokenName, TokenStatus};
use jiff::Timestamp;
use parking_lot::Mutex;
use sys::blocking::blocking;
use sys::file::digest_of;
use token_file::{Mode, TokenFile, TokenFileError};

use super::error::ApiError;
use super::reload::Reloadable;
use super::web_sessions::{Identity, SessionKey, WebSessions, cookie, origin};

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
    /// The web session of the request; `None` without one.
    session: Option<SessionKey>,
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
    file: TokenFile,
    last_uses: Mutex<HashMap<Digest, Timestamp>>,
    /// The web sessions and sign-in links.
    pub(super) web_sessions: WebSessions,
}

impl Auth {
    /// Reads the file of tokens for the first time.
    pub(super) fn new(token_file: PathBuf) -> io::Result<Self> {
        Ok(Self {
            tokens: Arc::new(Reloadable::new(vec![token_file.clone()], read_tokens)?),
            file: TokenFile::new(token_file),
            last_uses: Mutex::default(),
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
            self.note_use(&token);
            return self.caller(&token).await;
        }
        let Some(secret) = cookie::of_request(headers) else {
            return Ok(None);
        };
        if origin::needs_own_page(method, headers) && !origin::is_from_own_page(headers) {
            return Err(ApiError::foreign_page());
        }
        let Some(owner) = self.web_sessions.find(secret) else {
            return Ok(None);
        };
        let session = Some(SessionKey::of(secret));
        let caller = self.caller(&owner).await?;
        if caller.is_some() {
            self.note_use(&owner);
        }
        Ok(caller.map(|it| Caller { session, ..it }))
    }

    /// Returns true if a caller still has a scope, and its web session is open. This does not count
    /// as a use of the session.
    pub(super) async fn still_has(&self, caller: &Caller, needed: Scope) -> bool {
        let session = caller.session.as_ref();
        if session.is_some_and(|it| !self.web_sessions.is_open(it)) {
            return false;
        }
        let caller = self.caller(&caller.identity).await.ok().flatten();
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
            session: None,
        }))
    }

    /// Returns the tokens with their last uses.
    pub(super) async fn tokens(&self) -> Vec<TokenStatus> {
        let tokens = self.tokens.get().await;
        let last_uses = self.last_uses.lock();
        let tokens = tokens.iter().map(|token| TokenStatus {
            name: token.name.clone(),
            scope: token.scope,
            created: token.created,
            last_used: last_uses.get(&token.sha256).copied(),
        });
        tokens.collect()
    }

    /// Adds a token to the file.
    pub(super) async fn add_token(&self, new: NewToken) -> Result<CreatedToken, TokenFileError> {
        let (file, now) = (self.file.clone(), Timestamp::now());
        blocking(move || file.add(new, now, Mode::Change)).await
    }

    /// Removes a token from the file, which ends its web sessions and connections.
    pub(super) async fn remove_token(
        &self,
        name: &TokenName,
        mode: Mode,
    ) -> Result<(), TokenFileError> {
        let (file, removed) = (self.file.clone(), name.clone());
        blocking(move || file.remove(&removed, mode)).await?;
        if mode == Mode::Change {
            let tokens = self.tokens.get().await;
            let is_known = |hash: &Digest| tokens.iter().any(|token| token.sha256 == *hash);
            self.last_uses.lock().retain(|hash, _| is_known(hash));
            self.web_sessions.look_again();
        }
        Ok(())
    }

    /// Returns the number of web sessions of a token.
    pub(super) fn sessions_of(&self, name: &TokenName) -> usize {
        self.web_sessions.count(
            |owner| matches!(owner, Identity::Token { name: of_token, .. } if of_token == name),
        )
    }

    /// Notes the use of a token. Only known ones are noted, so that there are not more than tokens.
    fn note_use(&self, identity: &Identity) {
        if let Identity::Token { sha256, .. } = identity {
            let now = Timestamp::now();
            self.last_uses.lock().insert(sha256.clone(), now);
        }
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

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

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
