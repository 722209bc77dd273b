//! A service within the rights of one peer. All protocols use it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::access::{Access, Requests, Rights, UnknownToken, UnknownTuple};
use crate::forget::{Forget, ForgetError};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::policy::History;
use crate::service::{Import, Service, ServiceError};
use crate::store::{Filter, Row};
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// The time in which other exports must end. BitBake's clients give up after it.
const EXPORT_WAIT_MAX: Duration = Duration::from_secs(30);

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The identity for the log.
    pub identity: Identity,
    /// The granted rights.
    pub rights: Rights,
}

impl Peer {
    /// Creates a peer that may write.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            identity: Identity::new(name),
            rights: Rights::Write,
        }
    }
}

/// The answer to `get-pr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A value.
    Value(Value),
    /// The configured text for readers that request a tuple without a recorded value.
    Fallback(String),
}

impl Answer {
    /// Returns the text that is sent.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Value(value) => value.as_str(),
            Self::Fallback(text) => text,
        }
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The error of a request that was denied or has failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The peer may only read, and the tuple has no recorded value.
    #[error("{tuple} is not recorded, and this client may not write")]
    NotRecorded {
        /// The requested tuple.
        tuple: Tuple,
    },
    /// The server answers only queries.
    #[error("this server does not answer `{request}`, only queries about a package")]
    NotServed {
        /// The name of the request.
        request: &'static str,
    },
    /// The peer may not remove rows.
    #[error(
        "this client may not remove rows; present a token, or use the Unix socket of a server that \
         is neither read-only nor in lockdown"
    )]
    MayNotRemove,
    /// No row was removed.
    #[error(transparent)]
    Forget(#[from] Box<ForgetError>),
    /// The peer has presented a token that the server does not know.
    #[error(transparent)]
    UnknownToken(#[from] UnknownToken),
    /// Other exports did not end in time.
    #[error("too many exports at once; try again later")]
    Busy,
    /// The service failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// A service that grants one peer its rights.
#[derive(Debug, Clone)]
pub struct AuthorizedService {
    /// The service.
    pub service: Service,
    /// The access rules.
    pub access: Arc<Access>,
    /// The peer.
    pub peer: Peer,
    /// Notified when the peer requests that the server ends; `None` if peers may not end it.
    pub quit: Option<Arc<Notify>>,
    /// The permits for exports, which are large.
    pub exports: Arc<Semaphore>,
}

/// The rows of an export. Another export may have to wait until this is dropped, so it must be kept
/// until the rows are sent.
#[derive(Debug)]
pub struct Export {
    /// The rows.
    pub rows: Vec<Row>,
    /// The permit.
    pub permit: OwnedSemaphorePermit,
}

impl AuthorizedService {
    /// Returns the value of a tuple. Assigns a new one only to a peer that may write.
    pub async fn get_pr(&self, tuple: &Tuple, history: History) -> Result<Answer, RequestError> {
        self.metrics().get_pr.inc();
        if self.may_write() || self.service.is_read_only() {
            let value = self
                .service
                .get_pr_for(tuple, history, &self.peer.identity)
                .await?;
            return Ok(Answer::Value(value));
        }
        if let Some(value) = self.service.test_pr(tuple, history).await? {
            return Ok(Answer::Value(value));
        }
        self.metrics().refusals.inc();
        tracing::error!(client = %self.peer.identity, %tuple, "a reader requested an unknown tuple");
        match &self.access.unknown {
            UnknownTuple::Refuse => Err(RequestError::NotRecorded {
                tuple: tuple.clone(),
            }),
            UnknownTuple::Fallback(text) => Ok(Answer::Fallback(text.clone())),
        }
    }

    /// Grants the rights of a token.
    ///
    /// # Errors
    /// The token is unknown.
    pub fn present(&mut self, secret: &str) -> Result<(), RequestError> {
        let token = self.access.token(secret).inspect_err(|_| {
            self.metrics().refusals.inc();
        })?;
        let name = token.name();
        self.peer.rights = self.access.rights_of_trusted();
        self.peer.identity.token = Some(name);
        Ok(())
    }

    /// Records a value. Returns `None` if the service or this peer is read-only.
    pub async fn import_one(
        &self,
        tuple: &Tuple,
        value: &Value,
    ) -> Result<Option<Value>, RequestError> {
        self.import(tuple, value, Import::Always).await
    }

    /// Records a value unless a greater one is recorded for the tuple. Returns the greater one, or
    /// `None` if the service or this peer is read-only.
    pub async fn raise_one(
        &self,
        tuple: &Tuple,
        value: &Value,
    ) -> Result<Option<Value>, RequestError> {
        self.import(tuple, value, Import::UnlessGreater).await
    }

    async fn import(
        &self,
        tuple: &Tuple,
        value: &Value,
        import: Import,
    ) -> Result<Option<Value>, RequestError> {
        self.require_all_requests("import")?;
        self.metrics().imports.inc();
        if !self.may_write() {
            tracing::error!(client = %self.peer.identity, %tuple, "refused an import from a reader");
            return Ok(None);
        }
        let identity = &self.peer.identity;
        let imported = self.service.import_for(tuple, value, import, identity);
        Ok(imported.await?)
    }

    /// Removes rows of a package. Returns them.
    pub async fn forget(&self, request: &Forget) -> Result<Vec<Row>, RequestError> {
        self.require_all_requests("forget")?;
        if self.peer.rights < Rights::Remove || self.service.is_read_only() {
            tracing::error!(
                client = %self.peer.identity, package = %request.package,
                "refused to remove rows"
            );
            return Err(RequestError::MayNotRemove);
        }
        let removed = self
            .service
            .forget_for(request, &self.peer.identity)
            .await?
            .map_err(Box::new)?;
        tracing::warn!(
            client = %self.peer.identity, package = %request.package, rows = removed.len(),
            greatest = %request.greatest, "removed rows"
        );
        Ok(removed)
    }

    /// Returns the recorded value of a tuple.
    pub async fn test_pr(
        &self,
        tuple: &Tuple,
        history: History,
    ) -> Result<Option<Value>, RequestError> {
        self.metrics().look_ups.inc();
        Ok(self.service.test_pr(tuple, history).await?)
    }

    /// Returns the greatest value of a package.
    pub async fn max_package_pr(&self, package: &Package) -> Result<Option<Value>, RequestError> {
        self.metrics().look_ups.inc();
        Ok(self.service.max_package_pr(package).await?)
    }

    /// Returns the rows that match. Waits while other exports are sent.
    pub async fn export(&self, filter: Filter, history: History) -> Result<Export, RequestError> {
        self.require_all_requests("export")?;
        self.metrics().exports.inc();
        let permit = timeout(EXPORT_WAIT_MAX, Arc::clone(&self.exports).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(RequestError::Busy);
        };
        let rows = self.service.export(filter, history).await?;
        Ok(Export { rows, permit })
    }

    /// Returns true if this peer cannot get new values.
    pub fn is_read_only(&self) -> bool {
        self.service.is_read_only() || !self.may_write()
    }

    /// Returns the counters of the service.
    pub fn metrics(&self) -> &Metrics {
        self.service.metrics()
    }

    /// Refuses a request that is not a query if the server answers only queries.
    pub fn require_all_requests(&self, request: &'static str) -> Result<(), RequestError> {
        match self.access.requests {
            Requests::All => Ok(()),
            Requests::Queries => {
                self.metrics().refusals.inc();
                Err(RequestError::NotServed { request })
            }
        }
    }

    fn may_write(&self) -> bool {
        self.peer.rights >= Rights::Write
    }
}
