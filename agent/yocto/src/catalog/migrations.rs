//! The migrations of the catalog: each upgrades it from one version to the next.

use rusqlite::{Connection, Transaction};

/// The migrations, by the version that they start from.
pub(super) const MIGRATIONS: [&str; 2] = [V1, V2];

/// Migrates a database of version `from` to the newest in one transaction.
pub(super) fn migrate(connection: &mut Connection, from: usize) -> rusqlite::Result<()> {
    let transaction: Transaction<'_> = connection.transaction()?;
    for (script, version) in MIGRATIONS.iter().zip(1i64..).skip(from) {
        transaction.execute_batch(script)?;
        transaction.pragma_update(None, "user_version", version)?;
    }
    transaction.commit()
}

/// A release that a layer belongs to is empty if it belongs to all.
const V1: &str = "
CREATE TABLE sources (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    rank    INTEGER NOT NULL,
    updated TEXT,
    fault   TEXT NOT NULL DEFAULT '',
    mark    TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE releases (
    source  INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    name    TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (source, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE layers (
    id      INTEGER PRIMARY KEY,
    source  INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    name    TEXT NOT NULL,
    release TEXT NOT NULL,
    summary TEXT NOT NULL,
    content TEXT NOT NULL,
    gone    INTEGER NOT NULL DEFAULT 0,
    UNIQUE (source, name, release)
) STRICT;
CREATE INDEX layers_name ON layers (name, release);
CREATE TABLE machines (
    layer       INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    PRIMARY KEY (layer, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE distros (
    layer       INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    PRIMARY KEY (layer, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE recipes (
    layer   INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    name    TEXT NOT NULL,
    version TEXT NOT NULL,
    summary TEXT NOT NULL,
    file    TEXT NOT NULL,
    image   INTEGER NOT NULL,
    PRIMARY KEY (layer, name, version, file)
) STRICT, WITHOUT ROWID;
CREATE TABLE settings (
    source INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (source, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE fixtures (
    name      TEXT PRIMARY KEY,
    position  INTEGER NOT NULL,
    loaded    INTEGER NOT NULL,
    directory INTEGER NOT NULL,
    text      TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE projects (
    name    TEXT PRIMARY KEY,
    release TEXT NOT NULL,
    content TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE project_layers (
    project TEXT NOT NULL REFERENCES projects (name) ON DELETE CASCADE,
    layer   TEXT NOT NULL,
    PRIMARY KEY (project, layer)
) STRICT, WITHOUT ROWID;
CREATE INDEX project_layers_layer ON project_layers (layer);
CREATE TABLE archives (
    sha256 TEXT PRIMARY KEY,
    url    TEXT NOT NULL,
    [commit] TEXT NOT NULL,
    prefix TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX archives_commit ON archives ([commit]);
";

/// Adds the numbers of projects, which Toaster's clients use. A removed project keeps its number, as
/// its builds stay.
const V2: &str = "
CREATE TABLE project_ids (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO project_ids (name) SELECT name FROM projects ORDER BY name;
";
