//! Changes of many rows in slices, so that nobody waits long for one.
//!
//! Rows are visited in the order of their ids. Where an index finds the rows, a slice is a number
//! of matching rows; elsewhere it is a range of ids, so that its time does not depend on the number
//! of matches.

use super::sql::Param;
use super::{Store, StoreError};
use crate::condition::{Condition, Table};
use crate::row::{Mapping, TaskKey};

/// The matching rows of a slice where an index finds them.
const ROWS_MAX: i64 = 500;

/// The range of ids that a slice searches elsewhere.
const IDS_MAX: i64 = 2000;

/// A change of many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bulk {
    /// The table.
    pub table: Table,
    /// The rows.
    pub selection: Selection,
    /// The change.
    pub action: Action,
}

/// Rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Rows that fulfil a condition.
    Where(Condition),
    /// Unihashes without a mark.
    WithoutMark(String),
    /// Reports before a time whose tasks have no unihash.
    Unused(String),
    /// Unihashes of tasks that were reported, but not since a time.
    NotReportedSince(String),
}

/// The change of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Deletes it.
    Delete,
    /// Sets its mark.
    Mark(String),
}

/// A slice that was changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The number of rows.
    pub count: u64,
    /// The id after which the next slice begins; `None` if this was the last one.
    pub next: Option<i64>,
    /// The unihashes that were deleted.
    pub deleted: Vec<Mapping>,
}

impl Store {
    /// Changes the rows of a slice that begins after an id.
    pub fn change_slice(&mut self, bulk: &Bulk, after: i64) -> Result<Slice, StoreError> {
        let Bulk {
            table,
            selection,
            action,
        } = bulk;
        let is_indexed =
            matches!(selection, Selection::Where(condition) if condition.is_indexed(*table));
        let bound = if is_indexed {
            ROWS_MAX
        } else {
            after.saturating_add(IDS_MAX)
        };
        let mut params = vec![Param::Integer(after), Param::Integer(bound)];
        let condition = self.sql_of(selection, is_indexed, &mut params);
        let name = table.name();
        let ids = if is_indexed {
            format!(
                "SELECT id FROM {name} t WHERE id > CAST(?1 AS bigint) AND {condition}
                ORDER BY id LIMIT CAST(?2 AS bigint)"
            )
        } else {
            format!(
                "SELECT id FROM {name} t WHERE id > CAST(?1 AS bigint) AND id <= CAST(?2 AS bigint)
                AND {condition}"
            )
        };
        let columns = match table {
            Table::Unihashes => "CAST(id AS bigint), method, taskhash, unihash",
            Table::Outhashes => "CAST(id AS bigint)",
        };
        let change = match action {
            Action::Delete => format!("DELETE FROM {name}"),
            Action::Mark(mark) => {
                params.push(Param::Text(mark));
                format!("UPDATE {name} SET gc_mark = ?{}", params.len())
            }
        };
        let sql = format!("{change} WHERE id IN ({ids}) RETURNING {columns}");
        let rows = self.sql.query(&sql, &params)?;
        let mut slice = Slice {
            count: rows.len() as u64,
            ..Slice::default()
        };
        let mut last = after;
        for row in &rows {
            last = last.max(row.integer(0)?);
            if (*table, action) == (Table::Unihashes, &Action::Delete) {
                slice.deleted.push(Mapping {
                    task: TaskKey {
                        method: row.text(1)?,
                        taskhash: row.text(2)?,
                    },
                    unihash: row.text(3)?,
                });
            }
        }
        slice.next = if is_indexed {
            i64::try_from(rows.len())
                .is_ok_and(|rows| rows == ROWS_MAX)
                .then_some(last)
        } else {
            (bound < self.last_id(*table)?).then_some(bound)
        };
        Ok(slice)
    }

    fn last_id(&mut self, table: Table) -> Result<i64, StoreError> {
        let sql = format!(
            "SELECT CAST(COALESCE(max(id), 0) AS bigint) FROM {}",
            table.name()
        );
        let rows = self.sql.query(&sql, &[])?;
        rows.first().ok_or(StoreError::Type)?.integer(0)
    }

    /// Returns the SQL of a selection, whose parameters are appended. Without an index, columns are
    /// written as expressions, so that no index is chosen instead of the range of ids.
    fn sql_of<'s>(
        &self,
        selection: &'s Selection,
        is_indexed: bool,
        params: &mut Vec<Param<'s>>,
    ) -> String {
        let mut param = |text: &'s str| {
            params.push(Param::Text(text));
            format!("?{}", params.len())
        };
        match selection {
            Selection::Where(condition) => {
                let equal = |(column, value)| {
                    let value = param(value);
                    if is_indexed {
                        format!("t.\"{column}\" = {value}")
                    } else {
                        format!("(t.\"{column}\" || '') = {value}")
                    }
                };
                condition
                    .values()
                    .map(equal)
                    .collect::<Vec<_>>()
                    .join(" AND ")
            }
            Selection::WithoutMark(mark) => format!("t.gc_mark != {}", param(mark)),
            Selection::Unused(before) => {
                let before = self.sql.dialect().time(&param(before));
                format!(
                    "t.created < {before} AND NOT EXISTS (SELECT 1 FROM unihashes_v3 u
                    WHERE u.method = t.method AND u.taskhash = t.taskhash)"
                )
            }
            Selection::NotReportedSince(since) => {
                let since = self.sql.dialect().time(&param(since));
                let reports = "SELECT 1 FROM outhashes_v2 o
                    WHERE o.method = t.method AND o.taskhash = t.taskhash";
                format!(
                    "EXISTS ({reports}) AND NOT EXISTS ({reports}
                    AND (o.created IS NULL OR o.created >= {since}))"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
