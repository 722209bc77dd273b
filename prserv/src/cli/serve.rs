//! `prserv serve`.

use std::path::PathBuf;

use anyhow::Context;
use prserv::{OpenOptions, Service, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Ending;

/// `prserv serve`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen. Port 0 takes a free one; the log says which.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:8585")]
    listen: String,

    /// The SQLite file, made when it is missing. BitBake's own files are used in place.
    #[arg(long, value_name = "FILE", default_value = "prserv.sqlite3")]
    db: PathBuf,

    /// Give no values: tell the value that a tuple has, or would get.
    #[arg(long)]
    read_only: bool,
}

/// Serves until SIGTERM or SIGINT.
#[tokio::main]
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let options = OpenOptions::new(&arguments.db).read_only(arguments.read_only);
    let service = Service::open(&options)?;
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    };
    let db = arguments.db.display();
    tracing::info!(address = %listener.local_addr()?, %db, "listening");
    serve(service.clone(), listener, shutdown).await?;
    service.close().await;
    Ok(Ending::Done)
}
