//! The index of a cache: a table of its entries in an SQLite database.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::BuildId;
use config::cache::{CacheEntry, CachePath};
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::CacheError;
use crate::content::ContentHash;
use crate::journal::Content;

/// The format of the index.
const FORMAT: i64 = 1;
/// The time to wait for another program that reads the index, such as a backup.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
const SCHEMA: &str = "
    CREATE TABLE entries (
        path TEXT PRIMARY KEY,
        hash TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        build INTEGER NOT NULL,
        published INTEGER NOT NULL,
        used INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX entries_hash ON entries (hash);
    CREATE INDEX entries_used ON entries (used, path, bytes);
    PRAGMA user_version = 1;";
/// The condition of paths that begin with `?1`.
const HAS_PREFIX: &str = "substr(path, 1, length(?1)) = ?1";

/// The number and the size of all entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// The number.
    pub(crate) entries: u64,
    /// The sum of their sizes.
    pub(crate) bytes: u64,
}

/// The open index of a cache.
#[derive(Debug)]
pub(crate) struct Index {
    connection: Connection,
    path: PathBuf,
}

impl Index {
    /// Opens or creates the index at a path.
    ///
    /// # Errors
    /// It is damaged, or a newer agent has written it.
    pub(crate) fn open(path: &Path) -> Result<Self, CacheError> {
        let fault = |source| CacheError::Index {
            path: path.to_owned(),
            source,
        };
        let connection = open(path).map_err(fault)?;
        let format = "PRAGMA user_version";
        let format: i64 = connection
            .query_row(format, [], |row| row.get(0))
            .map_err(fault)?;
        match format {
            0 => {
                let create = format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;");
                connection.execute_batch(&create).map_err(fault)?;
            }
            FORMAT => {}
            format => {
                let path = path.to_owned();
                return Err(CacheError::Newer { path, format });
            }
        }
        Ok(Self {
            connection,
            path: path.to_owned(),
        })
    }

    /// Returns the content of an entry.
    pub(crate) fn find(&self, path: &CachePath) -> Result<Option<Content>, CacheError> {
        self.run(|connection| {
            let sql = "SELECT hash, bytes FROM entries WHERE path = ?1";
            let mut query = connection.prepare_cached(sql)?;
            query.query_row([path.as_str()], content).optional()
        })
    }

    /// Adds or replaces entries of a build, all or none.
    pub(crate) fn put(
        &mut self,
        entries: &[(CachePath, Content)],
        build: BuildId,
        now: Timestamp,
    ) -> Result<(), CacheError> {
        self.change(|connection| {
            let sql = "INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?5)";
            let mut insert = connection.prepare_cached(sql)?;
            for (path, content) in entries {
                let (hash, bytes) = (content.hash.to_string(), to_sql(content.bytes));
                let (build, now) = (to_sql(build.0), now.as_second());
                insert.execute(params![path.as_str(), hash, bytes, build, now])?;
            }
            Ok(())
        })
    }

    /// Records when entries were last used.
    pub(crate) fn note_uses(
        &mut self,
        used: &HashMap<CachePath, Timestamp>,
    ) -> Result<(), CacheError> {
        self.change(|connection| {
            let sql = "UPDATE entries SET used = ?2 WHERE path = ?1 AND used < ?2";
            let mut update = connection.prepare_cached(sql)?;
            for (path, at) in used {
                update.execute(params![path.as_str(), at.as_second()])?;
            }
            Ok(())
        })
    }

    /// Removes entries, all or none. Returns the hashes that no entry has any more.
    pub(crate) fn remove(&mut self, paths: &[CachePath]) -> Result<Vec<ContentHash>, CacheError> {
        self.change(|connection| {
            let sql = "DELETE FROM entries WHERE path = ?1 RETURNING hash";
            let mut delete = connection.prepare_cached(sql)?;
            let mut hashes = BTreeSet::new();
            for path in paths {
                hashes.extend(delete.query_row([path.as_str()], hash).optional()?);
            }
            unused(connection, hashes)
        })
    }

    /// Removes the entries with a content.
    pub(crate) fn remove_content(&mut self, content: ContentHash) -> Result<(), CacheError> {
        self.change(|connection| {
            let sql = "DELETE FROM entries WHERE hash = ?1";
            connection.execute(sql, [content.to_string()])?;
            Ok(())
        })
    }

