//! Serves until a signal stops the coordinator.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use farm::api::{Attempts, Service};
use farm::bitbake::{self, BitBakeServices};
use farm::coordinator::{Coordinator, Telling};
use farm::settings::{ObjectsSettings, Settings};
use farm::sources::{Rules, Sources};
use farm::{objects, secret, server};
use farm_core::Terms;
use farm_objects::Objects;
use farm_store::Store;
use notifications::watch::Pace;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

use crate::{Refusal, service_manager};

/// The steps on a new coordinator.
pub(crate) const FIRST_STEPS: &str = "there is no database. The steps on a new coordinator: \
    1. `createdb farm` on the server of the database, \
    2. `database = \"postgres://USER@HOST/farm\"` in /etc/buildhost/farm.toml, \
    3. `systemctl start buildhost-farm`, \
    4. `buildhost-farm token create NAME --scope admin`";
/// Serves hosts, clients and BitBake until SIGTERM or SIGINT.
pub(crate) async fn serve(settings: Settings) -> anyhow::Result<()> {
    let token = client_token(settings.client_token.as_deref())?;
    let store = Store::open(&settings.database, settings.connections_max).await?;
    let terms = Terms::of_lease(settings.lease_seconds.saturating_mul(1_000));
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let address = listener.local_addr()?;
    let url = settings.url.clone();
    let url = url.unwrap_or_else(|| format!("http://{address}"));
    let sources = Sources::open(store.clone(), url.clone(), source_rules(&settings)).await?;
    let mut coordinator = Coordinator::new(store, terms)
        .with_sources(sources)
        .reached_at(url)
        .keeping(settings.keep_months);
    if let Some(settings) = &settings.objects {
        let objects = open_objects(settings)?;
        info!(objects = %objects.address(), "the files of builds go into an object store");
        coordinator = coordinator.archiving_to(objects);
    }
    coordinator = coordinator.telling(Telling {
        farm: settings.name.clone(),
        rules: settings.notify.clone(),
        pace: Pace::USUAL,
    });
    let service = Arc::new(Service {
        coordinator,
        client_token: token.into(),
        attempts: Attempts::default(),
        name: settings.name.clone(),
    });
    let (stop, stopped) = watch::channel(false);
    let mut bitbake = BitBakeServices::start(&settings, &stopped).await?;
    info!(%address, "listening");
    let alive = tokio::spawn(service_manager::alive());
    let served = server::serve(listener, Arc::clone(&service), bitbake::stopped(stopped));
    let mut served = pin!(served);
    service_manager::ready();
    let ended = tokio::select! {
        signal = until_stopped(&service, settings.client_token.as_deref()) => signal,
        () = &mut served => bail!("the server ended"),
        ended = bitbake.ended() => Err(anyhow!("a server for BitBake ended: {ended:?}")),
    };
    info!("stopping");
    service_manager::stopping();
    let _ = stop.send(true);
    served.await;
    bitbake.close().await;
    alive.abort();
    ended
}

/// Returns the rules of sources. The service has a directory of its own.
fn source_rules(settings: &Settings) -> Rules {
    let rules = settings.sources.clone();
    let own = || Some(PathBuf::from(std::env::var_os("STATE_DIRECTORY")?).join("sources"));
    Rules {
        directory: rules.directory.or_else(own),
        ..rules
    }
}

/// Checks the token of clients, the keys and the mail program of notifications, the directory of sources and, if
/// that is wanted, the object store. It leaves nothing behind.
pub(crate) async fn check(settings: &Settings, with_objects: bool) -> anyhow::Result<()> {
    client_token(settings.client_token.as_deref())?;
    for rules in &settings.notify {
        if let Some(obstacle) = notifications::obstacle(rules) {
            let name = &rules.name;
            bail!(Refusal::Missing(format!(
                "{name} cannot be notified: {obstacle}"
            )));
        }
    }
    let checked = source_rules(settings).check().await;
    checked.map_err(|error| Refusal::Missing(sys::error_report::chain(&error)))?;
    let Some(objects) = settings.objects.as_ref().filter(|_| with_objects) else {
        return Ok(());
    };
    let objects = open_objects(objects)?;
    let number = secret::random().context("cannot name a probe of the object store")?;
    let probed = farm_objects::probe(&objects, &format!("probe-{number}")).await;
    probed.map_err(|error| Refusal::Missing(format!("cannot use the object store: {error}")))?;
    Ok(())
}

fn open_objects(settings: &ObjectsSettings) -> anyhow::Result<Objects> {
    objects::open(settings)
        .map_err(|error| Refusal::Missing(sys::error_report::chain(&error)).into())
}

/// Waits for a signal that stops the coordinator, and reads the token of clients again on SIGHUP.
async fn until_stopped(service: &Service, token: Option<&Path>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => match client_token(token) {
                Ok(token) => {
                    service.client_token.replace(token);
                    info!("read the token of clients again");
                }
                Err(error) => {
                    let error = error.as_ref() as &dyn std::error::Error;
                    error!(error, "the token of clients stays as it was");
                }
            },
        }
    }
}

/// Returns the hash of the token in a file, if there is a file.
pub(crate) fn client_token(path: Option<&Path>) -> anyhow::Result<Option<[u8; 32]>> {
    let Some(path) = path else {
        return Ok(None);
    };
    let shown = path.display();
    let remedy = "`openssl rand -hex 32` makes one";
    let text = sys::trusted::read_text(path).map_err(|error| {
        Refusal::Missing(format!(
            "cannot read the token of clients in {shown}: {error}; {remedy}"
        ))
    })?;
    if text.trim().len() < secret::KEY_LENGTH_MIN {
        let least = secret::KEY_LENGTH_MIN;
        let short = format!("the token in {shown} is shorter than {least} characters; {remedy}");
        bail!(Refusal::Missing(short));
    }
    Ok(Some(secret::hash(text.trim())))
}
