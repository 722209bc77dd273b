//! The threads of a server, one per processor.

use std::future::Future;
use std::io;
use std::num::NonZero;
use std::pin::Pin;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::sockets::Socket;

/// The time in which slow queries of the database must end when the server stops.
const QUERIES_END_MAX: Duration = Duration::from_secs(5);

/// A future that completes when the server stops.
pub type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts one thread per processor, which serves on all sockets until `stop` becomes true. Each
/// thread accepts connections and serves them to their end, because a connection that stays on its
/// thread causes fewer context switches than one that other threads may steal.
///
/// # Errors
/// A thread cannot be started, or a socket cannot be shared.
pub fn start<F: Future<Output = io::Result<()>> + Send + 'static>(
    name: &str,
    sockets: &[Socket],
    stop: &watch::Receiver<bool>,
    serve: impl Fn(Socket, Stopped) -> F + Clone + Send + 'static,
) -> io::Result<Vec<JoinHandle<io::Result<()>>>> {
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    let start = |number| {
        let (serve, stop) = (serve.clone(), stop.clone());
        let sockets = sockets.iter().map(Socket::try_clone);
        let sockets: Vec<Socket> = sockets.collect::<io::Result<_>>()?;
        thread::Builder::new()
            .name(format!("{name}-{number}"))
            .spawn(move || serve_all(sockets, &stop, serve))
    };
    (0..count).map(start).collect()
}

/// Serves on all sockets on this thread.
fn serve_all<F: Future<Output = io::Result<()>> + Send + 'static>(
    sockets: Vec<Socket>,
    stop: &watch::Receiver<bool>,
    serve: impl Fn(Socket, Stopped) -> F,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let mut serving = JoinSet::new();
        for socket in sockets {
            let mut stop = stop.clone();
            let stopped = async move {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            serving.spawn(serve(socket, Box::pin(stopped)));
        }
        serving.join_all().await.into_iter().collect()
    });
    runtime.shutdown_timeout(QUERIES_END_MAX);
    ended
}