    /// Returns those of the hashes that no entry has.
    pub(crate) fn unused(
        &self,
        hashes: impl IntoIterator<Item = ContentHash>,
    ) -> Result<Vec<ContentHash>, CacheError> {
        self.run(|connection| unused(connection, hashes))
    }

    /// Returns the number and the size of all entries.
    pub(crate) fn totals(&self) -> Result<Totals, CacheError> {
        self.run(|connection| {
            let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM entries";
            connection.query_row(sql, [], |row| {
                Ok(Totals {
                    entries: unsigned(row, 0)?,
                    bytes: unsigned(row, 1)?,
                })
            })
        })
    }

    /// Returns true if there is an entry.
    pub(crate) fn has_entries(&self) -> Result<bool, CacheError> {
        self.run(|connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM entries)";
            connection.query_row(sql, [], |row| row.get(0))
        })
    }

    /// Returns the paths and sizes of entries as long as `wanted` returns true, beginning with those
    /// that were not used for the longest time.
    pub(crate) fn by_use(
        &self,
        mut wanted: impl FnMut(u64) -> bool,
    ) -> Result<Vec<(CachePath, u64)>, CacheError> {
        self.run(|connection| {
            let sql = "SELECT path, bytes FROM entries ORDER BY used, path";
            let mut query = connection.prepare_cached(sql)?;
            let mut rows = query.query([])?;
            let mut entries = Vec::new();
            while let Some(row) = rows.next()? {
                let bytes = unsigned(row, 1)?;
                if !wanted(bytes) {
                    break;
                }
                entries.push((cache_path(row)?, bytes));
            }
            Ok(entries)
        })
    }

    /// Returns the paths and sizes of the entries with this beginning, of this build if one is given.
    pub(crate) fn select(
        &self,
        prefix: &str,
        build: Option<BuildId>,
    ) -> Result<Vec<(CachePath, u64)>, CacheError> {
        self.run(|connection| {
            let sql = format!(
                "SELECT path, bytes FROM entries
                 WHERE {HAS_PREFIX} AND (?2 IS NULL OR build = ?2) ORDER BY path"
            );
            let mut query = connection.prepare_cached(&sql)?;
            let build = build.map(|build| to_sql(build.0));
            let entry = |row: &Row<'_>| Ok((cache_path(row)?, unsigned(row, 1)?));
            query.query_map(params![prefix, build], entry)?.collect()
        })
    }

    /// Returns entries with this beginning, in the order of their paths, from behind `after` on.
    pub(crate) fn list(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<CacheEntry>, CacheError> {
        self.run(|connection| {
            let sql = format!(
                "SELECT path, bytes, hash, build, published, used FROM entries
                 WHERE {HAS_PREFIX} AND path > ?2 ORDER BY path LIMIT ?3"
            );
            let mut query = connection.prepare_cached(&sql)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            query
                .query_map(params![prefix, after, limit], entry)?
                .collect()
        })
    }

    /// Returns the hashes of all contents.
    pub(crate) fn hashes(&self) -> Result<BTreeSet<ContentHash>, CacheError> {
        self.run(|connection| {
            let mut query = connection.prepare("SELECT DISTINCT hash FROM entries")?;
            query.query_map([], hash)?.collect()
        })
    }

    fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        work(&self.connection).map_err(|source| self.fault(source))
    }

    /// Runs a transaction. It is rolled back if `work` fails.
    fn change<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        let done = self.connection.transaction().and_then(|transaction| {
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        done.map_err(|source| self.fault(source))
    }

    fn fault(&self, source: rusqlite::Error) -> CacheError {
        let path = self.path.clone();
        CacheError::Index { path, source }
    }
}

