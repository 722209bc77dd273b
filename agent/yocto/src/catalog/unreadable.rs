//! Rows of the catalog that cannot be read, for the doctor.

use config::layers::{Layer, Release};
use config::projects::Project;
use rusqlite::Connection;
use serde::de::DeserializeOwned;

use super::{Catalog, CatalogError};

impl Catalog {
    /// Returns the projects, layers and releases that cannot be read, such as `project camera`, each
    /// with the fault. Lists leave them out.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn unreadable(&self) -> Result<Vec<(String, String)>, CatalogError> {
        self.read(|connection| {
            let mut found = faults::<Project>(connection, "project", "projects")?;
            found.extend(faults::<Layer>(connection, "layer", "layers")?);
            found.extend(faults::<Release>(connection, "release", "releases")?);
            Ok(found)
        })
    }
}

/// Returns the rows of a table whose content is no `T`.
fn faults<T: DeserializeOwned>(
    connection: &Connection,
    kind: &str,
    table: &str,
) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = format!("SELECT name, content FROM {table} ORDER BY name");
    let mut select = connection.prepare(&sql)?;
    let rows = select.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (name, content) = row?;
        if let Err(fault) = serde_json::from_str::<T>(&content) {
            found.push((format!("{kind} {name}"), fault.to_string()));
        }
    }
    Ok(found)
}
