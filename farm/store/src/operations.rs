//! The operations: their statements, and the rows of the answers.

use std::collections::BTreeMap;

use config::builds::{Priority, Submitter, Target};
use config::task::{Digest, Outcome};
use config::{BuildId, MachineName, ProjectName};
use deadpool_postgres::Object;
use farm_core::messages::Submission;
use farm_core::operation::{Answer, BuildRow, Candidate, Operation};
use farm_core::{Epoch, HostId, Lease, Published};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::rows::{json, lease, number, outcome, parsed, published};
use crate::{Store, StoreError, sql};

/// The most attempts of an operation whose row moves between two statements.
pub(crate) const ATTEMPTS_MAX: usize = 3;

/// A connection with its prepared statements.
pub(crate) struct Connection(pub(crate) Object);

impl Connection {
    pub(crate) async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.0.prepare_cached(sql).await?;
        Ok(self.0.query(&statement, parameters).await?)
    }

    pub(crate) async fn execute(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StoreError> {
        let statement = self.0.prepare_cached(sql).await?;
        Ok(self.0.execute(&statement, parameters).await?)
    }
}

impl Store {
    pub(crate) async fn try_apply(&self, operation: &Operation) -> Result<Answer, StoreError> {
        let it = Connection(self.connection().await?);
        match operation {
            Operation::Submit(submission) => it.submit(submission).await,
            Operation::Copies { key, digests } => it.copies(key, digests).await,
            Operation::Keep(digest, coordinator) => it.keep(digest, coordinator).await,
            Operation::Lose(digest, coordinator) => it.lose(digest, coordinator).await,
            Operation::Expire(age_ms) => it.expire(*age_ms).await,
            Operation::Discard(digest, coordinator) => it.discard(digest, coordinator).await,
            Operation::Attend(coordinator) => it.attend(coordinator).await,
            Operation::Cancel(build) => it.cancel(*build, &self.rules).await,
            Operation::Beat(host, offer) => {
                let beats = [(*host, offer.clone())];
                let answers = self.beats(&it, &beats).await?;
                Ok(answers.into_iter().next().unwrap_or(Answer::NotFound))
            }
            Operation::Beats(beats) => Ok(Answer::Beats(self.beats(&it, beats).await?)),
            Operation::Candidates { machines, most } => {
                self.write_charges(&it).await?;
                it.candidates(machines, *most).await
            }
            Operation::Claim { host, beat, picks } => self.claim(&it, *host, *beat, picks).await,
            Operation::Finish(host, report) => self.finish(&it, *host, report).await,
            Operation::Release {
                host,
                lease,
                is_unused,
                attempts_max,
            } => {
                self.release(&it, *host, *lease, *is_unused, *attempts_max)
                    .await
            }
            Operation::Hosts => self.look(&it).await,
            Operation::Rescue {
                host,
                beat,
                attempts_max,
            } => it.rescue(*host, *beat, *attempts_max, &self.rules).await,
            Operation::Publish(machine, wanted) => it.publish(machine, wanted).await,
            Operation::BeginTrial(..) | Operation::EndTrial { .. } | Operation::Trials => {
                it.apply_to_trials(operation).await
            }
            Operation::Drain(host, drained) => {
                let rows = it.execute(sql::DRAIN, &[&signed(host.0), drained]).await?;
                Ok(if rows == 0 {
                    Answer::NotFound
                } else {
                    Answer::Done
                })
            }
            Operation::AddWindow(host, new) => it.add_window(*host, new).await,
            Operation::RemoveWindow(host, id) => it.remove_window(*host, *id).await,
            Operation::MoveWindow { window, over, next } => {
                it.move_window(*window, *over, *next).await
            }
            Operation::Show(build) => it.show(*build).await,
            Operation::Schedules => it.schedules().await,
            Operation::AddSchedule(schedule, replaces) => {
                it.add_schedule(schedule, *replaces).await
            }
            Operation::RemoveSchedule(name) => it.remove_schedule(name).await,
            Operation::PauseSchedule(name, paused) => it.pause_schedule(name, *paused).await,
            Operation::RunSchedule(name, occasion) => it.run_schedule(name, occasion).await,
            Operation::TakeUploads { most, taken_ms } => it.take_uploads(*most, *taken_ms).await,
            Operation::DeferUpload { upload, ms } => it.defer_upload(upload, *ms).await,
            Operation::Archive(lease, archive) => it.archive(*lease, archive.as_ref()).await,
        }
    }
}

impl Connection {
    async fn submit(&self, submission: &Submission) -> Result<Answer, StoreError> {
        let requirements = text(&submission.requirements);
        let target = submission.subject.target.as_ref().map(Target::as_str);
        let project = submission.subject.project.as_ref();
        let project = project.map(ProjectName::as_str);
        let digests = submission.requirements.work.digests();
        let sources: Vec<_> = digests.iter().map(Digest::as_str).collect();
        for _ in 0..ATTEMPTS_MAX {
            let known = self.query(sql::SUBMITTED, &[&submission.key]).await?;
            if let Some(row) = known.first() {
                return Ok(Answer::Submitted(BuildId(number(row, 0))));
            }
            let added = self
                .query(
                    sql::SUBMIT,
                    &[
                        &submission.key,
                        &submission.submitter.as_str(),
                        &submission.priority.0,
                        &submission.requirements.machine.as_str(),
                        &requirements,
                        &target,
                        &project,
                        &sources,
                    ],
                )
                .await?;
            if let Some(row) = added.first() {
                return Ok(Answer::Submitted(BuildId(number(row, 0))));
            }
            let missing = self.missing(&digests).await?;
            if !missing.is_empty() {
                return Ok(Answer::Missing(missing));
            }
        }
        Err(StoreError::Changing(0))
    }

