//! BitBake's PR service and hash equivalence service on the database of a farm.

use anyhow::Context;
use linerpc::host_names::HostNames;
use linerpc::listen::listen_on_port;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::settings::{Hashserv, Prserv, Settings};

/// The services that a coordinator serves for BitBake.
#[derive(Debug, Default)]
pub struct BitBakeServices {
    prserv: Option<prserv::Service>,
    hashserv: Option<hashserv::Service>,
    listeners: JoinSet<std::io::Result<()>>,
}

impl BitBakeServices {
    /// Opens the databases, and serves until `stop` is true.
    ///
    /// # Errors
    /// A database, a file with tokens or an address cannot be used.
    pub async fn start(settings: &Settings, stop: &watch::Receiver<bool>) -> anyhow::Result<Self> {
        let mut services = Self::default();
        if let Some(settings) = &settings.prserv {
            let opened = services.start_prserv(settings, stop).await;
            opened.context("cannot serve the PR service, [prserv]")?;
        }
        if let Some(settings) = &settings.hashserv {
            let opened = services.start_hashserv(settings, stop).await;
            opened.context("cannot serve the hash equivalence service, [hashserv]")?;
        }
        Ok(services)
    }

    /// Waits until a listener has ended. Without listeners it waits for ever.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        match self.listeners.join_next().await {
            Some(ended) => Ok(ended??),
            None => std::future::pending().await,
        }
    }

    /// Waits for the end of the listeners, commits what waits and closes the databases.
    pub async fn close(mut self) {
        while self.listeners.join_next().await.is_some() {}
        if let Some(service) = &self.prserv {
            service.close().await;
        }
        if let Some(service) = &self.hashserv {
            service.close().await;
        }
    }

    async fn start_prserv(
        &mut self,
        settings: &Prserv,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        use prserv::access::{Access, Requests, Token, UnknownTuple, Writers};
        let tokens = match &settings.token_file {
            None => Vec::new(),
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read the tokens in {shown}"))?;
                Token::parse_file(&text)
                    .with_context(|| format!("cannot use the tokens in {shown}"))?
            }
        };
        let access = Access {
            writers: match &settings.writers[..] {
                [] => Writers::Anyone,
                networks => Writers::Networks(networks.to_vec()),
            },
            unknown: UnknownTuple::Refuse,
            tokens,
            requests: Requests::All,
            host_names: HostNames::of_system(&[], &settings.listen),
        };
        let options = prserv::OpenOptions::new(settings.database.as_str());
        let service = tokio::task::spawn_blocking(move || prserv::Service::open(&options));
        let service = service.await??;
        let server = prserv::Server::new(service.clone()).with_access(access);
        self.prserv = Some(service);
        for listener in listen(&settings.listen, "PR service").await? {
            let stopped = stopped(stop.clone());
            self.listeners
                .spawn(server.clone().serve(listener, stopped));
        }
        Ok(())
    }

    async fn start_hashserv(
        &mut self,
        settings: &Hashserv,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        use hashserv::permission::Permissions;
        use hashserv::session::Access;
        let names = settings.anonymous.iter().map(String::as_str);
        let access = Access {
            anonymous: Permissions::from_names(names)?.check_anonymous()?,
            login: true,
            owner: None,
            host_names: HostNames::of_system(&[], &settings.listen),
        };
        let options = hashserv::OpenOptions::new(settings.database.as_str());
        let service = tokio::task::spawn_blocking(move || hashserv::Service::open(&options));
        let service = service.await??;
        let server = hashserv::Server::new(service.clone()).with_access(access);
        self.hashserv = Some(service);
        for listener in listen(&settings.listen, "hash equivalence service").await? {
            let stopped = stopped(stop.clone());
            self.listeners
                .spawn(server.clone().serve(listener, stopped));
        }
        Ok(())
    }
}

async fn listen(addresses: &[String], service: &str) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let found = listen_on_port(address).await;
        listeners.extend(found.with_context(|| format!("cannot listen on {address}"))?);
    }
    for listener in &listeners {
        let address = listener.local_addr()?;
        info!(%address, service, "listening for BitBake");
    }
    Ok(listeners)
}

/// Waits until the coordinator stops.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender is dropped when the coordinator has stopped.
    let _ = stop.wait_for(|stop| *stop).await;
}
