//! The finished builds of a machine by revision.

use std::collections::BTreeMap;

use config::machines::BuildCounts;
use config::task::Outcome;
use config::{MachineName, Revision};
use rusqlite::params;

use super::rows::parse;
use super::{Records, RecordsError};

/// The number of builds that count, latest first.
const CONSIDERED_MAX: u32 = 2000;

const COUNTS: &str = "SELECT revision, outcome, COUNT(*) AS builds FROM (
        SELECT revision, outcome FROM builds INDEXED BY builds_machine
        WHERE machine = ?1 ORDER BY submitted DESC LIMIT ?2
    ) WHERE revision IS NOT NULL AND outcome IS NOT NULL GROUP BY revision, outcome";

impl Records {
    /// Returns the numbers of finished builds on each revision, among the last builds of a machine.
    pub async fn counts_by_revision(
        &self,
        machine: &MachineName,
    ) -> Result<BTreeMap<Revision, BuildCounts>, RecordsError> {
        let machine = machine.clone();
        let counts = self.database.read(move |connection| {
            let mut select = connection.prepare_cached(COUNTS)?;
            let mut rows = select.query(params![machine.as_str(), CONSIDERED_MAX])?;
            let mut counts: BTreeMap<Revision, BuildCounts> = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let revision = Revision(row.get("revision")?);
                let builds: u32 = row.get("builds")?;
                let outcome: Outcome = parse(row, "outcome")?;
                let counts = counts.entry(revision).or_default();
                *match outcome {
                    Outcome::Success | Outcome::Warning => &mut counts.succeeded,
                    Outcome::Error => &mut counts.failed,
                    Outcome::Skip | Outcome::Abort | Outcome::Abnormal | Outcome::Interrupt => {
                        &mut counts.other
                    }
                } += builds;
            }
            Ok(counts)
        });
        counts.await
    }
}
