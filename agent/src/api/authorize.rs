//! The check of the rights that a route of the API needs.

use std::sync::Arc;

use axum::extract::{Extension, MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use config::tokens::Scope;
use tracing::info;

use super::auth::{Auth, Caller, Peer};
use super::error::ApiError;
use super::permission::Permission;

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
        Method::GET | Method::HEAD if path == "/api/v1/tokens" => Scope::Admin,
        Method::GET | Method::HEAD => Scope::Read,
        _ if SUBMIT_ROUTES.iter().any(is_this) => Scope::Submit,
        _ => Scope::Admin,
    }
}

/// Authenticates the sender of a request, refuses one without the scope that the route needs,
/// and adds the [`Caller`] and its [`Permission`] to the request.
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
    request.extensions_mut().insert(caller.clone());
    let permission = Permission::new(auth, caller, required);
    request.extensions_mut().insert(permission.clone());
    let response = next.run(request).await;
    Ok(permission.limit(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlisted_route_that_changes_something_needs_an_administrator() {
        for (method, path, scope) in [
            (Method::GET, "/api/v1/anything", Scope::Read),
            (Method::HEAD, "/api/v1/anything", Scope::Read),
            (Method::HEAD, "/api/v1/tokens", Scope::Admin),
            (Method::POST, "/api/v1/builds", Scope::Submit),
            (Method::DELETE, "/api/v1/builds/{id}", Scope::Admin),
            (Method::POST, "/api/v1/anything", Scope::Admin),
        ] {
            assert_eq!(required_scope(&method, path), scope, "{method} {path}");
        }
    }
}
