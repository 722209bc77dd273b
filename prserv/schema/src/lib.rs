//! Migrations of a PostgreSQL schema, as SQL for any client.
//!
//! The caller executes [`Migrations::begin`], reads the version with [`Migrations::version`], and executes
//! [`Migrations::finish`]. All is one transaction, and an advisory lock makes others wait that start at the
//! same time.

use std::fmt::Write;

/// The scripts that migrate a schema from one version to the next.
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    /// The table with the versions.
    pub table: &'static str,
    /// The advisory lock.
    pub lock: i64,
    /// The scripts. Append only.
    pub scripts: &'static [&'static str],
}

impl Migrations {
    /// Returns the SQL that begins the migration.
    pub fn begin(&self) -> String {
        let Self { table, lock, .. } = self;
        format!(
            "BEGIN; SELECT pg_advisory_xact_lock({lock});
             CREATE TABLE IF NOT EXISTS {table} (version integer NOT NULL)"
        )
    }

    /// Returns the query for the version, an integer.
    pub fn version(&self) -> String {
        format!("SELECT coalesce(max(version), 0) FROM {}", self.table)
    }

    /// Returns the SQL that migrates from a version to the newest one, and ends the transaction.
    pub fn finish(&self, version: i32) -> String {
        let mut sql = String::new();
        for (number, script) in (1..).zip(self.scripts) {
            if number > version {
                // Writing to a string does not fail.
                let _ = writeln!(sql, "{script};");
                let _ = writeln!(sql, "INSERT INTO {} VALUES ({number});", self.table);
            }
        }
        sql + "COMMIT"
    }

    /// Returns the newest version.
    pub fn newest(&self) -> i32 {
        i32::try_from(self.scripts.len()).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_versions_are_created() {
        let migrations = Migrations {
            table: "t",
            lock: 1,
            scripts: &["A", "B", "C"],
        };
        assert_eq!(
            migrations.finish(1),
            "B;\nINSERT INTO t VALUES (2);\nC;\nINSERT INTO t VALUES (3);\nCOMMIT"
        );
        assert_eq!(migrations.finish(3), "COMMIT");
        assert_eq!(migrations.newest(), 3);
    }
}
