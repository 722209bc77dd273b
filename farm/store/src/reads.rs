//! Reads that are no operations: published revisions.

use std::collections::BTreeMap;

use config::MachineName;
use farm_core::Published;
use tokio_postgres::Row;

use crate::rows::published;
use crate::{Store, StoreError, sql};

impl Store {
    /// Returns the published revisions.
    ///
    /// # Errors
    /// The database fails.
    pub async fn published(&self) -> Result<BTreeMap<MachineName, Published>, StoreError> {
        let rows = self.read(sql::PUBLISHED).await?;
        rows.iter().map(published).collect()
    }

    async fn read(&self, sql: &str) -> Result<Vec<Row>, StoreError> {
        let connection = self.connection().await?;
        let statement = connection.prepare_cached(sql).await?;
        Ok(connection.query(&statement, &[]).await?)
    }
}
