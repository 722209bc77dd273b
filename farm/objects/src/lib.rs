//! The objects of a farm: files by name in an object store, with their sizes and digests.
//!
//! The store is S3, or a directory for tests and small farms. An object is written whole or not at all, and
//! one that is read ends with an error unless it is the one that was written.

mod address;
mod connector;
mod content;
mod credentials;
mod error;
mod probe;
mod store;

pub use address::{Address, AddressError};
pub use content::{Content, Stored};
pub use credentials::{Credentials, CredentialsError};
pub use error::{ObjectsError, PutError};
pub use probe::probe;
pub use store::Objects;
