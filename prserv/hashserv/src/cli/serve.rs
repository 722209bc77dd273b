//! `hashserv serve`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hashserv::client::Address;
use hashserv::permission::{Permission, Permissions};
use hashserv::service::{Retention, UserChange};
use hashserv::session::Access;
use hashserv::store::{Database, User};
use hashserv::{OpenOptions, Server, Service, token};
use linerpc::host_names::HostNames;
use linerpc::listen::{ListenAddress, ListenAddressError, PortSharing};
use linerpc::listener::{self, Deadlines};
use linerpc::sockets::{self, Socket};
use linerpc::target::Proxies;
use linerpc::{Limits, threads};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::ExitStatus;

/// The arguments of `hashserv serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The address to listen on: `HOST:PORT`, `:PORT` for all addresses, or `unix://PATH`. A name
    /// stands for all of its addresses. May be repeated. A port serves the protocol, websockets and metrics; `ws://HOST:PORT` is the same.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8686")]
    #[arg(value_parser = listen_address)]
    pub(super) listen: Vec<ListenAddress>,

    /// The SQLite file, created if missing (BitBake's own files are used in place), or a
    /// PostgreSQL database, which several servers may share, `postgres://USER@HOST/NAME`.
    #[arg(long, value_name = "FILE|URL", default_value = "hashserv.db")]
    pub(super) db: String,

    /// Record nothing.
    #[arg(long, conflicts_with_all = ["upstream", "admin_user"])]
    pub(super) read_only: bool,

    /// The server that is asked for unknown hashes, and whose answers are recorded: `HOST:PORT`,
    /// `unix://PATH`, `ws://…` or `wss://…`.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) upstream: Option<String>,

    /// The HTTP proxy for connections to the upstream server, `http://[USER:PASSWORD@]HOST:PORT`,
    /// or `none`. The default comes from the environment: `https_proxy`, `all_proxy`, `no_proxy`.
    #[arg(long, value_name = "URL")]
    pub(super) proxy: Option<String>,

    /// The permissions of clients without a login: `@none`, or some of `@read`, `@report` and
    /// `@db-admin`.
    #[arg(long, value_name = "PERMISSION", value_delimiter = ',')]
    #[arg(default_value = "@read,@report,@db-admin")]
    pub(super) anonymous: Vec<String>,

    /// The user that is created, or gets all permissions and the token of --admin-token-file.
    #[arg(long, value_name = "NAME", requires = "admin_token_file")]
    pub(super) admin_user: Option<String>,

    /// The file with the token of --admin-user.
    #[arg(long, value_name = "FILE", requires = "admin_user")]
    pub(super) admin_token_file: Option<PathBuf>,

    /// The token of --admin-user, for the command line of BitBake.
    #[arg(skip)]
    pub(super) admin_token: Option<String>,

    /// Delete tasks, with their reports, that were not reported for so many days.
    #[arg(long, value_name = "DAYS")]
    pub(super) keep_days: Option<u32>,

    /// Delete reports after so many days if their tasks have no unihash any more.
    #[arg(long, value_name = "DAYS")]
    pub(super) keep_unused_days: Option<u32>,

    /// Let several servers listen on the same port; the kernel distributes the connections.
    #[arg(long)]
    pub(super) reuse_port: bool,

    /// A name under which HTTP clients may address the server, for example that of a reverse
    /// proxy. May be repeated. Addresses, `localhost` and the names of this host are always
    /// allowed. Pages of other sites are refused.
    #[arg(long, value_name = "NAME")]
    pub(super) allowed_host: Vec<String>,

    /// The largest number of connections; further ones wait.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().connections_max)]
    pub(super) connections_max: usize,

    /// The largest number of connections of one address, IPv6 /64 network or user; further ones
    /// are closed.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().connections_per_peer_max)]
    pub(super) connections_per_peer_max: usize,

    /// The seconds without a byte after which a connection is closed. BitBake connects again.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(super) idle_seconds_max: u64,

    /// The seconds in which a client must read a part of its reply.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) write_seconds_max: u64,
}

impl Arguments {
    fn options(&self) -> anyhow::Result<OpenOptions> {
        let mut options = OpenOptions::new(Database::from(self.db.as_str()));
        options.read_only = self.read_only;
        let days = |days: u32| Duration::from_secs(u64::from(days) * 24 * 60 * 60);
        options.retention = Retention {
            task_age_max: self.keep_days.map(days),
            unused_age_max: self.keep_unused_days.map(days),
        };
        if let Some(upstream) = self.upstream.as_deref().filter(|text| !text.is_empty()) {
            let proxies = Proxies::chosen(self.proxy.as_deref());
            let address = Address::parse(upstream, &proxies.context("the proxy is invalid")?);
            options.upstream =
                Some(address.with_context(|| format!("`{upstream}` is no upstream server"))?);
        }
        Ok(options)
    }

    fn access(&self) -> anyhow::Result<Access> {
        let anonymous = Permissions::from_names(self.anonymous.iter().map(String::as_str))?;
        let ports = self.listen.iter().filter_map(ListenAddress::host_and_port);
        Ok(Access {
            anonymous: anonymous.check_anonymous()?,
            login: true,
            owner: None,
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

    /// Returns the administrator and the hash of the token.
    fn administrator(&self) -> anyhow::Result<Option<(User, String)>> {
        let Some(username) = &self.admin_user else {
            return Ok(None);
        };
        let token = match (&self.admin_token, &self.admin_token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(path)) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the token in {}", path.display()))?
                .trim()
                .to_owned(),
            (None, None) => String::new(),
        };
        if token.is_empty() {
            return Err(anyhow!("the token of {username} is empty"));
        }
        let user = User {
            username: username.clone(),
            permissions: Permissions::default().with(Permission::All),
        };
        Ok(Some((user, token::hash(&token)?)))
    }
}

/// Parses an address to listen on, also as BitBake writes that of a server for websockets.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, ListenAddressError> {
    text.strip_prefix("ws://").unwrap_or(text).parse()
}

/// Serves until SIGTERM, SIGINT or SIGQUIT.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::quit())?,
    ];
    let (options, access) = (arguments.options()?, arguments.access()?);
    let administrator = arguments.administrator()?;
    let service = Service::open(&options)?;
    if let Some((user, hash)) = administrator {
        service.change_users(UserChange::Set(user, hash)).await?;
    }
    listener::raise_descriptor_limit();
    let server = Server::new(service.clone())
        .with_access(access)
        .with_limits(arguments.limits());
    let sharing = if arguments.reuse_port {
        PortSharing::Shared
    } else {
        PortSharing::Exclusive
    };
    let sockets = sockets::open(&arguments.listen, sharing).await?;
    let (sender, stop) = watch::channel(false);
    let threads = threads::start("hash-serve", &sockets, &stop, move |socket, stopped| {
        server.clone().serve_socket(socket, stopped)
    })?;
    let db = &options.db;
    for socket in &sockets {
        tracing::info!(address = %socket, %db, "listening");
    }
    let [terminate, interrupt, quit] = &mut signals;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
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
