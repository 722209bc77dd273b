//! The rows of sources, releases and layers.

use config::layers::{LayerContent, Release};
use config::{LayerName, ReleaseName};
use rusqlite::{Connection, params};

use super::source_key::SourceKey;
use super::{json, release_column};

/// Returns the key of a source's row, which is made if missing.
pub(super) fn source(connection: &Connection, key: &SourceKey) -> rusqlite::Result<i64> {
    connection.query_row(
        "INSERT INTO sources (name, rank) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET rank = excluded.rank RETURNING id",
        params![key.name(), key.rank()],
        |row| row.get(0),
    )
}

/// Inserts or replaces a release. Returns true if it is new.
pub(super) fn insert_release(
    connection: &Connection,
    source: i64,
    release: &Release,
) -> rusqlite::Result<bool> {
    let (name, content) = (release.name.as_str(), json(release)?);
    let sql = "DELETE FROM releases WHERE source = ?1 AND name = ?2";
    let deleted = connection.execute(sql, params![source, name])?;
    let sql = "INSERT INTO releases (source, name, content) VALUES (?1, ?2, ?3)";
    connection.execute(sql, params![source, name, content])?;
    Ok(deleted == 0)
}

pub(super) fn delete_layer(
    connection: &Connection,
    source: i64,
    name: &LayerName,
    release: Option<&ReleaseName>,
) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM layers WHERE source = ?1 AND name = ?2 AND release = ?3";
    connection.execute(sql, params![source, name.as_str(), release_column(release)])
}

pub(super) fn insert_layer(
    connection: &Connection,
    source: i64,
    content: &LayerContent,
) -> rusqlite::Result<()> {
    let layer = &content.layer;
    connection
        .prepare_cached(
            "INSERT INTO layers (source, name, release, summary, content) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            source,
            layer.name.as_str(),
            release_column(layer.release.as_ref()),
            layer.summary,
            json(layer)?
        ])?;
    let id = connection.last_insert_rowid();
    for (table, rows) in [
        ("machines", &content.machines),
        ("distros", &content.distros),
    ] {
        let sql = format!(
            "INSERT OR REPLACE INTO {table} (layer, name, description) VALUES (?1, ?2, ?3)"
        );
        let mut insert = connection.prepare_cached(&sql)?;
        for row in rows {
            insert.execute(params![id, row.name, row.description])?;
        }
    }
    let sql = "INSERT OR REPLACE INTO recipes (layer, name, version, summary, file, image)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = connection.prepare_cached(sql)?;
    for it in &content.recipes {
        insert.execute(params![
            id, it.name, it.version, it.summary, it.file, it.image
        ])?;
    }
    Ok(())
}
