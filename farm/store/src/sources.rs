//! Sources: the coordinators that have them, and the coordinators themselves.

use std::collections::{BTreeMap, BTreeSet};

use config::BuildId;
use config::task::Digest;
use farm_core::copies::{CoordinatorName, Copies};
use farm_core::operation::Answer;
use tokio_postgres::Row;

use crate::operations::{Connection, signed};
use crate::rows::{number, parsed};
use crate::{Secret, Store, StoreError, sql};

/// The sources of builds, and the coordinators that count on being alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shelves {
    /// The coordinators that have each source.
    pub copies: Copies,
    /// The coordinators that were seen lately.
    pub alive: BTreeSet<CoordinatorName>,
}

/// The numbers of sources of the farm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Those that the farm keeps.
    pub kept: u64,
    /// Those that builds or schedules need and no coordinator has that is alive.
    pub missing: u64,
}

impl Connection {
    pub(crate) async fn copies(&self, key: &str, digests: &[Digest]) -> Result<Answer, StoreError> {
        if let Some(row) = self.query(sql::SUBMITTED, &[&key]).await?.first() {
            return Ok(Answer::Submitted(BuildId(number(row, 0))));
        }
        let rows = self.query(sql::COPIES, &[&texts(digests)]).await?;
        Ok(Answer::Copies(copies(&rows)?))
    }

    /// Returns the sources that the store does not know.
    pub(crate) async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let rows = self.query(sql::KNOWN_SOURCES, &[&texts(digests)]).await?;
        let known: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let missing = digests.iter().filter(|it| !known.contains(it.as_str()));
        Ok(missing.cloned().collect())
    }

    pub(crate) async fn keep(
        &self,
        digest: &Digest,
        coordinator: &CoordinatorName,
    ) -> Result<Answer, StoreError> {
        let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
            &[&digest.as_str(), &coordinator.0];
        self.query(sql::KEEP, parameters).await?;
        Ok(Answer::Done)
    }

    pub(crate) async fn lose(
        &self,
        digest: &Digest,
        coordinator: &CoordinatorName,
    ) -> Result<Answer, StoreError> {
        self.query(sql::LOSE, &[&digest.as_str(), &coordinator.0])
            .await?;
        Ok(Answer::Done)
    }

    pub(crate) async fn expire(&self, age_ms: u64) -> Result<Answer, StoreError> {
        let rows = self.query(sql::EXPIRE, &[&signed(age_ms)]).await?;
        let mut expired = digests(&rows)?;
        expired.sort();
        Ok(Answer::Expired(expired))
    }

    pub(crate) async fn discard(
        &self,
        digest: &Digest,
        coordinator: &CoordinatorName,
    ) -> Result<Answer, StoreError> {
        let rows = self
            .query(sql::DISCARD, &[&digest.as_str(), &coordinator.0])
            .await?;
        Ok(if rows.is_empty() {
            Answer::NotFound
        } else {
            Answer::Done
        })
    }

    pub(crate) async fn attend(&self, coordinator: &CoordinatorName) -> Result<Answer, StoreError> {
        self.query(sql::ATTEND, &[&coordinator.0]).await?;
        let rows = self.query(sql::COORDINATORS, &[]).await?;
        let beats = rows.iter().map(|row| (name(row), number(row, 1)));
        Ok(Answer::Attending(beats.collect()))
    }
}

impl Store {
    /// Adds a coordinator, or gives it another key.
    ///
    /// # Errors
    /// The database fails.
    pub async fn register(
        &self,
        coordinator: &CoordinatorName,
        key: Secret,
        keeps_sources: bool,
    ) -> Result<(), StoreError> {
        let connection = Connection(self.connection().await?);
        let (name, key) = (&coordinator.0, key.as_slice());
        connection
            .query(sql::REGISTER, &[name, &key, &keeps_sources])
            .await?;
        Ok(())
    }

    /// Returns the coordinator of a key.
    ///
    /// # Errors
    /// The database fails.
    pub async fn coordinator(&self, key: Secret) -> Result<Option<CoordinatorName>, StoreError> {
        let connection = Connection(self.connection().await?);
        let rows = connection
            .query(sql::COORDINATOR, &[&key.as_slice()])
            .await?;
        Ok(rows.first().map(name))
    }

    /// Returns the coordinators that have sources, and those that were seen lately.
    ///
    /// # Errors
    /// The database fails.
    pub async fn shelves(&self, wanted: &[Digest]) -> Result<Shelves, StoreError> {
        let connection = Connection(self.connection().await?);
        let rows = connection.query(sql::HOLDERS, &[&texts(wanted)]).await?;
        let alive = connection.query(sql::SEEN_COORDINATORS, &[]).await?;
        Ok(Shelves {
            copies: copies(&rows)?,
            alive: alive.iter().map(name).collect(),
        })
    }

    /// Counts the sources of the farm.
    ///
    /// # Errors
    /// The database fails.
    pub async fn source_counts(&self) -> Result<SourceCounts, StoreError> {
        let connection = Connection(self.connection().await?);
        let rows = connection.query(sql::COUNT_SOURCES, &[]).await?;
        let counts = rows.first().map(|row| SourceCounts {
            kept: number(row, 0),
            missing: number(row, 1),
        });
        Ok(counts.unwrap_or_default())
    }

    /// Returns the sources of which a coordinator has files, and if each is still known.
    ///
    /// # Errors
    /// The database fails.
    pub async fn kept(
        &self,
        coordinator: &CoordinatorName,
    ) -> Result<BTreeMap<Digest, bool>, StoreError> {
        let connection = Connection(self.connection().await?);
        let rows = connection.query(sql::KEPT, &[&coordinator.0]).await?;
        let kept = digests(&rows)?.into_iter();
        Ok(kept.zip(rows.iter().map(|row| row.get(1))).collect())
    }
}

fn name(row: &Row) -> CoordinatorName {
    CoordinatorName(row.get(0))
}

fn texts(digests: &[Digest]) -> Vec<&str> {
    digests.iter().map(Digest::as_str).collect()
}

fn digests(rows: &[Row]) -> Result<Vec<Digest>, StoreError> {
    let digests = rows.iter().map(|row| parsed("sources", 0, row.get(0)));
    digests.collect()
}

/// Reads rows of sources and coordinators.
fn copies(rows: &[Row]) -> Result<Copies, StoreError> {
    let mut copies = Copies::new();
    for (digest, row) in digests(rows)?.into_iter().zip(rows) {
        let holders = copies.entry(digest).or_default();
        holders.insert(CoordinatorName(row.get(1)));
    }
    Ok(copies)
}
