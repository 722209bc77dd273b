//! Where rows are: a file, or a server.

use prserv::History;
use prserv::client::{Client, Patience};
use prserv::store::{Database, Filter, Mode, NewRow, Purpose, Row, StoreError, select};

use super::proxy;

/// Whose rows.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Place {
    /// The SQLite file: to look, it may be in use; to write, it must not be. Or a PostgreSQL
    /// database, `postgres://USER@HOST/NAME`.
    #[arg(long, value_name = "FILE|URL", default_value = "prserv.sqlite3")]
    #[arg(conflicts_with = "server")]
    db: String,

    /// A running server instead of a file.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,

    #[command(flatten)]
    proxy: proxy::Arguments,
}

impl Place {
    /// The rows that match, sorted.
    pub(crate) fn rows(&self, filter: &Filter, history: History) -> anyhow::Result<Vec<Row>> {
        let mut rows = if let Some(mut client) = self.client()? {
            block_on(client.export(filter, history))??
        } else {
            let rows = Database::from(self.db.as_str())
                .open(Mode::Read)?
                .rows(filter)?;
            select(rows, filter.checksum.as_deref(), history)
        };
        rows.sort();
        Ok(rows)
    }

    /// Records rows; tells how many the place took.
    pub(crate) fn import(&self, rows: &[Row]) -> anyhow::Result<usize> {
        if let Some(mut client) = self.client()? {
            let taken = block_on(client.import(rows))??;
            return Ok(taken.into_iter().filter(|taken| *taken).count());
        }
        Ok(self.import_into_database(rows)?)
    }

    fn import_into_database(&self, rows: &[Row]) -> Result<usize, StoreError> {
        let mut store = Database::from(self.db.as_str()).open(Mode::Write)?;
        store.begin(Purpose::Write)?;
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
        Ok(target.map(|target| Client::new(target, Patience::default())))
    }
}

/// Waits for our own client on this thread.
fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work))
}
