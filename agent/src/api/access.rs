//! Who asks, and what they may do: root everything at the socket, the members of the
//! socket's group and the bearers of tokens as much as their scope allows.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Extension, MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use config::builds::{self, Submitter};
use config::tokens::{self, Scope, Token};
use sys::file::Hasher;
use tracing::info;

use super::problem::Refused;
use super::rates::Rates;
use super::reread::Reread;

/// Who is connected.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// A user of this host, at the socket: only root and its group can open it.
    Local {
        /// The number of the user.
        user: u32,
        /// The user's name.
        name: String,
    },
    /// Somebody on the network.
    Remote(IpAddr),
}

/// Who asks for something that is not public.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// By which name.
    pub(super) submitter: Submitter,
    /// How much they may do.
    pub(super) scope: Scope,
}

impl Caller {
    /// In whose name a build is asked for.
    pub(super) fn submits(&self, request: &builds::Request) -> Result<Submitter, Refused> {
        let Some(other) = &request.submitter else {
            return Ok(self.submitter.clone());
        };
        if self.scope < Scope::Admin && *other != self.submitter {
            return Err(Refused::forbidden(format!(
                "{} may not ask for builds in the name of {other}",
                self.submitter
            )));
        }
        Ok(other.clone())
    }
}

/// What decides who may do what.
#[derive(Debug)]
pub(super) struct Gate {
    tokens: Reread<Vec<Token>>,
    rates: Rates,
}

impl Gate {
    /// Reads the tokens for the first time.
    pub(super) fn new(tokens: PathBuf, requests_per_second_max: u32) -> io::Result<Self> {
        Ok(Self {
            tokens: Reread::new(vec![tokens], read_tokens)?,
            rates: Rates::new(requests_per_second_max),
        })
    }

    fn bearer(&self, secret: &str) -> Option<(String, Scope)> {
        let mut hash = Hasher::default();
        hash.update(secret.as_bytes());
        let hash = hash.finish();
        let tokens = self.tokens.get();
        // All are compared, whichever it is.
        let found = tokens.iter().fold(None, |found, token| {
            let is_it = same(token.sha256.as_str(), hash.as_str());
            if is_it { Some(token) } else { found }
        });
        found.map(|token| (format!("token:{}", token.name), token.scope))
    }
}

/// Takes as long for equal texts as for others of their length.
fn same(a: &str, b: &str) -> bool {
    let differences = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0 && a.len() == b.len()
}

/// No file means no tokens.
fn read_tokens(paths: &[PathBuf]) -> io::Result<Vec<Token>> {
    let mut all = Vec::new();
    for path in paths {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        let found = tokens::parse(&text);
        all.extend(found.map_err(|fault| {
            io::Error::other(format!("the file of tokens {}: {fault}", path.display()))
        })?);
    }
    Ok(all)
}

/// What a submitter may do besides looking; whatever is not here changes the host.
const SUBMITTERS: [(Method, &str); 6] = [
    (Method::PUT, "/api/v1/sources/{sha256}"),
    (Method::POST, "/api/v1/builds"),
    (Method::POST, "/api/v1/builds/{id}/cancel"),
    (Method::POST, "/api/v1/schedules"),
    (Method::DELETE, "/api/v1/schedules/{name}"),
    (Method::POST, "/api/v1/schedules/{name}/run"),
];

/// What somebody must be allowed for a request.
pub(super) fn needed(method: &Method, path: &str) -> Scope {
    let submits = |(known, route): &(Method, &str)| known == method && *route == path;
    match *method {
        Method::GET | Method::HEAD => Scope::Read,
        _ if SUBMITTERS.iter().any(submits) => Scope::Submit,
        _ => Scope::Admin,
    }
}

/// Lets a request through that its client may make at this time.
pub(super) async fn pace(
    State(gate): State<Arc<Gate>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if let Peer::Remote(address) = peer
        && let Err(wait) = gate.rates.take(address, Instant::now())
    {
        return Refused::too_often(wait).into_response();
    }
    next.run(request).await
}

/// Lets a request through that its sender may make at all.
pub(super) async fn admit(
    State(gate): State<Arc<Gate>>,
    Extension(peer): Extension<Peer>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Result<Response, Refused> {
    let (name, scope) = match peer {
        Peer::Local { user: 0, name } => (name, Scope::Admin),
        Peer::Local { name, .. } => (name, Scope::Submit),
        Peer::Remote(_) => {
            let secret = secret(request.headers()).ok_or_else(Refused::nobody)?;
            gate.bearer(secret).ok_or_else(Refused::unknown_token)?
        }
    };
    let submitter: Submitter = name.parse().map_err(|error| Refused::fault(&error))?;
    let needed = needed(request.method(), path.as_str());
    if scope < needed {
        return Err(Refused::forbidden(format!(
            "{submitter} may {scope} here, and this needs {needed}"
        )));
    }
    if needed > Scope::Read {
        info!(by = %submitter, "{} {}", request.method(), request.uri().path());
    }
    request.extensions_mut().insert(Caller { submitter, scope });
    Ok(next.run(request).await)
}

fn secret(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (kind, secret) = value.split_once(' ')?;
    kind.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_thought_of_is_for_administrators() {
        for (method, path, scope) in [
            (Method::GET, "/api/v1/anything", Scope::Read),
            (Method::HEAD, "/api/v1/anything", Scope::Read),
            (Method::POST, "/api/v1/builds", Scope::Submit),
            (Method::DELETE, "/api/v1/builds/{id}", Scope::Admin),
            (Method::POST, "/api/v1/anything", Scope::Admin),
        ] {
            assert_eq!(needed(&method, path), scope, "{method} {path}");
        }
    }

    #[test]
    fn tokens_come_and_go_with_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let gate = Gate::new(path.clone(), 0).unwrap();
        assert_eq!(gate.bearer("abc"), None);
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let line = format!("robot submit {hash}\n");
        sys::file::replace(&path, line.as_bytes()).unwrap();
        assert_eq!(
            gate.bearer("abc"),
            Some(("token:robot".to_owned(), Scope::Submit))
        );
        assert_eq!(gate.bearer("abd"), None);
        sys::file::replace(&path, b"nonsense").unwrap();
        assert!(gate.bearer("abc").is_some(), "a fault changes nothing");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(gate.bearer("abc"), None);
    }
}
