//! Reads that are no operations: names and published revisions.

use std::collections::BTreeMap;

use config::MachineName;
use farm_core::{HostId, Published};
use tokio_postgres::Row;

use crate::rows::{number, published};
use crate::{Store, StoreError, sql};

impl Store {
    /// Returns the names of the hosts.
    ///
    /// # Errors
    /// The database fails.
    pub async fn host_names(&self) -> Result<BTreeMap<HostId, String>, StoreError> {
        let rows = self.read(sql::HOST_NAMES).await?;
        let named = |row: &Row| (HostId(number(row, 0)), row.get(1));
        Ok(rows.iter().map(named).collect())
    }

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
