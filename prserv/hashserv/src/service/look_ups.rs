//! Look-ups: in memory, else in the database, else at the upstream server.

use std::sync::Arc;

use super::change::Change;
use super::writer::WriterCommand;
use super::{Service, ServiceError};
use crate::row::{Mapping, RecordedReport, Report, TaskKey};
use crate::upstream::Upstream;

impl Service {
    /// Returns the unihash of each task, given by method and taskhash.
    ///
    /// # Errors
    /// The database failed.
    pub async fn unihashes(
        &self,
        tasks: &[(&str, &str)],
    ) -> Result<Vec<Option<Arc<str>>>, ServiceError> {
        self.metrics().look_ups.inc_by(tasks.len() as u64);
        let mut found = self.cached(tasks);
        let missing: Vec<usize> = (0..tasks.len())
            .filter(|index| found[*index].is_none())
            .collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let keys = missing.iter().map(|index| TaskKey {
            method: tasks[*index].0.to_owned(),
            taskhash: tasks[*index].1.to_owned(),
        });
        let keys: Vec<TaskKey> = keys.collect();
        let mut recorded = self.shared.readers.unihashes(keys.clone()).await?;
        if let Some(upstream) = &self.shared.upstream {
            self.ask_upstream(upstream, keys, &mut recorded).await;
        }
        for (index, unihash) in missing.into_iter().zip(recorded) {
            found[index] = unihash;
        }
        Ok(found)
    }

    fn cached(&self, tasks: &[(&str, &str)]) -> Vec<Option<Arc<str>>> {
        match &self.shared.cache {
            Some(cache) => tasks
                .iter()
                .map(|(method, taskhash)| cache.unihash(method, taskhash))
                .collect(),
            None => vec![None; tasks.len()],
        }
    }

    /// Fills the missing unihashes with those of the upstream server and records them later.
    async fn ask_upstream(
        &self,
        upstream: &Upstream,
        tasks: Vec<TaskKey>,
        found: &mut [Option<Arc<str>>],
    ) {
        let missing: Vec<(usize, TaskKey)> = tasks
            .into_iter()
            .enumerate()
            .filter(|(index, _)| found[*index].is_none())
            .collect();
        let keys: Vec<TaskKey> = missing.iter().map(|(_, task)| task.clone()).collect();
        let answers = upstream.unihashes(&keys).await;
        for ((index, task), unihash) in missing.into_iter().zip(answers) {
            if let Some(unihash) = unihash {
                found[index] = Some(Arc::from(unihash.as_str()));
                let change = Change::Equate(Mapping { task, unihash });
                let command = WriterCommand::Backfill(change, upstream.begin_backfill());
                if self.shared.writer.send(command).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Returns for each unihash whether it is recorded here or at the upstream server.
    ///
    /// # Errors
    /// The database failed.
    pub async fn exist(&self, unihashes: &[&str]) -> Result<Vec<bool>, ServiceError> {
        self.metrics().look_ups.inc_by(unihashes.len() as u64);
        let known = |unihash: &&str| {
            let cache = self.shared.cache.as_ref();
            cache.is_some_and(|cache| cache.contains_unihash(unihash))
        };
        let mut exist: Vec<bool> = unihashes.iter().map(known).collect();
        let missing: Vec<usize> = (0..exist.len()).filter(|index| !exist[*index]).collect();
        if missing.is_empty() {
            return Ok(exist);
        }
        let keys: Vec<String> = missing
            .iter()
            .map(|index| unihashes[*index].to_owned())
            .collect();
        let mut recorded = self.shared.readers.exist(keys.clone()).await?;
        if let Some(upstream) = &self.shared.upstream
            && recorded.contains(&false)
        {
            let unknown: Vec<usize> = (0..recorded.len())
                .filter(|index| !recorded[*index])
                .collect();
            let asked: Vec<&str> = unknown.iter().map(|index| keys[*index].as_str()).collect();
            for (index, exists) in unknown.iter().zip(upstream.exist(&asked).await) {
                recorded[*index] = exists;
            }
        }
        for (index, exists) in missing.into_iter().zip(recorded) {
            exist[index] = exists;
        }
        Ok(exist)
    }

    /// Returns the unihash of one task and records it if it comes from the upstream server.
    ///
    /// # Errors
    /// The database failed.
    pub async fn unihash(&self, task: &TaskKey) -> Result<Option<Arc<str>>, ServiceError> {
        self.metrics().look_ups.inc();
        if let [Some(unihash)] = &self.cached(&[(&task.method, &task.taskhash)])[..] {
            return Ok(Some(Arc::clone(unihash)));
        }
        let recorded = self.shared.readers.unihashes(vec![task.clone()]).await?;
        let recorded = recorded.into_iter().next().flatten();
        let Some(upstream) = self.shared.upstream.as_ref().filter(|_| recorded.is_none()) else {
            return Ok(recorded);
        };
        let found = upstream.unihashes(std::slice::from_ref(task)).await;
        let Some(unihash) = found.into_iter().next().flatten() else {
            return Ok(None);
        };
        let task = task.clone();
        let recorded = self.text(Change::Equate(Mapping { task, unihash })).await?;
        Ok(Some(recorded.into()))
    }

    /// Returns the first report of a task that has a unihash.
    ///
    /// # Errors
    /// The database failed.
    pub async fn report_of(&self, task: TaskKey) -> Result<Option<RecordedReport>, ServiceError> {
        self.metrics().look_ups.inc();
        let asked = task.clone();
        let found = self.read(move |store| store.report_of(&asked)).await?;
        match (found, &self.shared.upstream) {
            (None, Some(upstream)) => self.record(upstream.report_of(&task).await).await,
            (found, _) => Ok(found),
        }
    }

    /// Returns the first report with an outhash, of a task that has a unihash or of any task.
    ///
    /// # Errors
    /// The database failed.
    pub async fn report_with(
        &self,
        task: TaskKey,
        outhash: String,
        with_unihash: bool,
    ) -> Result<Option<RecordedReport>, ServiceError> {
        self.metrics().look_ups.inc();
        let (method, asked) = (task.method.clone(), outhash.clone());
        let found = self
            .read(move |store| store.report_with(&method, &asked, with_unihash))
            .await?;
        match (found, &self.shared.upstream) {
            (None, Some(upstream)) => {
                self.record(upstream.report_with(&task, &outhash).await)
                    .await
            }
            (found, _) => Ok(found),
        }
    }

    /// Records a report of the upstream server.
    async fn record(
        &self,
        found: Option<RecordedReport>,
    ) -> Result<Option<RecordedReport>, ServiceError> {
        if let Some(report) = &found {
            self.change(Change::Copy(Box::new(report.clone()))).await?;
        }
        Ok(found)
    }

    /// Returns the unihash that the upstream server has for the outhash of a report which is new
    /// here.
    pub(super) async fn upstream_unihash(
        &self,
        report: &Report,
    ) -> Result<Option<String>, ServiceError> {
        let Some(upstream) = &self.shared.upstream else {
            return Ok(None);
        };
        let (method, outhash) = (report.task.method.clone(), report.outhash.clone());
        let known = self
            .read(move |store| store.report_with(&method, &outhash, true))
            .await?;
        if known.is_some() {
            return Ok(None);
        }
        let found = upstream.report_with(&report.task, &report.outhash).await;
        Ok(found
            .and_then(|found| found.unihash)
            .map(|recorded| recorded.unihash))
    }
}
