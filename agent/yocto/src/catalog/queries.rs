//! Queries for releases, layers and settings.

use std::collections::BTreeSet;

use config::layers::{Described, Layer, LayerContent, LayerQuery, Recipe, Release};
use config::{LayerName, ReleaseName};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Catalog, CatalogError, from_json, listed, release_column};
use crate::Setting;

impl Catalog {
    /// Returns all releases in the order of their names, without those that cannot be read.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn releases(&self) -> Result<Vec<Release>, CatalogError> {
        self.read(|connection| {
            let sql = "SELECT releases.content, sources.name FROM releases
                       JOIN sources ON sources.id = releases.source
                       ORDER BY releases.name, sources.rank";
            let mut select = connection.prepare(sql)?;
            let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
            let mut releases: Vec<Release> = Vec::new();
            for row in rows {
                let (content, source) = row?;
                let Some(release) = listed::<Release>(&content) else {
                    continue;
                };
                if releases.last().is_none_or(|last| last.name != release.name) {
                    releases.push(Release { source, ..release });
                }
            }
            Ok(releases)
        })
    }

    /// Returns a release.
    ///
    /// # Errors
    /// It does not exist, or the catalog cannot be read.
    pub fn release(&self, name: &ReleaseName) -> Result<Release, CatalogError> {
        let found = self.read(|connection| release(connection, name))?;
        found.ok_or_else(|| CatalogError::NoRelease(name.clone()))
    }

    /// Returns the layers of a query in the order of their names and releases, without those that
    /// cannot be read.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn layers(&self, query: &LayerQuery) -> Result<Vec<Layer>, CatalogError> {
        self.read(|connection| {
            let sql = "SELECT layers.content, sources.name, layers.gone FROM layers
                       JOIN sources ON sources.id = layers.source
                       WHERE (?1 IS NULL OR layers.release IN ('', ?1))
                         AND (?2 IS NULL OR instr(lower(layers.name || ' ' || layers.summary), lower(?2)))
                       ORDER BY layers.name, layers.release, sources.rank";
            let mut select = connection.prepare(sql)?;
            let release = query.release.as_ref().map(ReleaseName::as_str);
            let rows = select.query_map(params![release, query.search], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?))
            })?;
            let mut seen = BTreeSet::new();
            let mut layers = Vec::new();
            for row in rows {
                let (content, source, gone) = row?;
                let Some(layer) = listed::<Layer>(&content) else {
                    continue;
                };
                let layer = Layer { source, gone, ..layer };
                if seen.insert((layer.name.clone(), layer.release.clone())) {
                    layers.push(layer);
                }
            }
            Ok(layers)
        })
    }

    /// Returns a layer as it belongs to a release; of all releases if `None`, each one.
    ///
    /// # Errors
    /// It does not exist, or the catalog cannot be read.
    pub fn layer_contents(
        &self,
        name: &LayerName,
        of: Option<&ReleaseName>,
    ) -> Result<Vec<LayerContent>, CatalogError> {
        let found = self.read(|connection| {
            let sql = "SELECT DISTINCT release FROM layers WHERE name = ?1 ORDER BY release";
            let releases = match of {
                Some(of) => vec![of.to_string()],
                None => connection
                    .prepare(sql)?
                    .query_map([name.as_str()], |row| row.get(0))?
                    .collect::<rusqlite::Result<Vec<String>>>()?,
            };
            let mut contents = Vec::new();
            for release in releases {
                let release = release.parse().ok();
                if let Some((id, layer)) = layer_row(connection, name, release.as_ref())? {
                    contents.push(content_of(connection, id, layer)?);
                }
            }
            Ok(contents)
        })?;
        if found.is_empty() {
            return Err(CatalogError::NoLayer(name.clone()));
        }
        Ok(found)
    }

    /// Returns a layer as it belongs to a release.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn find_layer(
        &self,
        name: &LayerName,
        release: Option<&ReleaseName>,
    ) -> Result<Option<Layer>, CatalogError> {
        let row = self.read(|connection| layer_row(connection, name, release))?;
        Ok(row.map(|(_, layer)| layer))
    }

    /// Returns the settings of fixtures and the built-in ones, in the order of their names.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn settings(&self) -> Result<Vec<Setting>, CatalogError> {
        self.read(|connection| {
            let sql = "SELECT settings.name, settings.value FROM settings
                       JOIN sources ON sources.id = settings.source
                       ORDER BY settings.name, sources.rank";
            let mut select = connection.prepare(sql)?;
            let rows = select.query_map([], |row| {
                Ok(Setting {
                    name: row.get(0)?,
                    value: row.get(1)?,
                })
            })?;
            let mut settings = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            settings.dedup_by(|later, first| later.name == first.name);
            Ok(settings)
        })
    }
}

/// Returns a release of the source that decides.
pub(super) fn release(
    connection: &Connection,
    name: &ReleaseName,
) -> rusqlite::Result<Option<Release>> {
    let sql = "SELECT releases.content, sources.name FROM releases
               JOIN sources ON sources.id = releases.source
               WHERE releases.name = ?1 ORDER BY sources.rank LIMIT 1";
    let row = connection.query_row(sql, [name.as_str()], |row| {
        Ok((row.get::<_, String>(0)?, row.get(1)?))
    });
    let Some((content, source)) = row.optional()? else {
        return Ok(None);
    };
    let release: Release = from_json(&content)?;
    Ok(Some(Release { source, ..release }))
}

/// Returns a layer of the source that decides, with the key of its row. One that belongs to the
/// release comes before one that belongs to all, and one that has left its source comes last.
pub(super) fn layer_row(
    connection: &Connection,
    name: &LayerName,
    release: Option<&ReleaseName>,
) -> rusqlite::Result<Option<(i64, Layer)>> {
    let sql = "SELECT layers.id, layers.content, sources.name, layers.gone FROM layers
               JOIN sources ON sources.id = layers.source
               WHERE layers.name = ?1 AND layers.release IN ('', ?2)
               ORDER BY layers.gone, sources.rank, layers.release = '' LIMIT 1";
    let row = connection.query_row(
        sql,
        params![name.as_str(), release_column(release)],
        |row| {
            Ok((
                row.get(0)?,
                row.get::<_, String>(1)?,
                row.get(2)?,
                row.get(3)?,
            ))
        },
    );
    let Some((id, content, source, gone)) = row.optional()? else {
        return Ok(None);
    };
    let layer: Layer = from_json(&content)?;
    Ok(Some((
        id,
        Layer {
            source,
            gone,
            ..layer
        },
    )))
}

fn content_of(connection: &Connection, id: i64, layer: Layer) -> rusqlite::Result<LayerContent> {
    let described = |table: &str| {
        let sql = format!("SELECT name, description FROM {table} WHERE layer = ?1 ORDER BY name");
        let mut select = connection.prepare(&sql)?;
        let rows = select.query_map([id], |row| {
            Ok(Described {
                name: row.get(0)?,
                description: row.get(1)?,
            })
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let sql = "SELECT name, version, summary, file, image FROM recipes WHERE layer = ?1
               ORDER BY name, version, file";
    let mut select = connection.prepare(sql)?;
    let recipes = select.query_map([id], |row| {
        Ok(Recipe {
            name: row.get(0)?,
            version: row.get(1)?,
            summary: row.get(2)?,
            file: row.get(3)?,
            image: row.get(4)?,
        })
    })?;
    Ok(LayerContent {
        layer,
        machines: described("machines")?,
        distros: described("distros")?,
        recipes: recipes.collect::<rusqlite::Result<_>>()?,
    })
}