/// Opens a database whose transactions survive a power failure.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_LIMIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn unused(
    connection: &Connection,
    hashes: impl IntoIterator<Item = ContentHash>,
) -> rusqlite::Result<Vec<ContentHash>> {
    let mut query = connection.prepare_cached("SELECT 1 FROM entries WHERE hash = ?1 LIMIT 1")?;
    let mut unused = Vec::new();
    for hash in hashes {
        if !query.exists([hash.to_string()])? {
            unused.push(hash);
        }
    }
    Ok(unused)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<CacheEntry> {
    Ok(CacheEntry {
        path: cache_path(row)?,
        bytes: unsigned(row, 1)?,
        blake3: row.get(2)?,
        build: BuildId(unsigned(row, 3)?),
        published: timestamp(row, 4)?,
        used: timestamp(row, 5)?,
    })
}

fn content(row: &Row<'_>) -> rusqlite::Result<Content> {
    Ok(Content {
        hash: hash(row)?,
        bytes: unsigned(row, 1)?,
    })
}

fn hash(row: &Row<'_>) -> rusqlite::Result<ContentHash> {
    let text: String = row.get(0)?;
    text.parse().map_err(|error| invalid(0, error))
}

fn cache_path(row: &Row<'_>) -> rusqlite::Result<CachePath> {
    let text: String = row.get(0)?;
    text.parse().map_err(|error| invalid(0, error))
}

fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_second(row.get(column)?).map_err(|error| invalid(column, error))
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|error| invalid(column, error))
}

fn invalid(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

/// Returns a number as SQLite stores it. No file and no host has more.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> (tempfile::TempDir, Index) {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(&directory.path().join("index.sqlite3")).unwrap();
        (directory, index)
    }

    fn entry(path: &str, text: &str) -> (CachePath, Content) {
        let content = Content {
            hash: blake3::hash(text.as_bytes()).into(),
            bytes: text.len() as u64,
        };
        (path.parse().unwrap(), content)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn paths(entries: Vec<(CachePath, u64)>) -> Vec<String> {
        entries.into_iter().map(|(path, _)| path.into()).collect()
    }

    #[test]
    fn entries_are_ordered_by_their_last_use_and_selected_by_path_and_build() {
        let (directory, mut index) = index();
        let put = |index: &mut Index, path: &str, text: &str, build, second| {
            index
                .put(&[entry(path, text)], BuildId(build), at(second))
                .unwrap();
        };
        put(&mut index, "objects/a", "same", 1, 10);
        put(&mut index, "objects/b%_", "same", 2, 20);
        put(&mut index, "downloads/c", "other", 2, 30);
        let uses = [("objects/a", 40), ("downloads/c", 5), ("objects/gone", 50)];
        let uses = uses.map(|(path, second)| (path.parse().unwrap(), at(second)));
        index.note_uses(&HashMap::from(uses)).unwrap();
        let expected = ["objects/b%_", "downloads/c", "objects/a"];
        assert_eq!(paths(index.by_use(|_| true).unwrap()), expected);
        let totals = index.totals().unwrap();
        assert_eq!((totals.entries, totals.bytes), (3, 13));
        let select = |prefix, build| paths(index.select(prefix, build).unwrap());
        assert_eq!(select("objects/", None), ["objects/a", "objects/b%_"]);
        assert_eq!(select("objects/b%_", None), ["objects/b%_"]);
        assert_eq!(select("objects/%", None), [""; 0]);
        let both = ["downloads/c", "objects/b%_"];
        assert_eq!(select("", Some(BuildId(2))), both);
        let listed = index.list("", "downloads/c", 1).unwrap();
        assert_eq!(listed[0].path.as_str(), "objects/a");
        assert_eq!((listed[0].published, listed[0].used), (at(10), at(40)));
        // A content that another entry has is still used.
        let first = ["objects/a".parse().unwrap()];
        assert_eq!(index.remove(&first).unwrap(), []);
        let second = ["objects/b%_".parse().unwrap()];
        let hash = entry("objects/a", "same").1.hash;
        assert_eq!(index.remove(&second).unwrap(), [hash]);
        drop(index);
        let index = Index::open(&directory.path().join("index.sqlite3")).unwrap();
        assert_eq!(index.hashes().unwrap().len(), 1);
    }

    #[test]
    fn a_newer_or_damaged_index_is_refused_with_its_path() {
        let (directory, index) = index();
        index
            .connection
            .pragma_update(None, "user_version", 9)
            .unwrap();
        drop(index);
        let path = directory.path().join("index.sqlite3");
        let error = Index::open(&path).unwrap_err().to_string();
        assert!(error.contains("a newer agent, in format 9"), "{error}");
        let other = directory.path().join("other");
        sys::file::replace(&other, &[b'x'; 4096]).unwrap();
        let error = Index::open(&other).unwrap_err().to_string();
        assert!(
            error.contains("delete the directory of the cache"),
            "{error}"
        );
    }
}
