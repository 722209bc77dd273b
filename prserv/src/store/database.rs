//! The location of a database: a SQLite file or the URL of a PostgreSQL database.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{OpenMode, Postgres, Sqlite, Store, StoreError};

/// The location of a database.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file, written by one server at a time.
    Sqlite(PathBuf),
    /// A PostgreSQL database that several servers may share: `postgres://USER@HOST/NAME`.
    Postgres(String),
}

impl Database {
    /// Opens the database. Blocks, so it must not be called on a thread that runs async tasks.
    pub fn open(&self, mode: OpenMode) -> Result<Box<dyn Store>, StoreError> {
        Ok(match (self, mode) {
            (Self::Sqlite(path), OpenMode::Write) => {
                Box::new(Sqlite::open(path)?.keeping_write_lock()?)
            }
            (Self::Sqlite(path), OpenMode::Read) => Box::new(Sqlite::open_read_only(path)?),
            (Self::Postgres(url), mode) => Box::new(Postgres::open(url, mode)?),
        })
    }

    /// Opens a database for writing that must exist.
    pub fn open_existing(&self) -> Result<Box<dyn Store>, StoreError> {
        match self {
            Self::Sqlite(path) if !path.exists() => Err(StoreError::Missing { path: path.clone() }),
            Self::Sqlite(_) | Self::Postgres(_) => self.open(OpenMode::Write),
        }
    }

    /// Returns true if no other server can assign values while this one does.
    pub(crate) fn has_one_writer(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }
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

impl From<String> for Database {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<PathBuf> for Database {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl From<&PathBuf> for Database {
    fn from(path: &PathBuf) -> Self {
        Self::Sqlite(path.clone())
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

/// Removes the password and the options from a URL, so that it can be logged.
fn without_password(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match url
        .split_once("://")
        .and_then(|(kind, rest)| Some((kind, rest.rsplit_once('@')?)))
    {
        Some((kind, (user, host))) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{kind}://{user}@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_postgresql_and_passwords_are_hidden() {
        for (text, shown) in [
            ("prserv.sqlite3", "prserv.sqlite3"),
            (
                "postgres://me:secret@db.example.org:5432/pr?password=x",
                "postgres://me@db.example.org:5432/pr",
            ),
            ("postgresql:///pr?host=/run", "postgresql:///pr"),
        ] {
            let database = Database::from(text);
            assert_eq!(
                format!("{database} {database:?}"),
                format!("{shown} {shown}")
            );
            assert_eq!(database.has_one_writer(), !text.contains("://"));
        }
    }
}
