//! The end of long answers and connections whose caller has lost its rights: its token was removed or
//! has another scope, or its web session has ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use config::tokens::Scope;
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use super::auth::{Auth, Caller};

/// The interval at which rights are looked up.
const INTERVAL: Duration = Duration::from_secs(3);

/// The right of a caller to one long connection.
#[derive(Debug, Clone)]
pub(super) struct Permission {
    auth: Arc<Auth>,
    caller: Caller,
    needed: Scope,
}

impl Permission {
    /// Returns the right of a caller to a connection that needs a scope.
    pub(super) fn new(auth: Arc<Auth>, caller: Caller, needed: Scope) -> Self {
        Self {
            auth,
            caller,
            needed,
        }
    }

    /// Waits until the caller has lost the right.
    pub(super) async fn lost(self) {
        while self.auth.still_has(&self.caller, self.needed).await {
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = self.auth.web_sessions.looks() => {}
            }
        }
    }

    /// Returns a response whose content is cut when the caller loses the right. An answer of known
    /// size is short and stays as it is.
    pub(super) fn limit(self, response: Response) -> Response {
        if response.body().size_hint().exact().is_some() {
            return response;
        }
        response.map(|body| {
            let state = (body.into_data_stream(), Box::pin(self.lost()));
            Body::from_stream(stream::unfold(
                Some(state),
                async |state| -> Option<(io::Result<_>, _)> {
                    let (mut data, mut lost) = state?;
                    tokio::select! {
                        piece = data.next() => {
                            let piece = piece?.map_err(io::Error::other);
                            Some((piece, Some((data, lost))))
                        }
                        () = &mut lost => {
                            let error = io::Error::from(io::ErrorKind::PermissionDenied);
                            Some((Err(error), None))
                        }
                    }
                },
            ))
        })
    }
}
