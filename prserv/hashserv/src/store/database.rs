//! The location of a database: a SQLite file or the URL of a PostgreSQL database.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::postgres::{Postgres, without_password};
use super::sql::OpenMode;
use super::sqlite::Sqlite;
use super::{Store, StoreError};

/// The location of a database.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database: `postgres://USER@HOST/NAME`.
    Postgres(String),
}

impl Database {
    /// Opens the database. Blocks, so it must not be called on a thread that runs async tasks.
    pub fn open(&self, mode: OpenMode) -> Result<Store, StoreError> {
        Ok(Store {
            sql: match self {
                Self::Sqlite(path) => Box::new(Sqlite::open(path, mode)?),
                Self::Postgres(url) => Box::new(Postgres::open(url, mode)?),
            },
        })
    }

    /// Returns true if unihashes may be kept in memory: writes by others are noticed.
    pub(crate) fn notices_external_writes(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }
}

/// Returns a time in the format of the column `created`.
pub(crate) fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

impl From<&str> for Database {
    fn from(text: &str) -> Self {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Self::Postgres(text.to_owned())
        } else {
            Self::Sqlite(text.into())
        }
    }
}

impl From<&Path> for Database {
    fn from(path: &Path) -> Self {
        Self::Sqlite(path.to_owned())
    }
}

impl fmt::Display for Database {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(out, "{}", path.display()),
            Self::Postgres(url) => out.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        let database = Database::from("postgres://me:secret@db.example.org/hash?password=x");
        assert_eq!(format!("{database:?}"), "postgres://me@db.example.org/hash");
        assert_eq!(Database::from("hashserv.db").to_string(), "hashserv.db");
    }

    #[test]
    fn times_are_sorted_as_text() {
        let time = |text: &str| timestamp(text.parse().unwrap());
        assert_eq!(
            time("2026-11-30T01:02:03Z"),
            "2026-11-30T01:02:03.000000+00:00"
        );
        assert!(time("2026-11-30T01:02:03.5Z") < time("2026-11-30T01:02:04Z"));
    }
}
