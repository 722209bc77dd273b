//! The files of builds on their way into the object store, and the archives that are there.

use config::BuildId;
use farm_core::archive::{Archive, Upload};
use farm_core::operation::Answer;
use farm_core::{HostId, Lease};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::operations::{Connection, signed, text};
use crate::rows::{json, lease, number};
use crate::{Store, StoreError, sql};

/// The place of a build's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveState {
    /// They are on the host alone: they are not to be archived, or the build has not ended.
    Host,
    /// They are on the host, and wait for the object store.
    Waiting,
    /// They are in the object store.
    Stored(Archive),
    /// No host had them any more when they were to be put into the object store.
    Lost,
}

/// The uploads that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uploads {
    /// Their number.
    pub waiting: u64,
    /// The seconds since the end of the oldest build among them.
    pub oldest_seconds: u64,
}

impl Connection {
    pub(crate) async fn take_uploads(
        &self,
        most: u64,
        taken_ms: u64,
    ) -> Result<Answer, StoreError> {
        let parameters: &[&(dyn ToSql + Sync)] = &[&signed(most), &signed(taken_ms)];
        let rows = self.query(sql::TAKE_UPLOADS, parameters).await?;
        let upload = |row: &Row| Upload {
            lease: lease(row),
            host: HostId(number(row, 2)),
            attempt: number(row, 3),
            ended_ms: number(row, 4),
        };
        let mut uploads: Vec<_> = rows.iter().map(upload).collect();
        uploads.sort();
        Ok(Answer::Uploads(uploads))
    }

    pub(crate) async fn defer_upload(
        &self,
        upload: &Upload,
        ms: u64,
    ) -> Result<Answer, StoreError> {
        let (build, epoch) = key(upload.lease);
        let (attempt, ms) = (signed(upload.attempt), signed(ms));
        let parameters: &[&(dyn ToSql + Sync)] = &[&build, &epoch, &attempt, &ms];
        let changed = self.execute(sql::DEFER_UPLOAD, parameters).await?;
        Ok(if changed > 0 {
            Answer::Done
        } else {
            Answer::Stale
        })
    }

    pub(crate) async fn archive(
        &self,
        lease: Lease,
        archive: Option<&Archive>,
    ) -> Result<Answer, StoreError> {
        let (build, epoch) = key(lease);
        let files = archive.map(text);
        let parameters: &[&(dyn ToSql + Sync)] = &[&build, &epoch, &files];
        if self.execute(sql::ARCHIVE, parameters).await? > 0 {
            return Ok(Answer::Done);
        }
        // A repetition, or another attempt.
        let known = self.query(sql::IS_ARCHIVED, &parameters[..2]).await?;
        Ok(if known.is_empty() {
            Answer::NotFound
        } else {
            Answer::Done
        })
    }
}

impl Store {
    /// Returns the place of the files of a build that has ended.
    ///
    /// # Errors
    /// The database fails.
    pub async fn archive_of(&self, build: BuildId) -> Result<ArchiveState, StoreError> {
        let rows = self.query(sql::ARCHIVE_OF, &[&signed(build.0)]).await?;
        let Some(row) = rows.first() else {
            return Ok(ArchiveState::Host);
        };
        if !row.get::<_, bool>(1) {
            return Ok(ArchiveState::Waiting);
        }
        if row.get::<_, Option<&str>>(2).is_none() {
            return Ok(ArchiveState::Lost);
        }
        Ok(ArchiveState::Stored(json("archives", row, 2)?))
    }

    /// Returns the uploads that wait.
    ///
    /// # Errors
    /// The database fails.
    pub async fn uploads(&self) -> Result<Uploads, StoreError> {
        let rows = self.query(sql::UPLOADS, &[]).await?;
        let uploads = |row: &Row| Uploads {
            waiting: number(row, 0),
            oldest_seconds: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0),
        };
        Ok(rows.first().map(uploads).unwrap_or_default())
    }

    /// Returns true if the files of builds that end go into an object store.
    pub fn is_archiving(&self) -> bool {
        self.archives
    }
}

fn key(lease: Lease) -> (i64, i64) {
    (signed(lease.build.0), signed(lease.epoch.0))
}
