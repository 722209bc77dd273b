//! A PostgreSQL database that several servers share.
//!
//! One row, `prserv_state`, counts the transactions that gave values. Who gives locks it first, so
//! values are given by one server at a time; who remembers compares its count, so what a server
//! remembers is used only while it is true.

use postgres::{Client, NoTls};

use super::database::Mode;
use super::{Filter, NewRow, Others, Purpose, Row, Store, StoreError};
use crate::rows::Rows;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// What brings a database from one version to the next; never changed, only added to.
const MIGRATIONS: [&str; 1] = [r#"
    CREATE TABLE prmain (
        version text COLLATE "C" NOT NULL,
        pkgarch text COLLATE "C" NOT NULL,
        checksum text COLLATE "C" NOT NULL,
        value text COLLATE "C" NOT NULL,
        PRIMARY KEY (version, pkgarch, checksum, value));
    CREATE TABLE prserv_state (generation bigint NOT NULL);
    INSERT INTO prserv_state VALUES (0);
"#];

/// Two servers that start at once migrate one after the other.
const MIGRATION_LOCK: i64 = 0x7072_7365_7276;

/// A connection, made again when it is lost.
pub struct Postgres {
    url: String,
    client: Option<Client>,
    /// The generation that our memory is of.
    generation: Option<i64>,
    /// The generation in the open transaction.
    current: i64,
    has_given: bool,
}

impl Postgres {
    /// Connects. To give values, the schema is brought up to date; else it must be there.
    pub fn open(url: &str, mode: Mode) -> Result<Self, StoreError> {
        let mut client = connect(url)?;
        match mode {
            Mode::Write => migrate(&mut client)?,
            Mode::Read => {
                client.query_one("SELECT generation FROM prserv_state", &[])?;
            }
        }
        Ok(Self {
            url: url.to_owned(),
            client: Some(client),
            generation: None,
            current: 0,
            has_given: false,
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
    fn begin(&mut self, purpose: Purpose) -> Result<Others, StoreError> {
        let (begin, lock) = match purpose {
            Purpose::Read => ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ""),
            Purpose::Write => ("BEGIN; SET LOCAL synchronous_commit = on", " FOR UPDATE"),
        };
        let client = self.client()?;
        client.batch_execute(begin)?;
        let select = format!("SELECT generation FROM prserv_state{lock}");
        self.current = client.query_one(&select, &[])?.get(0);
        self.has_given = false;
        let before = self.generation.replace(self.current);
        Ok(if before == Some(self.current) {
            Others::Silent
        } else {
            Others::Wrote
        })
    }

    fn load(&mut self, packages: &[&Package]) -> Result<Vec<Rows>, StoreError> {
        let mut loaded = vec![Rows::default(); packages.len()];
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
            "SELECT asked.number, checksum, value
             FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (version, pkgarch, number)
             JOIN prmain USING (version, pkgarch)",
            &[&versions, &pkgarchs],
        )?;
        for row in found {
            let index = usize::try_from(row.get::<_, i64>(0) - 1).ok();
            let value: Option<Value> = row.get::<_, &str>(2).parse().ok();
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
        self.has_given = true;
        self.client()?.execute(
            "INSERT INTO prmain SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
             ON CONFLICT DO NOTHING",
            &[&versions, &pkgarchs, &checksums, &values],
        )?;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let has_given = self.has_given;
        let commit = if has_given {
            "UPDATE prserv_state SET generation = generation + 1; COMMIT"
        } else {
            "COMMIT"
        };
        self.client()?.batch_execute(commit)?;
        if has_given {
            self.generation = Some(self.current + 1);
        }
        Ok(())
    }

    fn rollback(&mut self) {
        self.generation = None;
        // A connection whose transaction failed is not worth keeping; dropping it rolls back.
        self.client = None;
    }

    fn rows(&mut self, filter: &Filter) -> Result<Vec<Row>, StoreError> {
        let found = self.client()?.query(
            "SELECT version, pkgarch, checksum, value FROM prmain
             WHERE ($1::text IS NULL OR version = $1) AND ($2::text IS NULL OR pkgarch = $2)
             ORDER BY version, pkgarch, checksum",
            &[&filter.version, &filter.pkgarch],
        )?;
        let mut rows = Vec::with_capacity(found.len());
        for row in found {
            let text = |column: usize| row.get::<_, String>(column);
            let tuple = Tuple::new(text(0), text(1), text(2));
            if let Ok(value) = text(3).parse() {
                rows.push(Row { tuple, value });
            }
        }
        Ok(rows)
    }
}

fn connect(url: &str) -> Result<Client, StoreError> {
    Ok(Client::connect(url, NoTls)?)
}

/// Brings the schema up to date, in one transaction.
fn migrate(client: &mut Client) -> Result<(), StoreError> {
    let mut transaction = client.transaction()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])?;
    transaction
        .batch_execute("CREATE TABLE IF NOT EXISTS prserv_schema (version integer NOT NULL)")?;
    let done = transaction.query_one("SELECT coalesce(max(version), 0) FROM prserv_schema", &[])?;
    let done: i32 = done.get(0);
    for (version, script) in (1..).zip(MIGRATIONS) {
        if version > done {
            transaction.batch_execute(script)?;
            transaction.execute("INSERT INTO prserv_schema VALUES ($1)", &[&version])?;
            tracing::info!(version, "migrated the database");
        }
    }
    Ok(transaction.commit()?)
}
