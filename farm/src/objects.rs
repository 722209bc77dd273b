//! The object store of the settings, with its credentials.

use std::path::PathBuf;

use farm_objects::{Address, Credentials, CredentialsError, Objects, ObjectsError};

use crate::settings::ObjectsSettings;

/// A reason not to open the object store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file with the credentials cannot be read.
    #[error("cannot read the credentials of the object store in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file has no credentials.
    #[error(
        "{path} has no credentials for the object store; it is a credentials file of AWS, with \
         `aws_access_key_id` and `aws_secret_access_key`"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: CredentialsError,
    },
    /// There are no credentials.
    #[error(
        "the object store needs credentials: set `objects.credentials` to a file, or \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    )]
    Environment(#[source] CredentialsError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] ObjectsError),
}

/// Opens the object store of the settings. A bucket is not asked yet.
///
/// # Errors
/// There are no credentials, or the store cannot be used.
pub fn open(settings: &ObjectsSettings) -> Result<Objects, OpenError> {
    let credentials = match (&settings.address, &settings.credentials) {
        (Address::Directory(_), _) => None,
        (Address::Bucket { .. }, Some(path)) => {
            let path = path.clone();
            let text = match sys::trusted::read_text(&path) {
                Ok(text) => text,
                Err(source) => return Err(OpenError::File { path, source }),
            };
            let parsed = Credentials::parse(&text);
            Some(parsed.map_err(|source| OpenError::Content { path, source })?)
        }
        (Address::Bucket { .. }, None) => {
            let found = Credentials::from_variables(|name| std::env::var(name).ok());
            Some(found.map_err(OpenError::Environment)?)
        }
    };
    let (address, endpoint) = (settings.address.clone(), settings.endpoint.as_deref());
    let opened = Objects::open(address, endpoint, &settings.region, credentials.as_ref());
    Ok(opened?)
}
