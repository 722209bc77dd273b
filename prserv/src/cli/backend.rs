//! The backend of a command: a database or a running server.

use prserv::History;
use prserv::client::{Client, RetryPolicy};
use prserv::store::{Database, Filter, NewRow, OpenMode, Row, StoreError, TransactionMode, select};

use super::proxy;

/// The arguments that select the backend.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Backend {
    /// The SQLite file, which may be in use unless the command writes to it, or a PostgreSQL
    /// database, `postgres://USER@HOST/NAME`.
    #[arg(long, value_name = "FILE|URL", default_value = "prserv.sqlite3")]
    #[arg(conflicts_with = "server")]
    db: String,

    /// A running server instead of a database.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,

    #[command(flatten)]
    proxy: proxy::Arguments,
}

impl Backend {
    /// Returns the rows that match, sorted.
    pub(crate) fn rows(&self, filter: &Filter, history: History) -> anyhow::Result<Vec<Row>> {
        let mut rows = if let Some(mut client) = self.client()? {
            block_on(client.export(filter, history))??
        } else {
            let rows = Database::from(self.db.as_str())
                .open(OpenMode::Read)?
                .rows(filter)?;
            select(rows, filter.checksum.as_deref(), history)
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

    fn import_into_database(&self, rows: &[Row]) -> Result<usize, StoreError> {
        let mut store = Database::from(self.db.as_str()).open(OpenMode::Write)?;
        store.begin(TransactionMode::Write)?;
        store.insert(&rows.iter().map(NewRow::from).collect::<Vec<_>>())?;
        store.commit()?;
        Ok(rows.len())
    }

    fn client(&self) -> anyhow::Result<Option<Client>> {
        let target = self
            .server
            .as_deref()
            .map(|text| self.proxy.target(text))
            .transpose()?;
        Ok(target.map(|target| Client::new(target, RetryPolicy::default())))
    }
}

/// Runs a future on this thread.
fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work))
}
