//! Conditions on rows: the values that columns must have.

use std::fmt;
use std::str::FromStr;

/// A table with hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The unihashes of tasks.
    Unihashes,
    /// The reports of tasks.
    Outhashes,
}

/// A column that conditions may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the names of the columns")]
pub enum Column {
    Method,
    Taskhash,
    Unihash,
    GcMark,
    Outhash,
    Owner,
    Pn,
    Pv,
    Pr,
    Task,
    OuthashSiginfo,
}

/// The columns with their names in the database and on the wire.
const COLUMNS: [(Column, &str); 11] = [
    (Column::Method, "method"),
    (Column::Taskhash, "taskhash"),
    (Column::Unihash, "unihash"),
    (Column::GcMark, "gc_mark"),
    (Column::Outhash, "outhash"),
    (Column::Owner, "owner"),
    (Column::Pn, "PN"),
    (Column::Pv, "PV"),
    (Column::Pr, "PR"),
    (Column::Task, "task"),
    (Column::OuthashSiginfo, "outhash_siginfo"),
];

/// The values that columns must have. Without any it matches no row, so that a mistake deletes
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition(Vec<(Column, String)>);

/// The error of a name that is not a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownColumn;

impl Table {
    /// Returns the name in the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unihashes => "unihashes_v3",
            Self::Outhashes => "outhashes_v2",
        }
    }

    fn has(self, column: Column) -> bool {
        match column {
            Column::Method | Column::Taskhash => true,
            Column::Unihash | Column::GcMark => self == Self::Unihashes,
            _ => self == Self::Outhashes,
        }
    }
}

impl Column {
    /// Returns the names of all columns.
    pub fn names() -> [&'static str; COLUMNS.len()] {
        COLUMNS.map(|(_, name)| name)
    }
}

impl fmt::Display for Column {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = COLUMNS.iter().find(|(column, _)| column == self);
        out.write_str(found.map_or("", |(_, name)| name))
    }
}

impl FromStr for Column {
    type Err = UnknownColumn;

    fn from_str(text: &str) -> Result<Self, UnknownColumn> {
        let found = COLUMNS.iter().find(|(_, name)| *name == text);
        found.map(|(column, _)| *column).ok_or(UnknownColumn)
    }
}

impl Condition {
    /// Requires a value of a column.
    pub fn require(&mut self, column: Column, value: String) {
        self.0.push((column, value));
    }

    /// Returns true if rows of a table can match: the table has all of the columns.
    pub fn applies_to(&self, table: Table) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(column, _)| table.has(*column))
    }

    /// Returns true if an index of a table finds the rows, which are few then.
    pub(crate) fn is_indexed(&self, table: Table) -> bool {
        let requires = |column| self.0.iter().any(|(required, _)| *required == column);
        let is_one_task = requires(Column::Method) && requires(Column::Taskhash);
        is_one_task
            || match table {
                Table::Unihashes => requires(Column::Unihash),
                Table::Outhashes => requires(Column::Method) && requires(Column::Outhash),
            }
    }

    /// Returns the columns and their values.
    pub(crate) fn values(&self) -> impl Iterator<Item = (Column, &str)> {
        self.0
            .iter()
            .map(|(column, value)| (*column, value.as_str()))
    }
}

impl FromIterator<(Column, String)> for Condition {
    fn from_iter<I: IntoIterator<Item = (Column, String)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(columns: &[Column]) -> Condition {
        columns
            .iter()
            .map(|column| (*column, "x".to_owned()))
            .collect()
    }

    #[test]
    fn a_condition_applies_to_the_tables_with_all_of_its_columns() {
        for (columns, unihashes, outhashes) in [
            (&[][..], false, false),
            (&[Column::Method], true, true),
            (&[Column::Unihash], true, false),
            (&[Column::Method, Column::Outhash], false, true),
            (&[Column::Unihash, Column::Outhash], false, false),
        ] {
            let condition = condition(columns);
            assert_eq!(
                condition.applies_to(Table::Unihashes),
                unihashes,
                "{columns:?}"
            );
            assert_eq!(
                condition.applies_to(Table::Outhashes),
                outhashes,
                "{columns:?}"
            );
        }
    }

    #[test]
    fn columns_are_read_as_they_are_written() {
        for name in Column::names() {
            assert_eq!(name.parse::<Column>().unwrap().to_string(), name);
        }
        assert_eq!("created".parse::<Column>(), Err(UnknownColumn));
    }
}
