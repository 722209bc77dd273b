//! Changes of many rows, as steps that are made in slices.

use std::time::Duration;

use jiff::Timestamp;

use super::ServiceError;
use crate::condition::{Condition, Table};
use crate::row::Mapping;
use crate::store::database::timestamp;
use crate::store::slice::{Action, Bulk, Selection};
use crate::store::{Store, StoreError};

/// A change of many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maintenance {
    /// Begins or continues a garbage collection: marks unihashes that are kept.
    Mark {
        /// The name of the collection.
        mark: String,
        /// The unihashes.
        condition: Condition,
    },
    /// Ends a garbage collection: deletes the unihashes without its mark.
    Sweep {
        /// The name of the collection.
        mark: String,
    },
    /// Deletes rows.
    Remove(Condition),
    /// Deletes reports before a time whose tasks have no unihash.
    CleanUnused {
        /// The time.
        before: String,
    },
    /// Deletes tasks that were not reported since a time, and their reports.
    Expire {
        /// The time.
        since: String,
    },
}

/// The progress of a maintenance.
#[derive(Debug)]
pub(super) struct Progress {
    /// The maintenance.
    pub(super) maintenance: Maintenance,
    /// The steps that are left; the first one is being made.
    steps: Vec<Bulk>,
    after: i64,
    /// The number of rows that were changed.
    pub(super) count: u64,
}

/// The outcome of a slice.
#[derive(Debug)]
pub(super) enum Step {
    /// More slices are left.
    Unfinished,
    /// It was the last one.
    Finished,
}

/// The error of a slice.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Refused(#[from] ServiceError),
}

impl Maintenance {
    /// Deletes reports of a minimum age whose tasks have no unihash.
    pub fn clean_unused_since(age: Duration) -> Self {
        let now = Timestamp::now();
        Self::clean_unused(now.checked_sub(age).unwrap_or(Timestamp::MIN))
    }

    pub(super) fn clean_unused(before: Timestamp) -> Self {
        Self::CleanUnused {
            before: timestamp(before),
        }
    }

    pub(super) fn expire(since: Timestamp) -> Self {
        Self::Expire {
            since: timestamp(since),
        }
    }

    fn steps(&self) -> Vec<Bulk> {
        let delete = |table, selection| Bulk {
            table,
            selection,
            action: Action::Delete,
        };
        match self {
            Self::Mark { mark, condition } => {
                let mark = Bulk {
                    table: Table::Unihashes,
                    selection: Selection::Where(condition.clone()),
                    action: Action::Mark(mark.clone()),
                };
                let applies = condition.applies_to(Table::Unihashes);
                applies.then_some(mark).into_iter().collect()
            }
            Self::Sweep { mark } => {
                vec![delete(
                    Table::Unihashes,
                    Selection::WithoutMark(mark.clone()),
                )]
            }
            Self::Remove(condition) => [Table::Outhashes, Table::Unihashes]
                .into_iter()
                .filter(|table| condition.applies_to(*table))
                .map(|table| delete(table, Selection::Where(condition.clone())))
                .collect(),
            Self::CleanUnused { before } => {
                vec![delete(Table::Outhashes, Selection::Unused(before.clone()))]
            }
            Self::Expire { since } => vec![
                delete(Table::Unihashes, Selection::NotReportedSince(since.clone())),
                delete(Table::Outhashes, Selection::Unused(since.clone())),
            ],
        }
    }
}

impl Progress {
    /// Begins a maintenance.
    pub(super) fn new(maintenance: Maintenance) -> Self {
        Self {
            steps: maintenance.steps(),
            maintenance,
            after: 0,
            count: 0,
        }
    }

    /// Makes the next slice, in the open transaction. Adds what it deletes to `deleted`.
    pub(super) fn make_slice(
        &mut self,
        store: &mut Store,
        deleted: &mut Vec<Mapping>,
    ) -> Result<Step, StepError> {
        match &self.maintenance {
            Maintenance::Mark { mark, .. } if self.after == 0 => store.set_gc_mark(Some(mark))?,
            // Another server may have begun a collection in the meantime.
            Maintenance::Sweep { mark } if store.gc_mark()?.as_ref() != Some(mark) => {
                return Err(ServiceError::NotCurrentMark(mark.clone()).into());
            }
            _ => {}
        }
        if let Some(bulk) = self.steps.first() {
            let slice = store.change_slice(bulk, self.after)?;
            self.count += slice.count;
            deleted.extend(slice.deleted);
            self.after = slice.next.unwrap_or_default();
            if slice.next.is_none() {
                self.steps.remove(0);
            }
        }
        if !self.steps.is_empty() {
            return Ok(Step::Unfinished);
        }
        if let Maintenance::Sweep { .. } = self.maintenance {
            store.set_gc_mark(None)?;
        }
        Ok(Step::Finished)
    }
}
