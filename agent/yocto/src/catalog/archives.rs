//! The origin of archives that the host made of repositories: their address and commit by their
//! hash. A source of a build with such a hash is that commit, in a build of any submitter.

use config::layers::{Reference, RepositoryUrl};
use config::task::Digest;
use rusqlite::{OptionalExtension, params};

use super::{Catalog, CatalogError};

/// The origin of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The address of the repository.
    pub url: RepositoryUrl,
    /// The commit.
    pub commit: Reference,
}

impl Catalog {
    /// Records the origin of an archive whose files are below the directory `prefix`.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub fn add_archive(
        &self,
        sha256: &Digest,
        origin: &Origin,
        prefix: &str,
    ) -> Result<(), CatalogError> {
        self.write(|transaction| {
            let sql = "INSERT OR IGNORE INTO archives (sha256, url, [commit], prefix)
                       VALUES (?1, ?2, ?3, ?4)";
            let (url, commit) = (origin.url.as_str(), origin.commit.as_str());
            transaction.execute(sql, params![sha256.as_str(), url, commit, prefix])?;
            Ok(Ok(()))
        })
    }

    /// Returns the hash of the archive that was made of a commit.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn archive_of(
        &self,
        origin: &Origin,
        prefix: &str,
    ) -> Result<Option<Digest>, CatalogError> {
        self.read(|connection| {
            let sql =
                "SELECT sha256 FROM archives WHERE [commit] = ?1 AND url = ?2 AND prefix = ?3";
            let (url, commit) = (origin.url.as_str(), origin.commit.as_str());
            let row = connection.query_row(sql, params![commit, url, prefix], |row| {
                row.get::<_, String>(0)
            });
            Ok(row.optional()?.and_then(|text| text.parse().ok()))
        })
    }

    /// Returns the origin of an archive; `None` if the host did not make it.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn origin(&self, sha256: &Digest) -> Result<Option<Origin>, CatalogError> {
        self.read(|connection| {
            let sql = "SELECT url, [commit] FROM archives WHERE sha256 = ?1";
            let row = connection.query_row(sql, [sha256.as_str()], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            });
            Ok(row.optional()?.and_then(|(url, commit)| {
                let (url, commit) = (url.parse().ok()?, commit.parse().ok()?);
                Some(Origin { url, commit })
            }))
        })
    }
}
