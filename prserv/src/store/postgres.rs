//! A PostgreSQL database that several servers share.
//!
//! The only row of `prserv_state` holds a generation counter. A transaction that assigns values
//! first locks this row, so only one server assigns values at a time, and increments the counter
//! when it commits. A server compares the counter with the generation of its cache, so it never
//! answers from outdated rows.

use pg_schema::Migrations;
use postgres::types::ToSql;
use postgres::{Client, NoTls};

use super::condition::{Condition, condition};
use super::{
    Counts, ExternalWrites, Filter, NewRow, OpenMode, Row, Store, StoreError, TransactionMode,
};
use crate::package_rows::PackageRows;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// The scripts that migrate the schema from one version to the next. Append only.
const SCRIPTS: [&str; 1] = [r#"
    CREATE TABLE prmain (
        version text COLLATE "C" NOT NULL,
        pkgarch text COLLATE "C" NOT NULL,
        checksum text COLLATE "C" NOT NULL,
        value text COLLATE "C" NOT NULL,
        PRIMARY KEY (version, pkgarch, checksum, value));
    CREATE TABLE prserv_state (generation bigint NOT NULL);
    INSERT INTO prserv_state VALUES (0);
"#];

const MIGRATIONS: Migrations = Migrations {
    table: "prserv_schema",
    lock: 0x7072_7365_7276,
    scripts: &SCRIPTS,
};

/// A connection that is reopened when it is lost.
pub struct Postgres {
    url: String,
    client: Option<Client>,
    /// The generation of the cached rows.
    cached_generation: Option<i64>,
    /// The generation that the open transaction sees.
    current_generation: i64,
    has_changed: bool,
}

impl Postgres {
    /// Connects. Migrates the schema for writing; it must exist for reading.
    pub fn open(url: &str, mode: OpenMode) -> Result<Self, StoreError> {
        let mut client = connect(url)?;
        match mode {
            OpenMode::Write => migrate(&mut client)?,
            OpenMode::Read => {
                client.query_one("SELECT generation FROM prserv_state", &[])?;
            }
        }
        Ok(Self {
            url: url.to_owned(),
            client: Some(client),
            cached_generation: None,
            current_generation: 0,
            has_changed: false,
        })
    }

    fn client(&mut self) -> Result<&mut Client, StoreError> {
        let client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => connect(&self.url)?,
        };
        Ok(self.client.insert(client))
    }
}

