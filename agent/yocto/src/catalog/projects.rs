//! The projects in the catalog.

use config::ProjectName;
use config::projects::Project;
use rusqlite::{Connection, OptionalExtension, params};

use super::sources::sweep;
use super::{
    Catalog, CatalogError, PROJECTS_MAX, from_json, json, listed, queries, release_column,
};

impl Catalog {
    /// Returns all projects in the order of their names, without those that cannot be read.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn projects(&self) -> Result<Vec<Project>, CatalogError> {
        self.read(|connection| {
            let sql =
                "SELECT content, id FROM projects JOIN project_ids USING (name) ORDER BY name";
            let mut select = connection.prepare(sql)?;
            let rows = select.query_map([], |row| {
                let content: String = row.get(0)?;
                Ok((listed::<Project>(&content), row.get(1)?))
            })?;
            let project = |(project, id)| Some(Project { id, ..project? });
            let rows = rows.map(|row| row.map(project));
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// Returns a project.
    ///
    /// # Errors
    /// It does not exist, or the catalog cannot be read.
    pub fn project(&self, name: &ProjectName) -> Result<Project, CatalogError> {
        let found = self.read(|connection| project(connection, name))?;
        found.ok_or_else(|| CatalogError::NoProject(name.clone()))
    }

    /// Stores a project; in the place of one of its name if `replace` is set. Returns true if it
    /// is new. Its release and the layers without a repository of their own exist.
    ///
    /// # Errors
    /// Its release or one of its layers does not exist, there is a project of its name, there are
    /// too many, or the catalog cannot be written.
    pub fn put_project(&self, new: &Project, replace: bool) -> Result<bool, CatalogError> {
        self.write(|transaction| {
            if let Some(release) = &new.release
                && queries::release(transaction, release)?.is_none()
            {
                return Ok(Err(CatalogError::NoRelease(release.clone())));
            }
            for layer in new.layers.iter().filter(|layer| layer.url.is_none()) {
                if queries::layer_row(transaction, &layer.name, new.release.as_ref())?.is_none() {
                    return Ok(Err(CatalogError::NoLayer(layer.name.clone())));
                }
            }
            let exists = project(transaction, &new.name)?.is_some();
            if exists && !replace {
                return Ok(Err(CatalogError::ProjectExists(new.name.clone())));
            }
            let count: i64 =
                transaction.query_row("SELECT count(*) FROM projects", [], |row| row.get(0))?;
            if !exists && count.unsigned_abs() >= PROJECTS_MAX {
                return Ok(Err(CatalogError::Full));
            }
            transaction.execute("DELETE FROM projects WHERE name = ?1", [new.name.as_str()])?;
            let sql = "INSERT OR IGNORE INTO project_ids (name) VALUES (?1)";
            transaction.execute(sql, [new.name.as_str()])?;
            let sql = "INSERT INTO projects (name, release, content) VALUES (?1, ?2, ?3)";
            let release = release_column(new.release.as_ref());
            transaction.execute(sql, params![new.name.as_str(), release, json(new)?])?;
            let sql = "INSERT OR IGNORE INTO project_layers (project, layer) VALUES (?1, ?2)";
            for layer in new.layers.iter().filter(|layer| layer.url.is_none()) {
                transaction.execute(sql, params![new.name.as_str(), layer.name.as_str()])?;
            }
            sweep(transaction)?;
            Ok(Ok(!exists))
        })
    }

    /// Returns the project with a number, even if it was removed; `None` if there was never one.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn project_with_id(&self, id: u32) -> Result<Option<ProjectName>, CatalogError> {
        let name: Option<String> = self.read(|connection| {
            let sql = "SELECT name FROM project_ids WHERE id = ?1";
            connection.query_row(sql, [id], |row| row.get(0)).optional()
        })?;
        Ok(name.and_then(|name| name.parse().ok()))
    }

    /// Removes a project. Its builds stay.
    ///
    /// # Errors
    /// It does not exist, or the catalog cannot be written.
    pub fn remove_project(&self, name: &ProjectName) -> Result<(), CatalogError> {
        self.write(|transaction| {
            let sql = "DELETE FROM projects WHERE name = ?1";
            if transaction.execute(sql, [name.as_str()])? == 0 {
                return Ok(Err(CatalogError::NoProject(name.clone())));
            }
            sweep(transaction)?;
            Ok(Ok(()))
        })
    }
}

fn project(connection: &Connection, name: &ProjectName) -> rusqlite::Result<Option<Project>> {
    let sql = "SELECT content, id FROM projects JOIN project_ids USING (name) WHERE name = ?1";
    let row = connection.query_row(sql, [name.as_str()], |row| {
        Ok((row.get::<_, String>(0)?, row.get(1)?))
    });
    let Some((content, id)) = row.optional()? else {
        return Ok(None);
    };
    let project = from_json(&content)?;
    Ok(Some(Project { id, ..project }))
}
