//! The sources of releases and layers, and the replacement of their content.

use std::collections::BTreeSet;

use config::layers::LayerSource;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::rows::{delete_layer, insert_layer, insert_release, source};
use super::source_key::SourceKey;
use super::{Catalog, CatalogError, release_column};
use crate::fixtures::{self, Fixture, Fixtures};
use crate::{Content, releases};

/// The result of replacing the content of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// The number of layers that the source has now, those that have left it excluded.
    pub layers: u64,
    /// The number of layers that have left it since.
    pub left: u64,
}

impl Catalog {
    /// Returns all sources with the numbers of their layers.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn sources(&self) -> Result<Vec<LayerSource>, CatalogError> {
        self.read(|connection| {
            let sql = "SELECT name, updated, fault,
                       (SELECT count(*) FROM layers WHERE source = sources.id AND gone = 0)
                       FROM sources ORDER BY rank";
            let mut select = connection.prepare(sql)?;
            let rows = select.query_map([], |row| {
                let updated: Option<String> = row.get(1)?;
                Ok(LayerSource {
                    name: row.get(0)?,
                    updated: updated.and_then(|text| text.parse().ok()),
                    fault: row.get(2)?,
                    layers: row.get::<_, i64>(3)?.unsigned_abs(),
                })
            })?;
            rows.collect()
        })
    }

    /// Replaces the content of a source in one transaction. A layer that has left the source
    /// stays, marked as gone, while a project has it. `mark` is what [`Catalog::mark`] returns
    /// from now on.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub fn replace(
        &self,
        key: &SourceKey,
        content: &Content,
        mark: &str,
        now: Timestamp,
    ) -> Result<Replaced, CatalogError> {
        self.write(|transaction| replace(transaction, key, content, mark, now).map(Ok))
    }

    /// Returns the mark of the last replacement of a source; empty before the first.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn mark(&self, key: &SourceKey) -> Result<String, CatalogError> {
        self.read(|connection| {
            let sql = "SELECT mark FROM sources WHERE name = ?1";
            let mark = connection.query_row(sql, [key.name()], |row| row.get(0));
            Ok(mark.optional()?.unwrap_or_default())
        })
    }

    /// Records that a source was found unchanged, or the reason for which its update failed.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub fn record_update(
        &self,
        key: &SourceKey,
        fault: &str,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        self.write(|transaction| {
            let id = source(transaction, key)?;
            let sql = if fault.is_empty() {
                "UPDATE sources SET fault = ?2, updated = ?3 WHERE id = ?1"
            } else {
                "UPDATE sources SET fault = ?2 WHERE id = ?1 AND ?3 = ?3"
            };
            transaction.execute(sql, params![id, fault, now.to_string()])?;
            Ok(Ok(()))
        })
    }

    /// Loads fixtures in place of those of the same names, and makes the releases of all fixtures
    /// and the built-in ones of them, in one transaction. If they are all files of the directory
    /// of the settings, those that were there before and are no more are forgotten.
    ///
    /// # Errors
    /// A fixture has a fault, and nothing was changed; or the catalog cannot be written.
    pub fn load_fixtures(
        &self,
        new: &[Fixture],
        are_directory: bool,
        now: Timestamp,
    ) -> Result<Fixtures, CatalogError> {
        self.write(|transaction| {
            if are_directory {
                transaction.execute("DELETE FROM fixtures WHERE directory = 1", [])?;
            }
            for fixture in new {
                put_fixture(transaction, fixture, are_directory)?;
            }
            let read = match fixtures::read(&stored_fixtures(transaction)?) {
                Ok(read) => read,
                Err(faults) => return Ok(Err(faults.into())),
            };
            replace(transaction, &SourceKey::Fixtures, &read.content, "", now)?;
            let built_in = match releases::built_in() {
                Ok(built_in) if !read.custom_only => built_in,
                _ => Content::default(),
            };
            replace(transaction, &SourceKey::BuiltIn, &built_in, "", now)?;
            Ok(Ok(read))
        })
    }
}

