//! Where rows are: a file, or a server.

use std::path::PathBuf;

use prserv::History;
use prserv::client::{Client, Patience};
use prserv::store::{Filter, Purpose, Row, Sqlite, Store, StoreError, select};

use super::proxy;

/// Whose rows.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Place {
    /// The SQLite file. To look, it may be in use; to write, it must not be.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "prserv.sqlite3",
        conflicts_with = "server"
    )]
    db: PathBuf,

    /// A running server instead of a file.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,

    #[command(flatten)]
    proxy: proxy::Arguments,
}

impl Place {
    /// The rows that match, sorted.
    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn rows(&self, filter: &Filter, history: History) -> anyhow::Result<Vec<Row>> {
        let mut rows = if let Some(mut client) = self.client()? {
            client.export(filter, history).await?
        } else {
            let rows = Sqlite::open_read_only(&self.db)?.rows(filter)?;
            select(rows, filter.checksum.as_deref(), history)
        };
        rows.sort();
        Ok(rows)
    }

    /// Records rows; tells how many the place took.
    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn import(&self, rows: &[Row]) -> anyhow::Result<usize> {
        match self.client()? {
            Some(mut client) => {
                let taken = client.import(rows).await?;
                Ok(taken.into_iter().filter(|taken| *taken).count())
            }
            None => Ok(self.import_into_file(rows)?),
        }
    }

    fn import_into_file(&self, rows: &[Row]) -> Result<usize, StoreError> {
        let mut store = Sqlite::open(&self.db)?;
        store.begin(Purpose::Write)?;
        store.insert(rows)?;
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
