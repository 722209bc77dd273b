//! Claims and results, and what submitters are charged for them.
//!
//! The use of submitters is a few rows that every claim and every result would change. So it is counted in
//! memory, and written when the queue is read, which is when it is needed. A coordinator that dies loses the
//! use of the last second, and nothing else.

use config::task::{Digest, Outcome};
use farm_core::messages::{Message, Report};
use farm_core::operation::{Answer, Pick};
use farm_core::{HostId, Lease};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::operations::{Connection, key, signed};
use crate::rows::grant;
use crate::{Store, StoreError, sql};

impl Store {
    pub(crate) async fn claim(
        &self,
        connection: &Connection,
        host: HostId,
        beat: u64,
        picks: &[Pick],
    ) -> Result<Answer, StoreError> {
        let column = |value: fn(&Pick) -> u64| -> Vec<i64> {
            picks.iter().map(|pick| signed(value(pick))).collect()
        };
        let contents = picks.iter().map(|it| it.content.as_ref());
        let contents: Vec<_> = contents.map(|it| it.map(Digest::as_str)).collect();
        let trials = picks.iter().map(|it| it.trial.map(|it| signed(it.0)));
        let trials: Vec<_> = trials.collect();
        let rows = connection
            .query(
                sql::CLAIM,
                &[
                    &signed(host.0),
                    &signed(beat),
                    &column(|it| it.build.0),
                    &column(|it| it.epoch.0),
                    &column(|it| it.revision.0),
                    &column(|it| it.charge_ms),
                    &contents,
                    &trials,
                ],
            )
            .await?;
        // The row without a build tells if there is such a host, whose beat is another one.
        let without = |row: &&Row| row.get::<_, Option<i64>>(0).is_none();
        if let Some(row) = rows.iter().find(without) {
            let is_known = row.get::<_, i64>(1) > 0;
            return Ok(if is_known {
                Answer::Overtaken
            } else {
                Answer::NotFound
            });
        }
        self.note_charges(&rows, 5);
        let mut claimed: Vec<_> = rows.iter().map(grant).collect::<Result<_, _>>()?;
        let order = |build| picks.iter().position(|it| it.build == build);
        claimed.sort_by_key(|it| order(it.lease.build));
        Ok(Answer::Claimed(claimed))
    }

    pub(crate) async fn finish(
        &self,
        connection: &Connection,
        host: HostId,
        report: &Report,
    ) -> Result<Answer, StoreError> {
        let (host, build, epoch) = key(host, report.lease);
        let (is_good, outcome) = (report.outcome.is_good(), report.outcome.to_string());
        let message = report.message.as_ref().map(Message::as_str);
        let rules = &*self.rules;
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &host,
            &build,
            &epoch,
            &outcome,
            &self.archives,
            &is_good,
            &message,
            &rules,
        ];
        let mut ended = connection.query(sql::FINISH, parameters).await?;
        if ended.is_empty() && !is_good {
            let failed = connection.query(sql::FAIL_ON_TRIAL, &parameters[..4]);
            ended = failed.await?;
        }
        self.note_charges(&ended, 0);
        if !ended.is_empty() {
            return Ok(Answer::Recorded);
        }
        // A repetition. It is read by a statement of its own, which sees what was committed meanwhile.
        let known = connection.query(sql::IS_FINISHED, &parameters[..3]).await?;
        Ok(if known.is_empty() {
            Answer::Stale
        } else {
            Answer::Recorded
        })
    }

    pub(crate) async fn release(
        &self,
        connection: &Connection,
        host: HostId,
        lease: Lease,
        is_unused: bool,
        attempts_max: u64,
    ) -> Result<Answer, StoreError> {
        let (host, build, epoch) = key(host, lease);
        let (most, rules) = (signed(attempts_max), &*self.rules);
        let parameters: &[&(dyn ToSql + Sync)] = &[&host, &build, &epoch];
        let given_back = if is_unused {
            let parameters: &[&(dyn ToSql + Sync)] = &[&host, &build, &epoch, &rules];
            connection.query(sql::GIVE_BACK, parameters).await?
        } else {
            let parameters: &[&(dyn ToSql + Sync)] = &[&host, &build, &epoch, &most, &rules];
            connection.query(sql::RELEASE, parameters).await?
        };
        if !given_back.is_empty() {
            return Ok(Answer::Recorded);
        }
        let known = connection.query(sql::IS_RELEASED, parameters).await?;
        if !known.is_empty() {
            return Ok(Answer::Recorded);
        }
        if is_unused {
            return Ok(Answer::Stale);
        }
        let failure = Outcome::Abnormal.to_string();
        let parameters: &[&(dyn ToSql + Sync)] = &[&host, &build, &epoch, &failure];
        let failed = connection.query(sql::FAIL_ON_TRIAL, parameters).await?;
        self.note_charges(&failed, 0);
        Ok(if failed.is_empty() {
            Answer::Stale
        } else {
            Answer::Recorded
        })
    }

    /// Notes the charges of rows that have submitter, day and milliseconds from a column on.
    fn note_charges(&self, rows: &[Row], column: usize) {
        let mut known = self.known();
        for row in rows {
            known.charge(row.get(column), row.get(column + 1), row.get(column + 2));
        }
    }

    /// Writes the use of submitters. If the commit is unknown it is not repeated, because use that counts
    /// twice is worse than use that is lost.
    pub(crate) async fn write_charges(&self, connection: &Connection) -> Result<(), StoreError> {
        let charges = self.known().take_charges();
        if charges.is_empty() {
            return Ok(());
        }
        let (mut submitters, mut days, mut used) = (Vec::new(), Vec::new(), Vec::new());
        for ((submitter, day), ms) in charges {
            submitters.push(submitter);
            days.push(day);
            used.push(ms);
        }
        let slot = self.slot;
        let parameters: &[&(dyn ToSql + Sync)] = &[&submitters, &days, &used, &slot];
        connection.execute(sql::CHARGE, parameters).await.map(drop)
    }
}
