//! Which database: a file, or a PostgreSQL server by its URL.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Postgres, Sqlite, Store, StoreError};

/// Where a service keeps its rows.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file, written by one server at a time.
    Sqlite(PathBuf),
    /// A PostgreSQL database that several servers may share: `postgres://USER@HOST/NAME`.
    Postgres(String),
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Giving values: what is missing is made.
    Write,
    /// Looking only: what is missing is an error.
    Read,
}

impl Database {
    /// Connects. Blocks, and must not be called on a thread that runs async tasks.
    pub fn open(&self, mode: Mode) -> Result<Box<dyn Store>, StoreError> {
        Ok(match (self, mode) {
            (Self::Sqlite(path), Mode::Write) => Box::new(Sqlite::open(path)?),
            (Self::Sqlite(path), Mode::Read) => Box::new(Sqlite::open_read_only(path)?),
            (Self::Postgres(url), mode) => Box::new(Postgres::open(url, mode)?),
        })
    }

    /// Whether nobody else gives values while we do.
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

/// A URL as a log may hold it: nothing after the user's name, up to the host, and no options.
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
    fn a_url_is_postgresql_and_its_password_is_not_shown() {
        for (text, shown) in [
            ("prserv.sqlite3", "prserv.sqlite3"),
            (
                "postgres://me:secret@db.example:5432/pr?password=x",
                "postgres://me@db.example:5432/pr",
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
