//! A farm with made-up builds for a browser: PostgreSQL, two coordinators, and hosts that poll both. The
//! pages are tested and shown with it.
//!
//! usage: `farm_demo [BUILDS]`
//!
//! Prints the address of the pages and the number of a running build, and follows commands on its standard
//! input: `end` ends that build. Answers `ok`. Ends with its input. A farm with 0 builds has no hosts either.
//! The tokens of clients are `admin-token`, `submit-token` and `read-token`.

mod data;
mod host;

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use config::BuildId;
use farm::api::{Attempts, FileToken, Service, router};
use farm::coordinator::Coordinator;
use farm::secret;
use farm_core::Terms;
use farm_store::Store;
use server_tests::Cluster;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use host::Host;

/// The number of coordinators.
const COORDINATORS: usize = 2;
/// The pause between two looks at the farm.
const PAUSE: Duration = Duration::from_millis(50);

fn main() -> anyhow::Result<()> {
    let builds = std::env::args().nth(1);
    let builds = builds.map_or(Ok(200), |it| it.parse())?;
    let cluster = Cluster::start();
    let runtime = Runtime::new()?;
    let store = runtime.block_on(Store::open(&cluster.url(), 16))?;
    runtime.block_on(data::add_tokens(&store))?;
    let urls: Vec<String> = (0..COORDINATORS)
        .map(|_| runtime.block_on(serve(&store)))
        .collect::<anyhow::Result<_>>()?;
    let mut hosts = Vec::new();
    let mut running = BuildId(0);
    if builds > 0 {
        let mut database = postgres::Client::connect(&cluster.url(), postgres::NoTls)?;
        let enrolled = runtime.block_on(data::add_hosts(&store, &urls))?;
        hosts = enrolled.into_iter().map(Arc::new).collect();
        data::add_results(&mut database, builds)?;
        running = *runtime
            .block_on(data::submit_running(&urls[0]))?
            .first()
            .context("no build was submitted")?;
        for host in &hosts {
            runtime.spawn(Arc::clone(host).run());
        }
        data::wait_for_running(&mut database)?;
        data::set_times(&mut database)?;
        runtime.block_on(data::submit_waiting(&urls[0]))?;
        data::set_waiting_times(&mut database)?;
        data::add_absent_hosts(&mut database, &store, &runtime)?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} {running}", urls[0])?;
    for line in std::io::stdin().lock().lines() {
        if line? == "end" {
            runtime.block_on(end(&hosts, running))?;
        }
        writeln!(out, "ok")?;
    }
    // The hosts poll until the database goes away.
    runtime.shutdown_background();
    Ok(())
}

/// Starts a coordinator, and returns its address.
async fn serve(store: &Store) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let coordinator = Coordinator::new(store.clone(), Terms::default()).reached_at(url.clone());
    let service = Arc::new(Service {
        coordinator,
        client_token: FileToken::default(),
        attempts: Attempts::default(),
        name: "farm".to_owned(),
    });
    let watched = Arc::clone(&service);
    tokio::spawn(async move { watched.coordinator.watch().await });
    tokio::spawn(async move { axum::serve(listener, router(service)).await });
    Ok(url)
}

/// Ends a build that runs on one of the hosts.
async fn end(hosts: &[Arc<Host>], build: BuildId) -> anyhow::Result<()> {
    for host in hosts {
        host.end(build).await?;
    }
    Ok(())
}

/// Returns the hash under which the farm knows a secret of the demo.
fn hash(secret: &str) -> [u8; 32] {
    secret::hash(secret)
}