fn replace(
    transaction: &Transaction<'_>,
    key: &SourceKey,
    content: &Content,
    mark: &str,
    now: Timestamp,
) -> rusqlite::Result<Replaced> {
    let id = source(transaction, key)?;
    for table in ["releases", "settings"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE source = ?1"), [id])?;
    }
    for release in &content.releases {
        insert_release(transaction, id, release)?;
    }
    for setting in &content.settings {
        let sql = "INSERT OR REPLACE INTO settings (source, name, value) VALUES (?1, ?2, ?3)";
        transaction.execute(sql, params![id, setting.name, setting.value])?;
    }
    let known: BTreeSet<(String, String)> = content
        .layers
        .iter()
        .map(|it| {
            (
                it.layer.name.to_string(),
                release_column(it.layer.release.as_ref()).to_owned(),
            )
        })
        .collect();
    let left = retire(transaction, id, &known)?;
    for layer in &content.layers {
        delete_layer(
            transaction,
            id,
            &layer.layer.name,
            layer.layer.release.as_ref(),
        )?;
        insert_layer(transaction, id, layer)?;
    }
    let sql = "UPDATE sources SET updated = ?2, fault = '', mark = ?3 WHERE id = ?1";
    transaction.execute(sql, params![id, now.to_string(), mark])?;
    let layers = known.len() as u64;
    Ok(Replaced { layers, left })
}

/// Deletes the layers that a source does not have any more, and marks those that a project has.
/// Returns the number of those that have left since the last time.
fn retire(
    transaction: &Transaction<'_>,
    source: i64,
    known: &BTreeSet<(String, String)>,
) -> rusqlite::Result<u64> {
    let sql = "SELECT id, name, release, gone FROM layers WHERE source = ?1";
    let mut select = transaction.prepare(sql)?;
    let rows = select.query_map([source], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            (row.get(1)?, row.get(2)?),
            row.get::<_, bool>(3)?,
        ))
    })?;
    let mut left = 0;
    for row in rows {
        let (id, layer, was_gone) = row?;
        if known.contains(&layer) {
            continue;
        }
        left += u64::from(!was_gone);
        transaction.execute("UPDATE layers SET gone = 1 WHERE id = ?1", [id])?;
    }
    sweep(transaction)?;
    Ok(left)
}

/// Deletes the layers that have left their source and that no project has.
pub(super) fn sweep(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let sql = "DELETE FROM layers WHERE gone = 1 AND NOT EXISTS (
                 SELECT 1 FROM project_layers AS used JOIN projects ON projects.name = used.project
                 WHERE used.layer = layers.name AND layers.release IN ('', projects.release))";
    transaction.execute(sql, []).map(drop)
}

fn put_fixture(
    connection: &Connection,
    fixture: &Fixture,
    is_in_directory: bool,
) -> rusqlite::Result<()> {
    // `custom.json` takes the place of `custom.xml`, as the file of a user has one name.
    let stem = fixtures::stem(&fixture.name);
    let sql = "DELETE FROM fixtures WHERE name = ?1 OR name LIKE ?1 || '.%'";
    connection.execute(sql, [stem])?;
    let sql = "INSERT INTO fixtures (name, position, loaded, directory, text)
               VALUES (?1, ?2, (SELECT coalesce(max(loaded), 0) + 1 FROM fixtures), ?3, ?4)";
    let position = fixtures::position(&fixture.name);
    let row = params![fixture.name, position, is_in_directory, fixture.text];
    connection.execute(sql, row).map(drop)
}

fn stored_fixtures(connection: &Connection) -> rusqlite::Result<Vec<Fixture>> {
    let sql = "SELECT name, text FROM fixtures ORDER BY position, loaded";
    let mut select = connection.prepare(sql)?;
    let rows = select.query_map([], |row| {
        Ok(Fixture {
            name: row.get(0)?,
            text: row.get(1)?,
        })
    })?;
    rows.collect()
}
