//! The decision which unihash a reported task gets.
//!
//! A task keeps the first unihash that it got. The first report of a task's outhash decides: if
//! another task was reported with the same outhash before, the new task gets that one's unihash,
//! else the one that an upstream server has for the outhash, else its own.

use crate::row::{Mapping, Report, TaskKey};

/// The rows that a decision reads and adds, in one transaction.
pub trait Rows {
    /// The error of reading or adding.
    type Error;

    /// Returns the unihash of a task.
    fn unihash(&mut self, task: &TaskKey) -> Result<Option<String>, Self::Error>;

    /// Returns the unihash of the other task that was reported first with an outhash, among those
    /// that have a unihash.
    fn equivalent(&mut self, task: &TaskKey, outhash: &str) -> Result<Option<String>, Self::Error>;

    /// Adds a report. Returns false if the task was already reported with this outhash.
    fn add_report(&mut self, report: &Report) -> Result<bool, Self::Error>;

    /// Adds the unihash of a task that has none.
    fn add_unihash(&mut self, mapping: &Mapping) -> Result<(), Self::Error>;
}

/// The answer to a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The unihash of the task.
    pub unihash: String,
    /// False if a garbage collection has deleted the unihash of the task, whose report is still
    /// recorded.
    pub is_recorded: bool,
}

/// Records a report and returns the unihash of its task. `upstream` is the unihash that an upstream
/// server has for the outhash.
///
/// # Errors
/// The rows cannot be read or added.
pub fn report<R: Rows>(
    rows: &mut R,
    report: &Report,
    upstream: Option<&str>,
) -> Result<Decision, R::Error> {
    if rows.add_report(report)? {
        let equivalent = rows.equivalent(&report.task, &report.outhash)?;
        let unihash = equivalent
            .or_else(|| upstream.map(str::to_owned))
            .unwrap_or_else(|| report.unihash.clone());
        rows.add_unihash(&Mapping {
            task: report.task.clone(),
            unihash,
        })?;
    }
    Ok(Decision::new(rows.unihash(&report.task)?, &report.unihash))
}

/// Records the unihash of a task unless it has one, and returns the recorded one.
///
/// # Errors
/// The rows cannot be read or added.
pub fn equate<R: Rows>(rows: &mut R, mapping: &Mapping) -> Result<Decision, R::Error> {
    rows.add_unihash(mapping)?;
    Ok(Decision::new(
        rows.unihash(&mapping.task)?,
        &mapping.unihash,
    ))
}

impl Decision {
    fn new(recorded: Option<String>, fallback: &str) -> Self {
        let is_recorded = recorded.is_some();
        Self {
            unihash: recorded.unwrap_or_else(|| fallback.to_owned()),
            is_recorded,
        }
    }
}

#[cfg(test)]
mod tests;
