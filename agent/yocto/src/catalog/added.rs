//! The releases and layers that an administrator adds and removes.

use config::layers::{Layer, LayerContent, Release};
use config::{LayerName, ReleaseName, join_and};
use rusqlite::{Connection, params};

use super::queries::{layer_row, release as release_row};
use super::rows::{delete_layer, insert_layer, insert_release, source};
use super::source_key::SourceKey;
use super::{Catalog, CatalogError};

impl Catalog {
    /// Adds a release by hand, or replaces it. Returns true if it is new.
    ///
    /// # Errors
    /// A default layer does not exist, or the catalog cannot be written.
    pub fn add_release(&self, release: &Release) -> Result<bool, CatalogError> {
        self.write(|transaction| {
            for layer in &release.layers {
                if layer_row(transaction, layer, Some(&release.name))?.is_none() {
                    return Ok(Err(CatalogError::NoLayer(layer.clone())));
                }
            }
            let id = source(transaction, &SourceKey::Added)?;
            insert_release(transaction, id, release).map(Ok)
        })
    }

    /// Removes a release that was added by hand.
    ///
    /// # Errors
    /// It does not exist, projects need it, or the catalog cannot be written.
    pub fn remove_release(&self, name: &ReleaseName) -> Result<(), CatalogError> {
        self.write(|transaction| {
            let Some(release) = release_row(transaction, name)? else {
                return Ok(Err(CatalogError::NoRelease(name.clone())));
            };
            let what = format!("release {name}");
            if release.source != SourceKey::Added.name() {
                let source_name = release.source;
                return Ok(Err(CatalogError::NotAdded { what, source_name }));
            }
            let id = source(transaction, &SourceKey::Added)?;
            let sql = "DELETE FROM releases WHERE source = ?1 AND name = ?2";
            transaction.execute(sql, params![id, name.as_str()])?;
            // Another source may have one of the same name.
            if release_row(transaction, name)?.is_none() {
                let sql = "SELECT name FROM projects WHERE release = ?1 ORDER BY name";
                let users = names(transaction, sql, name.as_str())?;
                if !users.is_empty() {
                    let projects = join_and(&users);
                    return Ok(Err(CatalogError::Needed { what, projects }));
                }
            }
            Ok(Ok(()))
        })
    }

    /// Adds a layer by hand, or replaces it. Returns true if it is new.
    ///
    /// # Errors
    /// Its release does not exist, or the catalog cannot be written.
    pub fn add_layer(&self, layer: &Layer) -> Result<bool, CatalogError> {
        self.write(|transaction| {
            if let Some(release) = &layer.release
                && release_row(transaction, release)?.is_none()
            {
                return Ok(Err(CatalogError::NoRelease(release.clone())));
            }
            let id = source(transaction, &SourceKey::Added)?;
            let content = LayerContent {
                layer: layer.clone(),
                machines: Vec::new(),
                distros: Vec::new(),
                recipes: Vec::new(),
            };
            let is_new = delete_layer(transaction, id, &layer.name, layer.release.as_ref())? == 0;
            insert_layer(transaction, id, &content)?;
            Ok(Ok(is_new))
        })
    }

    /// Removes a layer that was added by hand: for one release, or as it belongs to all.
    ///
    /// # Errors
    /// It does not exist, projects need it, or the catalog cannot be written.
    pub fn remove_layer(
        &self,
        name: &LayerName,
        release: Option<&ReleaseName>,
    ) -> Result<(), CatalogError> {
        self.write(|transaction| {
            let Some(layer) = layer_row(transaction, name, release)? else {
                return Ok(Err(CatalogError::NoLayer(name.clone())));
            };
            let what = format!("layer {name}");
            let id = source(transaction, &SourceKey::Added)?;
            if delete_layer(transaction, id, name, release)? == 0 {
                let source_name = layer.1.source;
                return Ok(Err(CatalogError::NotAdded { what, source_name }));
            }
            if layer_row(transaction, name, release)?.is_none() {
                let sql = "SELECT project FROM project_layers WHERE layer = ?1 ORDER BY project";
                let users = names(transaction, sql, name.as_str())?;
                if !users.is_empty() {
                    let projects = join_and(&users);
                    return Ok(Err(CatalogError::Needed { what, projects }));
                }
            }
            Ok(Ok(()))
        })
    }
}

/// Returns the texts of the first column of a query with one parameter.
fn names(connection: &Connection, sql: &str, parameter: &str) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare(sql)?;
    let rows = select.query_map([parameter], |row| row.get(0))?;
    rows.collect()
}