impl Store for Postgres {
    fn begin(&mut self, mode: TransactionMode) -> Result<ExternalWrites, StoreError> {
        let (begin, lock) = match mode {
            TransactionMode::Read => ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ""),
            TransactionMode::Write => ("BEGIN; SET LOCAL synchronous_commit = on", " FOR UPDATE"),
        };
        let client = self.client()?;
        client.batch_execute(begin)?;
        let select = format!("SELECT generation FROM prserv_state{lock}");
        self.current_generation = client.query_one(&select, &[])?.get(0);
        self.has_changed = false;
        let cached = self.cached_generation.replace(self.current_generation);
        Ok(if cached == Some(self.current_generation) {
            ExternalWrites::None
        } else {
            ExternalWrites::Possible
        })
    }

    fn load(&mut self, packages: &[&Package]) -> Result<Vec<PackageRows>, StoreError> {
        let mut loaded = vec![PackageRows::default(); packages.len()];
        if packages.is_empty() {
            return Ok(loaded);
        }
        let versions: Vec<&str> = packages
            .iter()
            .map(|package| package.version.as_str())
            .collect();
        let pkgarchs: Vec<&str> = packages
            .iter()
            .map(|package| package.pkgarch.as_str())
            .collect();
        let found = self.client()?.query(
            "SELECT wanted.number, checksum, value
             FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (version, pkgarch, number)
             JOIN prmain USING (version, pkgarch)",
            &[&versions, &pkgarchs],
        )?;
        for row in found {
            let index = usize::try_from(row.get::<_, i64>(0) - 1).ok();
            let value = Value::from_record(row.get(2)).ok();
            if let (Some(rows), Some(value)) =
                (index.and_then(|index| loaded.get_mut(index)), value)
            {
                rows.add(row.get(1), &value);
            }
        }
        Ok(loaded)
    }

    fn insert(&mut self, rows: &[NewRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let tuples = || rows.iter().map(|row| row.tuple);
        let versions: Vec<&str> = tuples()
            .map(|tuple| tuple.package.version.as_str())
            .collect();
        let pkgarchs: Vec<&str> = tuples()
            .map(|tuple| tuple.package.pkgarch.as_str())
            .collect();
        let checksums: Vec<&str> = tuples().map(|tuple| tuple.checksum.as_str()).collect();
        let values: Vec<&str> = rows.iter().map(|row| row.value.as_str()).collect();
        self.has_changed = true;
        self.client()?.execute(
            "INSERT INTO prmain SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
             ON CONFLICT DO NOTHING",
            &[&versions, &pkgarchs, &checksums, &values],
        )?;
        Ok(())
    }

    fn delete(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        self.has_changed = true;
        let client = self.client()?;
        for Row {
            tuple: Tuple { package, checksum },
            value,
        } in rows
        {
            client.execute(
                "DELETE FROM prmain
                 WHERE version = $1 AND pkgarch = $2 AND checksum = $3 AND value = $4",
                &[
                    &package.version,
                    &package.pkgarch,
                    checksum,
                    &value.as_str(),
                ],
            )?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<ExternalWrites, StoreError> {
        let has_changed = self.has_changed;
        let commit = if has_changed {
            "UPDATE prserv_state SET generation = generation + 1; COMMIT"
        } else {
            "COMMIT"
        };
        self.client()?.batch_execute(commit)?;
        if has_changed {
            self.cached_generation = Some(self.current_generation + 1);
        }
        Ok(ExternalWrites::None)
    }

    fn rollback(&mut self) {
        self.cached_generation = None;
        // Dropping the connection rolls back, also when the connection itself has failed.
        self.client = None;
    }

    fn rows(&mut self, filter: &Filter) -> Result<Vec<Row>, StoreError> {
        let Condition { sql, parameters } = condition(filter, '$');
        let select = format!(
            "SELECT version, pkgarch, checksum, value FROM prmain{sql}
             ORDER BY version, pkgarch, checksum"
        );
        let parameters: Vec<&(dyn ToSql + Sync)> =
            parameters.iter().map(|text| text as _).collect();
        let found = self.client()?.query(&select, &parameters)?;
        let mut rows = Vec::with_capacity(found.len());
        for row in found {
            let text = |column: usize| row.get::<_, String>(column);
            let tuple = Tuple::new(text(0), text(1), text(2));
            if let Ok(value) = Value::from_record(&text(3)) {
                rows.push(Row { tuple, value });
            }
        }
        Ok(rows)
    }

    fn packages(&mut self, text: &str, most: u32) -> Result<Vec<Package>, StoreError> {
        let found = self.client()?.query(
            "SELECT DISTINCT version, pkgarch FROM prmain
             WHERE version <> '' AND strpos(lower(version), lower($1)) > 0
             ORDER BY version, pkgarch LIMIT $2",
            &[&text, &i64::from(most)],
        )?;
        let package = |row: &postgres::Row| {
            let text = |column: usize| row.get::<_, String>(column);
            Package::new(text(0), text(1))
        };
        Ok(found.iter().map(package).collect())
    }

    fn counts(&mut self) -> Result<Counts, StoreError> {
        let row = self.client()?.query_one(
            "SELECT (SELECT count(*) FROM (SELECT DISTINCT version, pkgarch FROM prmain) AS them),
                    (SELECT count(*) FROM prmain)",
            &[],
        )?;
        let count = |column: usize| row.get::<_, i64>(column).unsigned_abs();
        Ok(Counts {
            packages: count(0),
            rows: count(1),
        })
    }
}

fn connect(url: &str) -> Result<Client, StoreError> {
    Ok(Client::connect(url, NoTls)?)
}

/// Migrates the schema to the newest version in one transaction.
fn migrate(client: &mut Client) -> Result<(), StoreError> {
    client.batch_execute(&MIGRATIONS.begin())?;
    let version: i32 = client.query_one(&MIGRATIONS.version(), &[])?.get(0);
    client.batch_execute(&MIGRATIONS.finish(version))?;
    if version < MIGRATIONS.newest() {
        let version = MIGRATIONS.newest();
        tracing::info!(version, "migrated the database schema");
    }
    Ok(())
}
