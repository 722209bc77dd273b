//! Reads for people: pages of builds, one build with its attempts, the queue.

use config::BuildId;
use config::builds::Priority;
use deadpool_postgres::Object;
use farm_core::messages::{Message, Subject};
use farm_core::view::{BuildPage, BuildQuery, BuildState, BuildView, LostAttempt, QueueView};
use farm_core::{Epoch, Requirements, Revision};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::listing::{self, Listing, Order};
use crate::rows::{json, number, parsed, time};
use crate::{Store, StoreError, sql};

impl Store {
    /// Returns a page of builds, the newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn builds(&self, query: &BuildQuery) -> Result<BuildPage, StoreError> {
        let mut builds = self.listed(&listing::page(query, Order::Newest)).await?;
        let count = query.count() as usize;
        let has_more = builds.len() > count;
        builds.truncate(count);
        let last = builds.last().map(|it| it.build);
        Ok(BuildPage {
            next: last.filter(|_| has_more),
            builds,
        })
    }

    /// Returns the oldest builds that match, the oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn oldest(&self, query: &BuildQuery) -> Result<Vec<BuildView>, StoreError> {
        let mut builds = self.listed(&listing::page(query, Order::Oldest)).await?;
        builds.truncate(query.count() as usize);
        Ok(builds)
    }

    /// Returns one build with its lost attempts and the usual duration of its kind.
    ///
    /// # Errors
    /// The database fails.
    pub async fn build(&self, build: BuildId) -> Result<Option<BuildView>, StoreError> {
        let Some(mut view) = self.listed(&listing::one(build.0)).await?.pop() else {
            return Ok(None);
        };
        let id = build.0.cast_signed();
        let lost = self.query(sql::LOST, &[&id]).await?;
        view.lost = lost.iter().map(lost_attempt).collect();
        view.usual_seconds = self.usual_seconds(&view).await?;
        view.trial = self.run_on_trial(build, (view.epoch, view.outcome)).await?;
        Ok(Some(view))
    }

    /// Returns the seconds that good builds of the same target on the same machine took lately.
    ///
    /// # Errors
    /// The database fails.
    pub async fn usual_seconds(&self, build: &BuildView) -> Result<Option<u64>, StoreError> {
        let Some(target) = &build.subject.target else {
            return Ok(None);
        };
        let machine = build.requirements.machine.as_str();
        let rows = self
            .query(sql::USUAL, &[&target.as_str(), &machine])
            .await?;
        let average = rows.first().and_then(|row| row.get::<_, Option<i64>>(0));
        Ok(average.map(|it| u64::try_from(it).unwrap_or(0)))
    }

    /// Returns the last failed builds of targets that no newer build has mended.
    ///
    /// # Errors
    /// The database fails.
    pub async fn failing(&self) -> Result<Vec<BuildView>, StoreError> {
        let rows = self.query(sql::FAILING, &[]).await?;
        let builds: Vec<_> = rows.iter().map(|row| number(row, 0)).collect();
        if builds.is_empty() {
            return Ok(Vec::new());
        }
        self.listed(&listing::results(&builds)).await
    }

    /// Returns the queue without its builds.
    ///
    /// # Errors
    /// The database fails.
    pub async fn queue(&self) -> Result<QueueView, StoreError> {
        let rows = self.query(sql::QUEUE, &[]).await?;
        let row = rows.first().ok_or(StoreError::Changing(0))?;
        Ok(QueueView {
            at: time(row.get(0)),
            queued: number(row, 1),
            oldest: row.get::<_, Option<i64>>(2).map(time),
            running: number(row, 3),
            hosts_alive: 0,
            waiting: Vec::new(),
        })
    }

    pub(crate) async fn listed(&self, listing: &Listing) -> Result<Vec<BuildView>, StoreError> {
        let rows = self.query(&listing.sql, &listing.parameters()).await?;
        rows.iter().map(build).collect()
    }

    pub(crate) async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let connection: Object = self.connection().await?;
        let statement = connection.prepare_cached(sql).await?;
        Ok(connection.query(&statement, parameters).await?)
    }

    pub(crate) async fn execute(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StoreError> {
        let connection = self.connection().await?;
        let statement = connection.prepare_cached(sql).await?;
        Ok(connection.execute(&statement, parameters).await?)
    }
}

/// Reads a row of [`listing`].
fn build(row: &Row) -> Result<BuildView, StoreError> {
    const TABLE: &str = "builds";
    let id = row.get(0);
    let requirements: Requirements = json(TABLE, row, 3)?;
    let outcome = row.get::<_, Option<&str>>(10);
    let outcome = outcome.map(|it| parsed(TABLE, id, it)).transpose()?;
    let target = row.get::<_, Option<&str>>(11);
    let project = row.get::<_, Option<&str>>(12);
    let state = match row.get::<_, i32>(9) {
        0 => BuildState::Queued,
        1 => BuildState::Running,
        _ => BuildState::Finished,
    };
    let epoch = Epoch(number(row, 6));
    let is_claimed = epoch.0 > 0;
    Ok(BuildView {
        build: BuildId(number(row, 0)),
        subject: Subject {
            target: target.map(|it| parsed(TABLE, id, it)).transpose()?,
            project: project.map(|it| parsed(TABLE, id, it)).transpose()?,
        },
        submitter: parsed(TABLE, id, row.get(1))?,
        priority: Priority(row.get(2)),
        requirements,
        state,
        outcome,
        message: row.get::<_, Option<String>>(13).map(Message::from),
        canceled: row.get(4),
        // A build in the queue keeps the host of its last attempt, which is over.
        host: row
            .get::<_, Option<String>>(5)
            .filter(|_| state != BuildState::Queued),
        epoch,
        revision: is_claimed.then(|| Revision(number(row, 7))),
        losses: number(row, 8),
        submitted: time(row.get(14)),
        claimed: row.get::<_, Option<i64>>(15).map(time),
        finished: row.get::<_, Option<i64>>(16).map(time),
        why: None,
        usual_seconds: None,
        files: None,
        trial: None,
        lost: Vec::new(),
    })
}

fn lost_attempt(row: &Row) -> LostAttempt {
    LostAttempt {
        epoch: Epoch(number(row, 0)),
        host: row.get(1),
        claimed: row.get::<_, Option<i64>>(2).map(time),
        ended: time(row.get(3)),
        is_released: row.get(4),
    }
}
