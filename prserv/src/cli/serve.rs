//! `prserv serve`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use ipnet::IpNet;
use prserv::access::{Access, Requests, Token, UnknownTuple, Writers};
use prserv::host_names::HostNames;
use prserv::listen::{ListenAddress, PortSharing};
use prserv::listener::{self, Deadlines};
use prserv::server::Limits;
use prserv::sockets::{self, Socket};
use prserv::{OpenOptions, Server, Service, threads};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::ExitStatus;
use super::daemon::{PidFile, detach};

/// The arguments of `prserv serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The address to listen on: `HOST:PORT`, `:PORT` for all addresses, or `unix://PATH`. A name
    /// stands for all of its addresses. May be repeated; every address serves all protocols. Port 0 selects a free port,
    /// which is logged. Everyone who may open a Unix socket may write. Ignored if systemd passes
    /// sockets.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8585")]
    listen: Vec<ListenAddress>,

    /// The SQLite file, created if missing (BitBake's own files are used in place), or a
    /// PostgreSQL database, which several servers may share, `postgres://USER@HOST/NAME`.
    #[arg(long, value_name = "FILE|URL", default_value = "prserv.sqlite3")]
    db: String,

    /// Assign no values. Return the recorded value of a tuple, or the one it would get.
    #[arg(long)]
    read_only: bool,

    /// The parent server in a hierarchy. It is only read; new values lie one level below its
    /// values.
    #[arg(long, value_name = "HOST:PORT", env = "PRSERV_UPSTREAM")]
    upstream: Option<String>,

    #[command(flatten)]
    proxy: super::proxy::Arguments,

    /// Treat every client as a reader: assign and import no values.
    #[arg(long, conflicts_with = "writers")]
    lockdown: bool,

    /// The networks whose clients may get new values, such as `10.1.0.0/16,::1/128`. Other clients
    /// are readers. By default every client may.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    writers: Vec<IpNet>,

    /// The answer to a reader that requests a tuple without a recorded value, such as `custom`.
    /// By default its connection is closed.
    #[arg(long, value_name = "TEXT")]
    unknown: Option<String>,

    /// Run detached and write a pid file, for `bitbake-prserv --start`.
    #[arg(long, value_name = "PIDFILE", hide = true)]
    daemon: Option<PathBuf>,

    /// Allow every client to end the server by XML-RPC's `quit`, as BitBake up to 1.50 did.
    #[cfg(feature = "xmlrpc")]
    #[arg(long)]
    allow_quit: bool,

    /// A name under which HTTP clients may address the server, for example that of a reverse
    /// proxy. May be repeated. Addresses, `localhost` and the names of this host are always
    /// allowed. Pages of other sites are refused.
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,

    /// The largest number of connections; further ones wait.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().connections_max)]
    connections_max: usize,

    /// The largest number of connections of one address or IPv6 /64 network; further ones are
    /// closed.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().connections_per_peer_max)]
    connections_per_peer_max: usize,

    /// The seconds without a byte after which a connection is closed. BitBake connects again.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    idle_seconds_max: u64,

    /// The seconds in which a client must read a part of its reply.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    write_seconds_max: u64,

    /// A file with one token per line, after a name if the audit log shall show one. A client that
    /// presents a token may write from any address, and may use `prserv forget`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// A file to append a line of JSON to for each value that is assigned, imported or removed, with
    /// the client. Created if missing.
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
}

impl Arguments {
    fn access(&self) -> anyhow::Result<Access> {
        let writers = match (self.lockdown, self.writers.is_empty()) {
            (true, _) => Writers::None,
            (false, true) => Writers::Anyone,
            (false, false) => Writers::Networks(self.writers.clone()),
        };
        let unknown = self
            .unknown
            .clone()
            .map_or(UnknownTuple::Refuse, UnknownTuple::Fallback);
        let ports = self.listen.iter().filter_map(ListenAddress::host_and_port);
        Ok(Access {
            writers,
            unknown,
            tokens: self.tokens()?,
            requests: Requests::All,
            host_names: HostNames::of_system(&self.allowed_host, ports),
        })
    }

    fn limits(&self) -> Limits {
        let defaults = Limits::default();
        Limits {
            connections_max: self.connections_max,
            connections_per_peer_max: self.connections_per_peer_max,
            deadlines: Deadlines {
                idle: Some(Duration::from_secs(self.idle_seconds_max)),
                write: Duration::from_secs(self.write_seconds_max),
                ..defaults.deadlines
            },
        }
    }

    fn tokens(&self) -> anyhow::Result<Vec<Token>> {
        let Some(path) = &self.token_file else {
            return Ok(Vec::new());
        };
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the tokens in {}", path.display()))?;
        Token::parse_file(&text)
            .with_context(|| format!("cannot use the tokens in {}", path.display()))
    }

    #[cfg(feature = "xmlrpc")]
    fn allows_quit(&self) -> bool {
        self.allow_quit
    }

    #[cfg(not(feature = "xmlrpc"))]
    #[expect(clippy::unused_self, reason = "the same call with and without XML-RPC")]
    fn allows_quit(&self) -> bool {
        false
    }
}

/// Serves until SIGTERM, SIGINT or an allowed `quit`.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    if arguments.daemon.is_some() {
        detach()?;
    }
    let mut options = OpenOptions::new(arguments.db.as_str()).read_only(arguments.read_only);
    options.audit_log.clone_from(&arguments.audit_log);
    options.upstream = arguments
        .upstream
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(|text| arguments.proxy.target(text))
        .transpose()?;
    let access = arguments.access()?;
    let service = Service::open(&options)?;
    let quit = Arc::new(Notify::new());
    listener::raise_descriptor_limit();
    let mut server = Server::new(service.clone())
        .with_access(access)
        .with_limits(arguments.limits());
    if arguments.allows_quit() {
        server = server.with_quit(Arc::clone(&quit));
    }
    let sockets = sockets::open(&arguments.listen, PortSharing::Exclusive).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, stop) = watch::channel(false);
    let threads = threads::start("pr-serve", &sockets, &stop, move |socket, stopped| {
        server.clone().serve_socket(socket, stopped)
    })?;
    let db = &options.db;
    for socket in &sockets {
        tracing::info!(address = %socket, %db, "listening");
    }
    let _pid_file = arguments
        .daemon
        .as_deref()
        .map(PidFile::announce)
        .transpose()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = quit.notified() => {}
    }
    tracing::info!("stopping");
    sockets.iter().for_each(Socket::remove);
    let _ = sender.send(true);
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    service.close().await;
    Ok(ExitStatus::Success)
}
