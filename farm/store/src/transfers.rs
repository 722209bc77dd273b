//! Transfers: which host sends what to which coordinator. Their content is never in the database.

use config::BuildId;
use config::task::Outcome;
use farm_core::transfers::{TransferId, TransferOrder};
use farm_core::{Epoch, HostId, Lease};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::rows::{number, outcome};
use crate::{Store, StoreError, sql};

/// The host that has the log and the artifacts of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The host.
    pub host: HostId,
    /// The lease under which it ran the build.
    pub lease: Lease,
    /// The outcome; `None` while the build runs.
    pub outcome: Option<Outcome>,
}

impl Store {
    /// Adds a transfer.
    ///
    /// # Errors
    /// The database fails.
    pub async fn open_transfer(
        &self,
        host: HostId,
        order: &TransferOrder,
    ) -> Result<(), StoreError> {
        let wanted = serde_json::to_string(&order.wanted).unwrap_or_default();
        let host = host.0.cast_signed();
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&order.id.0, &host, &order.coordinator, &wanted];
        self.rows(sql::OPEN_TRANSFER, &parameters).await?;
        Ok(())
    }

    /// Deletes a transfer, because its host has come or nobody waits any more.
    ///
    /// # Errors
    /// The database fails.
    pub async fn close_transfer(&self, id: &TransferId) -> Result<(), StoreError> {
        self.rows(sql::CLOSE_TRANSFER, &[&id.0]).await?;
        Ok(())
    }

    /// Returns the transfers that coordinators wait for, each with its host. Those that only a newer
    /// version understands are left to it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn transfers(&self) -> Result<Vec<(HostId, TransferOrder)>, StoreError> {
        let rows = self.rows(sql::TRANSFERS, &[]).await?;
        let order = |row: &Row| {
            let order = TransferOrder {
                id: TransferId(row.get(0)),
                coordinator: row.get(2),
                wanted: serde_json::from_str(row.get(3)).ok()?,
            };
            Some((HostId(number(row, 1)), order))
        };
        Ok(rows.iter().filter_map(order).collect())
    }

    /// Returns the host that has the log of a build; `None` for a build that no host has.
    ///
    /// # Errors
    /// The database fails.
    pub async fn site(&self, build: BuildId) -> Result<Option<Site>, StoreError> {
        let id = build.0.cast_signed();
        let rows = self.rows(sql::SITE, &[&id]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let Some(host) = row.get::<_, Option<i64>>(0) else {
            return Ok(None);
        };
        let epoch = Epoch(number(row, 1));
        let found = row.get::<_, Option<String>>(2);
        Ok(Some(Site {
            host: HostId(host.cast_unsigned()),
            lease: Lease { build, epoch },
            outcome: found.map(|it| outcome(build, &it)).transpose()?,
        }))
    }

    async fn rows(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let connection = self.connection().await?;
        let statement = connection.prepare_cached(sql).await?;
        Ok(connection.query(&statement, parameters).await?)
    }
}
