//! The failures of an object store.

use std::path::PathBuf;

/// A failure of an object store.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// There is no such object.
    #[error("there is no object {name}")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// An object is not the one that was written.
    #[error("object {name} is not the one that was stored: its size or its hash differs")]
    Differs {
        /// Its name.
        name: String,
    },
    /// The directory of objects cannot be used.
    #[error(
        "cannot use the directory {path} for objects; create it for the user of the coordinator"
    )]
    Directory {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: Box<object_store::Error>,
    },
    /// The store fails or refuses a request.
    #[error("{place} fails for {name}: {reason}")]
    Failed {
        /// The store.
        place: String,
        /// The object.
        name: String,
        /// The reason.
        reason: String,
    },
}

/// A failure to put an object.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] ObjectsError),
    /// The content was cut.
    #[error("the content of an object was cut: {0}")]
    Content(String),
}
