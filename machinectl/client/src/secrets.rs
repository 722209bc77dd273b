//! Secrets.

use config::SecretName;
use config::secrets::{NewSecret, Secret};

use crate::{Client, Created, Result};

impl Client {
    /// Returns the secrets that the caller may see, without their values.
    pub fn secrets(&self) -> Result<Vec<Secret>> {
        self.get("secrets")
    }

    /// Adds or replaces a secret.
    pub fn add_secret(&self, name: &SecretName, secret: &NewSecret) -> Result<Created<Secret>> {
        self.put(&format!("secrets/{name}"), secret)
    }

    /// Deletes a secret.
    pub fn delete_secret(&self, name: &SecretName) -> Result<()> {
        self.delete(&format!("secrets/{name}"))
    }
}
