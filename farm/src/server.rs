//! The HTTP server: connections with limits, and an end that answers held polls.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use linerpc::listener::{self, Deadlines, Places, TimedStream, prepare, raise_descriptor_limit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::Layer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tracing::{debug, warn};

use crate::api::{Service, router};

/// The most connections. All may come from one address, that of a server with TLS; others wait for a
/// place.
const CONNECTIONS_MAX: usize = 10_000;
/// The time limit for the head of a request, also on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for each part of the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The time in which connections must end when the coordinator stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
const DEADLINES: Deadlines = Deadlines {
    first_byte: Duration::from_secs(30),
    idle: None,
    write: Duration::from_mins(1),
};

/// Serves hosts and clients, and watches the farm, until `stop` completes. Then held polls are answered,
/// and the hosts go to another coordinator.
pub async fn serve(listener: TcpListener, service: Arc<Service>, stop: impl Future<Output = ()>) {
    raise_descriptor_limit();
    if let Err(error) = prepare(&listener, DEADLINES.write) {
        warn!(error = &error as &dyn Error, "cannot set socket options");
    }
    let watched = Arc::clone(&service);
    let watching = tokio::spawn(async move { watched.coordinator.watch().await });
    let archived = Arc::clone(&service);
    let archiving = tokio::spawn(async move { archived.coordinator.archive().await });
    let told = Arc::clone(&service);
    let mut telling = tokio::spawn(async move { told.coordinator.tell().await });
    let (stopping, stopped) = watch::channel(false);
    let ended = Arc::clone(&service);
    let stop = async move {
        stop.await;
        ended.coordinator.end();
        stopping.send_replace(true);
    };
    let router = router(service);
    let service = RequestBodyTimeoutLayer::new(BODY_TIMEOUT).layer(router);
    let serve = |stream| serve_connection(stream, service.clone(), stopped.clone());
    let places = Places::new(CONNECTIONS_MAX, usize::MAX);
    listener::serve(listener, &places, stop, SHUTDOWN_TIMEOUT, serve).await;
    watching.abort();
    archiving.abort();
    // An attempt to deliver a notification is noted, if it ends in time.
    if timeout(SHUTDOWN_TIMEOUT, &mut telling).await.is_err() {
        telling.abort();
    }
}

type Routes = tower_http::timeout::RequestBodyTimeout<axum::Router>;

async fn serve_connection(stream: TcpStream, routes: Routes, mut stopped: watch::Receiver<bool>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(
            TokioIo::new(TimedStream::new(stream, DEADLINES)),
            TowerToHyperService::new(routes),
        )
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let stopped = async {
        // The sender is kept for as long as the server runs.
        let _ = stopped.wait_for(|it| *it).await;
    };
    let mut ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        ended = Some(connection.await);
    }
    if let Some(Err(error)) = ended {
        debug!(error = &error as &dyn Error, "a connection failed");
    }
}