    async fn cancel(&self, build: BuildId, rules: &[String]) -> Result<Answer, StoreError> {
        let id = signed(build.0);
        for _ in 0..ATTEMPTS_MAX {
            if self.execute(sql::CANCEL_QUEUED, &[&id, &rules]).await? > 0
                || !self.query(sql::CANCEL_LEASED, &[&id]).await?.is_empty()
            {
                return Ok(Answer::Canceled);
            }
            if let Some(row) = self.query(sql::OUTCOME, &[&id]).await?.first() {
                return Ok(match outcome(build, row.get(0))? {
                    Outcome::Abort => Answer::Canceled,
                    other => Answer::Finished(other),
                });
            }
            if self.query(sql::SHOW, &[&id]).await?.is_empty() {
                return Ok(Answer::NotFound);
            }
        }
        Err(StoreError::Changing(build.0))
    }

    async fn candidates(&self, machines: &[MachineName], most: u64) -> Result<Answer, StoreError> {
        let machines: Vec<_> = machines.iter().map(MachineName::as_str).collect();
        let found = self
            .query(sql::CANDIDATES, &[&machines, &signed(most)])
            .await?;
        let builds = found.iter().map(|row| {
            Ok(Candidate {
                build: BuildId(number(row, 0)),
                epoch: Epoch(number(row, 1)),
                submitter: parsed("builds", row.get(0), row.get(2))?,
                priority: Priority(row.get(3)),
                requirements: json("builds", row, 4)?,
                waited_ms: number(row, 5),
                usual_ms: None,
                may_be_on_trial: row.get(6),
            })
        });
        let mut builds: Vec<_> = builds.collect::<Result<_, StoreError>>()?;
        builds.sort_by_key(|it| it.build);
        let needs = self.query(sql::PLACEMENT_NEEDS, &[]).await?;
        let is_needed = |column| needs.first().is_some_and(|row| row.get(column));
        if is_needed(0) && !builds.is_empty() {
            self.add_usuals(&mut builds).await?;
        }
        let trials = if is_needed(1) {
            self.trials(false).await?
        } else {
            Vec::new()
        };
        let mut used_ms: BTreeMap<Submitter, u64> = BTreeMap::new();
        for build in &builds {
            used_ms.entry(build.submitter.clone()).or_default();
        }
        let submitters: Vec<_> = used_ms.keys().map(|it| it.as_str().to_owned()).collect();
        if !submitters.is_empty() {
            for row in self.query(sql::USED, &[&submitters]).await? {
                let submitter = parsed("used", 0, row.get(0))?;
                let used = u64::try_from(row.get::<_, i64>(2)).unwrap_or(0);
                let age = row.get::<_, i32>(1).max(0);
                *used_ms.entry(submitter).or_default() += used >> age;
            }
        }
        let vacancies = trials.iter().map(|it| (it.trial.number, it.vacancies()));
        Ok(Answer::Candidates {
            builds,
            used_ms,
            vacancies: vacancies.collect(),
        })
    }

    async fn rescue(
        &self,
        host: HostId,
        beat: u64,
        attempts_max: u64,
        rules: &[String],
    ) -> Result<Answer, StoreError> {
        let (host, beat, most) = (signed(host.0), signed(beat), signed(attempts_max));
        let parameters: &[&(dyn ToSql + Sync)] = &[&host, &beat, &most, &rules];
        let rows = self.query(sql::RESCUE, parameters).await?;
        let mut leases: Vec<_> = rows.iter().map(lease).collect();
        leases.sort();
        Ok(Answer::Rescued(leases))
    }

    async fn publish(
        &self,
        machine: &MachineName,
        wanted: &Published,
    ) -> Result<Answer, StoreError> {
        let content = wanted.content.as_ref().map(Digest::as_str);
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&machine.as_str(), &signed(wanted.revision.0), &content];
        let rows = self.query(sql::PUBLISH, parameters).await?;
        let Some(row) = rows.first() else {
            return Ok(Answer::Published(wanted.revision));
        };
        let (_, found) = published(row)?;
        Ok(match (found.content, &wanted.content) {
            (Some(found_content), Some(content))
                if found.revision == wanted.revision && found_content != *content =>
            {
                Answer::OtherContent(found_content)
            }
            _ => Answer::Published(found.revision),
        })
    }

    async fn show(&self, build: BuildId) -> Result<Answer, StoreError> {
        let rows = self.query(sql::SHOW, &[&signed(build.0)]).await?;
        let Some(row) = rows.first() else {
            return Ok(Answer::NotFound);
        };
        let requirements = serde_json::from_str(row.get(0)).map_err(|error| StoreError::Row {
            table: "builds",
            row: signed(build.0),
            reason: error.to_string(),
        })?;
        let host = row.get::<_, Option<i64>>(2);
        let found = row.get::<_, Option<String>>(3);
        Ok(Answer::Build(BuildRow {
            requirements,
            epoch: Epoch(number(row, 1)),
            host: host.map(|it| HostId(it.cast_unsigned())),
            outcome: found.map(|it| outcome(build, &it)).transpose()?,
        }))
    }
}

/// Returns the parameters that name a lease of a host.
pub(crate) fn key(host: HostId, lease: Lease) -> (i64, i64, i64) {
    (signed(host.0), signed(lease.build.0), signed(lease.epoch.0))
}

/// Returns a number for the database. A number beyond its range, which only a lie can have, names nothing.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(-1)
}

/// Returns a value as JSON. The values have only names as keys, so that this never fails.
pub(crate) fn text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
