//! The backend of a command: a database or a running server.

use prserv::History;
use prserv::client::Client;
use prserv::forget::{self, Forget};
use prserv::store::{Database, Filter, NewRow, OpenMode, Row, StoreError, TransactionMode, export};

use super::client;

/// The arguments that select the backend.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Backend {
    /// The SQLite file, which may be in use unless the command writes to it, or a PostgreSQL
    /// database, `postgres://USER@HOST/NAME`.
    #[arg(long, value_name = "FILE|URL", default_value = "prserv.sqlite3")]
    #[arg(conflicts_with = "server")]
    db: String,

    /// A running server instead of a database, at `HOST:PORT` or `unix://PATH`.
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,

    #[command(flatten)]
    client: client::Arguments,
}

impl Backend {
    /// Returns the rows that match, sorted.
    pub(crate) fn rows(&self, filter: &Filter, history: History) -> anyhow::Result<Vec<Row>> {
        let mut rows = if let Some(mut client) = self.client()? {
            block_on(client.export(filter, history))??
        } else {
            let mut store = Database::from(self.db.as_str()).open(OpenMode::Read)?;
            export(&mut *store, filter, history)?
        };
        rows.sort();
        Ok(rows)
    }

    /// Records rows. Returns the number of rows that the backend accepted.
    pub(crate) fn import(&self, rows: &[Row]) -> anyhow::Result<usize> {
        if let Some(mut client) = self.client()? {
            let accepted = block_on(client.import(rows))??;
            return Ok(accepted.into_iter().filter(|accepted| *accepted).count());
        }
        Ok(self.import_into_database(rows)?)
    }

    /// Removes rows of a package. Returns them.
    pub(crate) fn forget(&self, request: &Forget) -> anyhow::Result<Vec<Row>> {
        if let Some(mut client) = self.client()? {
            return Ok(block_on(client.forget(request))??);
        }
        let mut store = Database::from(self.db.as_str()).open_existing()?;
        let _ = store.begin(TransactionMode::Write)?;
        let rows = forget::remove(&mut *store, request)??;
        let _ = store.commit()?;
        Ok(rows)
    }

    fn import_into_database(&self, rows: &[Row]) -> Result<usize, StoreError> {
        let mut store = Database::from(self.db.as_str()).open(OpenMode::Write)?;
        let _ = store.begin(TransactionMode::Write)?;
        store.insert(&rows.iter().map(NewRow::from).collect::<Vec<_>>())?;
        let _ = store.commit()?;
        Ok(rows.len())
    }

    fn client(&self) -> anyhow::Result<Option<Client>> {
        let server = self.server.as_deref();
        server.map(|text| self.client.connect_to(text)).transpose()
    }
}

/// Runs a future on this thread.
fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work))
}
