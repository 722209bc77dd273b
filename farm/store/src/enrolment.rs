//! Enrolment: a single-use token becomes the key of one host. The database has only hashes of both.

use std::time::Instant;

use farm_core::HostId;

use crate::{Store, StoreError, rows, sql};

/// The SHA-256 of a token or a key.
pub type Secret = [u8; 32];

impl Store {
    /// Permits the host of this name to enrol once within some seconds.
    ///
    /// # Errors
    /// The database fails.
    pub async fn invite(&self, token: Secret, name: &str, seconds: u32) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        let seconds = f64::from(seconds);
        let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
            &[&token.as_slice(), &name, &seconds];
        connection.execute(sql::INVITE, parameters).await?;
        Ok(())
    }

    /// Adds a host, or gives a known one a new key. Returns `None` if the token is unknown, used or too old.
    ///
    /// # Errors
    /// The database fails.
    pub async fn enrol(&self, token: Secret, key: Secret) -> Result<Option<HostId>, StoreError> {
        let connection = self.connection().await?;
        let found = connection
            .query(sql::ENROL, &[&token.as_slice(), &key.as_slice()])
            .await?;
        Ok(found.first().map(|row| HostId(rows::number(row, 0))))
    }

    /// Returns the host of a key, if the hosts were read lately, without asking the database.
    pub fn known_host(&self, key: &Secret) -> Option<(HostId, String)> {
        self.known().host_of(key, Instant::now())
    }

    /// Returns the host of a key. A key that was revoked at another coordinator counts until the hosts are
    /// read again, and for five seconds at most.
    ///
    /// # Errors
    /// The database fails.
    pub async fn host(&self, key: Secret) -> Result<Option<(HostId, String)>, StoreError> {
        if let Some(host) = self.known_host(&key) {
            return Ok(Some(host));
        }
        let connection = self.connection().await?;
        let statement = connection.prepare_cached(sql::HOST_OF_KEY).await?;
        let found = connection.query(&statement, &[&key.as_slice()]).await?;
        let host = |row: &tokio_postgres::Row| (HostId(rows::number(row, 0)), row.get(1));
        Ok(found.first().map(host))
    }

    /// Takes the key of a host away. Returns false if there is no such host.
    ///
    /// # Errors
    /// The database fails.
    pub async fn revoke(&self, name: &str) -> Result<bool, StoreError> {
        let connection = self.connection().await?;
        self.known().forget(name);
        let revoked = connection.execute(sql::REVOKE, &[&name]).await?;
        self.known().forget(name);
        Ok(revoked > 0)
    }
}
