//! The threads of a server, one per processor.

use std::io;
use std::num::NonZero;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hashserv::Server;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::sockets::Socket;

/// The time in which slow queries of the database must end when the server stops.
const QUERIES_END_MAX: Duration = Duration::from_secs(5);

/// Starts one thread per processor. Each thread accepts connections and serves them to their end,
/// because a connection that stays on its thread causes fewer context switches than one that other
/// threads may steal.
pub(super) fn start(
    server: &Server,
    sockets: &[Socket],
    stop: &watch::Receiver<bool>,
) -> io::Result<Vec<JoinHandle<io::Result<()>>>> {
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    let start = |number| {
        let (server, stop) = (server.clone(), stop.clone());
        let sockets = sockets.iter().map(clone).collect::<io::Result<_>>()?;
        thread::Builder::new()
            .name(format!("hash-serve-{number}"))
            .spawn(move || serve_all(&server, sockets, &stop))
    };
    (0..count).map(start).collect()
}

fn clone(socket: &Socket) -> io::Result<Socket> {
    Ok(match socket {
        Socket::Tcp(listener) => Socket::Tcp(listener.try_clone()?),
        Socket::Unix(listener, _) => Socket::Unix(listener.try_clone()?, None),
    })
}

/// Serves on all sockets on this thread.
fn serve_all(
    server: &Server,
    sockets: Vec<Socket>,
    stop: &watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve_sockets(server, sockets, stop));
    runtime.shutdown_timeout(QUERIES_END_MAX);
    ended
}

async fn serve_sockets(
    server: &Server,
    sockets: Vec<Socket>,
    stop: &watch::Receiver<bool>,
) -> io::Result<()> {
    let mut serving = JoinSet::new();
    for socket in sockets {
        let (server, mut stop) = (server.clone(), stop.clone());
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        match socket {
            Socket::Tcp(listener) => {
                serving.spawn(server.serve(TcpListener::from_std(listener)?, stopped));
            }
            Socket::Unix(listener, _) => {
                let listener = UnixListener::from_std(listener)?;
                serving.spawn(async move {
                    server.serve_unix(listener, stopped).await;
                    Ok(())
                });
            }
        }
    }
    serving.join_all().await.into_iter().collect()
}
