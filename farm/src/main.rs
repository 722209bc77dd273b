//! The program `buildhost-farm`: a coordinator, and the commands that enrol hosts.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use farm::api::{Attempts, Service};
use farm::coordinator::Coordinator;
use farm::{secret, server};
use farm_core::Terms;
use farm_store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

mod tokens;

/// Coordinates the hosts of a farm: one queue in PostgreSQL, from which many hosts take builds.
#[derive(Debug, Parser)]
#[command(name = "buildhost-farm", version)]
struct Arguments {
    /// The database, `postgres://USER@HOST/NAME`. Its schema is created or migrated.
    #[arg(
        long,
        value_name = "URL",
        env = "BUILDHOST_FARM_DB",
        hide_env_values = true
    )]
    db: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve hosts and clients. Any number of coordinators may serve one farm.
    Serve(Serve),
    /// Print a token with which a host enrols once. A host of the same name gets a new key.
    Invite {
        /// The name of the host.
        name: String,
        /// The seconds for which the token is valid.
        #[arg(long, default_value_t = 3600)]
        seconds: u32,
    },
    /// Take the key of a host away. Its builds end within one half of a lease.
    Revoke {
        /// The name of the host.
        name: String,
    },
    /// Create, list and revoke the tokens of clients.
    #[command(subcommand)]
    Token(tokens::Command),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// The address to listen on. Put a server with TLS before it, because keys and tokens are sent.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8590")]
    listen: SocketAddr,

    /// The address at which hosts reach this coordinator and no other one, for logs, artifacts and images
    /// that they send. By default `http://` and the address that it listens on.
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// A file with a token that may do everything, beside those of `buildhost-farm token`. Only its
    /// owner may read it.
    #[arg(long, value_name = "FILE")]
    client_token: Option<PathBuf>,

    /// The most connections to the database.
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    connections_max: usize,

    /// The seconds without a sign of life after which a host loses its builds. All coordinators of a
    /// farm need the same.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..=3600))]
    lease_seconds: u64,

    /// The months for which results and idempotency keys are kept; 0 keeps all.
    #[arg(long, value_name = "NUMBER", default_value_t = 24)]
    keep_months: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "buildhost-farm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let connections_max = match &arguments.command {
        Command::Serve(serve) => serve.connections_max,
        _ => 1,
    };
    let store = Store::open(&arguments.db, connections_max).await?;
    match arguments.command {
        Command::Serve(arguments) => serve(store, arguments).await,
        Command::Invite { name, seconds } => {
            let token = secret::random().context("cannot make a token")?;
            store.invite(secret::hash(&token), &name, seconds).await?;
            writeln!(std::io::stdout(), "{token}").context("cannot print the token")
        }
        Command::Revoke { name } => {
            if !store.revoke(&name).await? {
                bail!("host {name} does not exist in the farm; GET /farm/v1/hosts lists them");
            }
            Ok(())
        }
        Command::Token(command) => tokens::run(&command, &store).await,
    }
}

/// Reads the token of clients in a file.
fn read_token(path: &Path) -> anyhow::Result<[u8; 32]> {
    let token = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the token of clients in {}", path.display()))?;
    if token.trim().len() < secret::KEY_LENGTH_MIN {
        let least = secret::KEY_LENGTH_MIN;
        bail!(
            "the token in {} is shorter than {least} characters; `openssl rand -hex 32` makes one",
            path.display()
        );
    }
    Ok(secret::hash(token.trim()))
}

async fn serve(store: Store, arguments: Serve) -> anyhow::Result<()> {
    let token = arguments.client_token.as_deref().map(read_token);
    let token = token.transpose()?;
    let terms = Terms::of_lease(arguments.lease_seconds.saturating_mul(1_000));
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let url = match arguments.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None if arguments.listen.ip().is_unspecified() => {
            bail!(
                "`--listen {}` names no address that hosts can reach; add `--url`",
                arguments.listen
            )
        }
        None => format!("http://{}", listener.local_addr()?),
    };
    let service = Arc::new(Service {
        coordinator: Coordinator::new(store, terms)
            .reached_at(url)
            .keeping(arguments.keep_months),
        client_token: token,
        attempts: Attempts::default(),
    });
    tracing::info!(address = %listener.local_addr()?, "listening");
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    server::serve(listener, service, stop).await;
    Ok(())
}
