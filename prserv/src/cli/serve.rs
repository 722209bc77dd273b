//! `prserv serve`.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{fs, io};

use anyhow::{Context, anyhow};
use ipnet::IpNet;
use prserv::access::{Access, Token, Unknown, Writers};
use prserv::{OpenOptions, Server, Service};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::Ending;
use super::daemon::{PidFile, detach};
use super::listener::listen;

/// `prserv serve`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen. Port 0 takes a free one; the log says which. A socket passed by systemd
    /// comes first. More than once: all protocols are on every address.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:8585")]
    listen: Vec<String>,

    /// The SQLite file, made when it is missing; BitBake's own files are used in place. Or a
    /// PostgreSQL database that several servers share, `postgres://USER@HOST/NAME`.
    #[arg(long, value_name = "FILE|URL", default_value = "prserv.sqlite3")]
    db: String,

    /// Give no values: tell the value that a tuple has, or would get.
    #[arg(long)]
    read_only: bool,

    /// The parent server in a hierarchy. It is read only; our values lie below its own.
    #[arg(long, value_name = "HOST:PORT", env = "PRSERV_UPSTREAM")]
    upstream: Option<String>,

    #[command(flatten)]
    proxy: super::proxy::Arguments,

    /// Give no values to anybody: whoever asks for a tuple without one is a reader.
    #[arg(long, conflicts_with = "writers")]
    lockdown: bool,

    /// The networks whose clients may be given values, such as `10.1.0.0/16,::1/128`. The others
    /// are readers. Without it everybody may.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    writers: Vec<IpNet>,

    /// What a reader is told that asks for a tuple without a value: a word such as `custom`.
    /// Without it its connection is closed.
    #[arg(long, value_name = "WORD")]
    unknown: Option<String>,

    /// Run as `--start` of the old spelling runs us: detached, with a pid file.
    #[arg(long, value_name = "PIDFILE", hide = true)]
    daemon: Option<PathBuf>,

    /// Let XML-RPC's `quit` end the server, as BitBake's up to 1.50 did for every client.
    #[arg(long)]
    allow_quit: bool,

    /// A file with tokens, one a line, that allow writing over REST from anywhere.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Arguments {
    fn access(&self) -> anyhow::Result<Access> {
        let writers = match (self.lockdown, self.writers.is_empty()) {
            (true, _) => Writers::Nobody,
            (false, true) => Writers::Everybody,
            (false, false) => Writers::Networks(self.writers.clone()),
        };
        let unknown = self
            .unknown
            .clone()
            .map_or(Unknown::Refuse, Unknown::Answer);
        Ok(Access {
            writers,
            unknown,
            tokens: self.tokens()?,
        })
    }

    fn tokens(&self) -> anyhow::Result<Vec<Token>> {
        let Some(path) = &self.token_file else {
            return Ok(Vec::new());
        };
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the tokens in {}", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(Token::new).collect())
    }
}

/// Serves until SIGTERM or SIGINT.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    if arguments.daemon.is_some() {
        detach()?;
    }
    let mut options = OpenOptions::new(arguments.db.as_str()).read_only(arguments.read_only);
    let upstream = arguments
        .upstream
        .as_deref()
        .filter(|text| !text.is_empty());
    options.upstream = upstream
        .map(|text| arguments.proxy.target(text))
        .transpose()?;
    let access = arguments.access()?;
    let service = Service::open(&options)?;
    let quit = Arc::new(Notify::new());
    let mut server = Server::new(service.clone()).with_access(access);
    if arguments.allow_quit {
        server = server.with_quit(Arc::clone(&quit));
    }
    let listeners = listen(&arguments.listen).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell, stop) = watch::channel(false);
    let threads = start_threads(&server, &listeners, &stop)?;
    let db = &options.db;
    for listener in &listeners {
        tracing::info!(address = %listener.local_addr()?, %db, "listening");
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
    let _ = tell.send(true);
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread failed"))??;
    }
    service.close().await;
    Ok(Ending::Done)
}

/// Starts a thread per processor. Each accepts connections and serves them to their end: a
/// connection that stays on its thread costs fewer switches than one that may be stolen.
fn start_threads(
    server: &Server,
    listeners: &[std::net::TcpListener],
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<JoinHandle<io::Result<()>>>> {
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    let mut threads = Vec::with_capacity(count);
    for number in 0..count {
        let (server, stop) = (server.clone(), stop.clone());
        let listeners: io::Result<Vec<_>> = listeners
            .iter()
            .map(std::net::TcpListener::try_clone)
            .collect();
        let listeners = listeners?;
        let serve = move || serve_all(&server, listeners, &stop);
        threads.push(
            thread::Builder::new()
                .name(format!("pr-serve-{number}"))
                .spawn(serve)?,
        );
    }
    Ok(threads)
}

/// Serves on all listeners, on this thread.
#[tokio::main(flavor = "current_thread")]
async fn serve_all(
    server: &Server,
    listeners: Vec<std::net::TcpListener>,
    stop: &watch::Receiver<bool>,
) -> io::Result<()> {
    let mut serving = JoinSet::new();
    for listener in listeners {
        let mut stop = stop.clone();
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        serving.spawn(
            server
                .clone()
                .serve(TcpListener::from_std(listener)?, stopped),
        );
    }
    serving.join_all().await.into_iter().collect()
}
