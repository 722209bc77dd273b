//! The trials of revisions, and the builds that ran on candidates.

use std::collections::BTreeMap;

use config::canary::{self, TrialBuild, TrialResult, TrialVerdict};
use config::task::{Digest, Outcome};
use config::{BuildId, MachineName};
use farm_core::operation::{Answer, Operation};
use farm_core::trials::{Trial, TrialNumber, TrialState, failure};
use farm_core::view::BuildTrial;
use farm_core::{Epoch, HostId, Published, Revision};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::operations::{Connection, signed};
use crate::rows::{number, outcome, parsed, published};
use crate::{Store, StoreError, sql};

/// The published revisions of a farm, and the last trial of each machine.
pub type Revisions = (
    BTreeMap<MachineName, Published>,
    BTreeMap<MachineName, Trial>,
);

impl Connection {
    /// Executes an operation on trials.
    pub(crate) async fn apply_to_trials(
        &self,
        operation: &Operation,
    ) -> Result<Answer, StoreError> {
        match operation {
            Operation::BeginTrial(machine, candidate, terms) => {
                self.begin_trial(machine, candidate, *terms).await
            }
            Operation::EndTrial {
                machine,
                number,
                verdict,
                reason,
            } => self.end_trial(machine, *number, *verdict, reason).await,
            _ => Ok(Answer::Trials(self.trials(false).await?)),
        }
    }

    async fn begin_trial(
        &self,
        machine: &MachineName,
        candidate: &Published,
        terms: canary::Terms,
    ) -> Result<Answer, StoreError> {
        let (name, terms) = (machine.as_str(), terms.to_string());
        let content = candidate.content.as_ref().map(Digest::as_str);
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&name, &signed(candidate.revision.0), &content, &terms];
        let rows = self.query(sql::BEGIN_TRIAL, parameters).await?;
        if let Some(row) = rows.first() {
            return Ok(Answer::TrialBegun(TrialNumber(number(row, 0))));
        }
        let (mut published, _) = self.revisions().await?;
        let newer = published.remove(machine);
        Ok(newer.map_or(Answer::NotFound, |it| Answer::Published(it.revision)))
    }

    async fn end_trial(
        &self,
        machine: &MachineName,
        trial: TrialNumber,
        verdict: TrialVerdict,
        reason: &str,
    ) -> Result<Answer, StoreError> {
        let promoted = verdict == TrialVerdict::Promoted;
        let (name, id) = (machine.as_str(), signed(trial.0));
        let parameters: &[&(dyn ToSql + Sync)] = &[&name, &id, &promoted, &reason];
        if !self.query(sql::END_TRIAL, parameters).await?.is_empty() {
            return Ok(Answer::Done);
        }
        let known = self.query(sql::IS_ENDED, &parameters[..3]).await?;
        Ok(if known.is_empty() {
            Answer::Stale
        } else {
            Answer::Recorded
        })
    }

    pub(crate) async fn revisions(&self) -> Result<Revisions, StoreError> {
        let (mut revisions, mut trials) = (BTreeMap::new(), BTreeMap::new());
        for row in &self.query(sql::REVISIONS, &[]).await? {
            let (machine, published) = published(row)?;
            if row.get::<_, Option<i64>>(3).is_some() {
                trials.insert(machine.clone(), trial(row)?);
            }
            revisions.insert(machine, published);
        }
        Ok((revisions, trials))
    }

    /// Reads the open trials, or the last one of each machine, with their builds.
    pub(crate) async fn trials(&self, all: bool) -> Result<Vec<TrialState>, StoreError> {
        let mut states: Vec<TrialState> = Vec::new();
        for row in &self.query(sql::TRIALS, &[&all]).await? {
            let trial = trial(row)?;
            if states
                .last()
                .is_none_or(|it| it.trial.number != trial.number)
            {
                let (machine, published) = published(row)?;
                states.push(TrialState {
                    machine,
                    trial,
                    began_ms: number(row, 9),
                    ended_ms: row.get::<_, Option<i64>>(10).map(i64::cast_unsigned),
                    published,
                    builds: Vec::new(),
                });
            }
            if let Some(state) = states.last_mut() {
                let build = trial_build(&state.machine, row)?;
                state.builds.extend(build);
            }
        }
        Ok(states)
    }
}

impl Store {
    /// Returns the name of a host, if it was read by a look at all hosts.
    pub fn known_name(&self, host: HostId) -> Option<String> {
        self.known().name(host)
    }

    /// Returns the published revisions, and the last trial of each machine.
    ///
    /// # Errors
    /// The database fails.
    pub async fn revisions(&self) -> Result<Revisions, StoreError> {
        Connection(self.connection().await?).revisions().await
    }

    /// Returns the last trial of each machine with its builds.
    ///
    /// # Errors
    /// The database fails.
    pub async fn last_trials(&self) -> Result<Vec<TrialState>, StoreError> {
        Connection(self.connection().await?).trials(true).await
    }

    /// Returns the run of a build on a candidate.
    pub(crate) async fn run_on_trial(
        &self,
        build: BuildId,
        last: (Epoch, Option<Outcome>),
    ) -> Result<Option<BuildTrial>, StoreError> {
        let rows = self.query(sql::RUN_ON_TRIAL, &[&signed(build.0)]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let (epoch, ended) = last;
        let failure = row.get::<_, Option<&str>>(2);
        let failure = failure.map(|it| outcome(build, it)).transpose()?;
        let is_last = number(row, 1) == epoch.0;
        Ok(Some(BuildTrial {
            revision: Revision(number(row, 0)),
            outcome: failure.or(ended.filter(|_| is_last)),
            is_repeated: failure.is_some(),
        }))
    }
}

/// Reads a trial: name, published revision and content, number, revision, content, terms, promoted, reason.
fn trial(row: &Row) -> Result<Trial, StoreError> {
    const TABLE: &str = "trials";
    let (id, content) = (row.get(3), row.get::<_, Option<&str>>(5));
    let end = row.get::<_, Option<bool>>(7).map(|promoted| {
        let verdict = if promoted {
            TrialVerdict::Promoted
        } else {
            TrialVerdict::RolledBack
        };
        (verdict, row.get::<_, Option<String>>(8).unwrap_or_default())
    });
    Ok(Trial {
        number: TrialNumber(number(row, 3)),
        candidate: Published {
            revision: Revision(number(row, 4)),
            content: content.map(|it| parsed(TABLE, id, it)).transpose()?,
        },
        terms: parsed(TABLE, id, row.get(6))?,
        end,
    })
}

/// Reads the build of a row of [`sql::TRIALS`], if it has one.
fn trial_build(machine: &MachineName, row: &Row) -> Result<Option<TrialBuild>, StoreError> {
    let Some(id) = row.get::<_, Option<i64>>(11) else {
        return Ok(None);
    };
    let id = BuildId(id.cast_unsigned());
    let read = |column| {
        let text = row.get::<_, Option<&str>>(column);
        text.map(|it| outcome(id, it)).transpose()
    };
    let (failed, ended) = (read(12)?, read(14)?);
    let succeeded = || {
        ended
            .filter(|it| it.is_good())
            .map(|_| TrialResult::Succeeded)
    };
    let target = row.get::<_, Option<String>>(13);
    Ok(Some(TrialBuild {
        id,
        target: target.unwrap_or_else(|| machine.to_string()),
        result: failed.map(failure).or_else(succeeded),
        outcome: ended,
    }))
}
