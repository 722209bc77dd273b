//! The desk where a peer asks: the service, within the peer's rights. All protocols go through it.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use tokio::sync::Notify;

use crate::access::{Access, Rights, Unknown};
use crate::policy::History;
use crate::service::{Service, ServiceError};
use crate::store::{Filter, Row};
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// How our log calls it: an address, or the guest on whose network it is.
    pub name: String,
    /// What it may do.
    pub rights: Rights,
}

impl Peer {
    /// A peer that may write.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            rights: Rights::Write,
        }
    }
}

/// What `get-pr` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A value.
    Value(Value),
    /// The word for readers that ask for what is not recorded.
    Word(String),
}

impl Answer {
    /// The text, as it is sent.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Value(value) => value.as_str(),
            Self::Word(word) => word,
        }
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why a peer is not served.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// It may only read, and there is nothing to read.
    #[error("{tuple} is not recorded, and this client may not write")]
    Unknown {
        /// What it asked for.
        tuple: Tuple,
    },
    /// The service failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// A service as one peer may use it.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The service.
    pub service: Service,
    /// The rules.
    pub access: Arc<Access>,
    /// Who asks.
    pub peer: Peer,
    /// Who is notified when the peer wants the server to end; `None`: peers cannot end it.
    pub quit: Option<Arc<Notify>>,
}

impl Desk {
    /// The value of a tuple; a reader is given no new one.
    pub async fn get_pr(&self, tuple: &Tuple, history: History) -> Result<Answer, DeskError> {
        self.service.metrics().get_pr.inc();
        if self.may_write() || self.service.is_read_only() {
            return Ok(Answer::Value(self.service.get_pr(tuple, history).await?));
        }
        if let Some(value) = self.service.test_pr(tuple, history).await? {
            return Ok(Answer::Value(value));
        }
        self.service.metrics().refusals.inc();
        tracing::error!(client = %self.peer.name, %tuple, "a reader asked for an unknown tuple");
        match &self.access.unknown {
            Unknown::Refuse => Err(DeskError::Unknown {
                tuple: tuple.clone(),
            }),
            Unknown::Answer(word) => Ok(Answer::Word(word.clone())),
        }
    }

    /// Records a value. `None` is a refusal: the service, or this peer, looks only.
    pub async fn import_one(
        &self,
        tuple: &Tuple,
        value: &Value,
    ) -> Result<Option<Value>, DeskError> {
        self.service.metrics().imports.inc();
        if !self.may_write() {
            tracing::error!(client = %self.peer.name, %tuple, "a reader tried to import");
            return Ok(None);
        }
        Ok(self.service.import_one(tuple, value).await?)
    }

    /// The recorded value of a tuple.
    pub async fn test_pr(
        &self,
        tuple: &Tuple,
        history: History,
    ) -> Result<Option<Value>, DeskError> {
        self.service.metrics().look_ups.inc();
        Ok(self.service.test_pr(tuple, history).await?)
    }

    /// The greatest value of a package.
    pub async fn max_package_pr(&self, package: &Package) -> Result<Option<Value>, DeskError> {
        self.service.metrics().look_ups.inc();
        Ok(self.service.max_package_pr(package).await?)
    }

    /// The rows that match.
    pub async fn export(&self, filter: Filter, history: History) -> Result<Vec<Row>, DeskError> {
        self.service.metrics().exports.inc();
        Ok(self.service.export(filter, history).await?)
    }

    /// Whether this peer is given no values.
    pub fn is_read_only(&self) -> bool {
        self.service.is_read_only() || !self.may_write()
    }

    fn may_write(&self) -> bool {
        self.peer.rights == Rights::Write
    }
}
