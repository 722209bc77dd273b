//! Floods of connections, and the latencies of a client that works meanwhile.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guest::network::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::wait_until;

/// The time for which a client tries to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The pause of a client whose connection was closed.
const PAUSE: Duration = Duration::from_millis(50);

/// The clients of a flood. Each connects, sends the first bytes of a request and nothing more, and
/// connects again when its connection is closed.
#[derive(Debug, Clone)]
pub struct FloodPlan {
    /// The server.
    pub address: SocketAddr,
    /// The number of clients.
    pub clients: usize,
    /// The number of loopback addresses that they connect from; 0 for the default address.
    pub sources: u8,
    /// The bytes that each sends.
    pub first_bytes: &'static [u8],
    /// The network namespace of the clients, if another one than this process's.
    pub network: Option<String>,
}

/// A running flood. Dropping it ends all clients.
#[derive(Debug)]
pub struct Flood {
    counters: Arc<Counters>,
    /// Closed to end the flood.
    stop: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counters {
    attempts: AtomicUsize,
    open: AtomicUsize,
}

impl Flood {
    /// Starts a flood on a thread of its own.
    pub fn start(plan: FloodPlan) -> Self {
        prserv::listener::raise_descriptor_limit();
        let (counters, stop) = (Arc::<Counters>::default(), Arc::new(Semaphore::new(0)));
        let (of_thread, stopped) = (Arc::clone(&counters), Arc::clone(&stop));
        let thread = std::thread::spawn(move || match plan.network.clone() {
            None => run(&plan, &of_thread, &stopped).expect("a flood"),
            Some(name) => {
                let network = Network::open(&name).expect("a network");
                let flood = || run(&plan, &of_thread, &stopped);
                network.enter(flood).expect("a flood");
            }
        });
        Self {
            counters,
            stop,
            thread: Some(thread),
        }
    }

    /// Returns the number of connections that were attempted.
    pub fn attempts(&self) -> usize {
        self.counters.attempts.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that are open at the clients.
    pub fn open(&self) -> usize {
        self.counters.open.load(Ordering::Relaxed)
    }

    /// Waits until each client has tried to connect.
    pub fn wait_until_all_have_tried(&self, clients: usize) {
        wait_until("all clients have tried to connect", || {
            self.attempts() >= clients
        });
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs all clients until the flood is stopped.
fn run(plan: &FloodPlan, counters: &Arc<Counters>, stop: &Semaphore) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for number in 0..plan.clients {
            clients.spawn(client(plan.clone(), number, Arc::clone(counters)));
        }
        let _ = stop.acquire().await;
    });
    Ok(())
}

async fn client(plan: FloodPlan, number: usize, counters: Arc<Counters>) {
    loop {
        counters.attempts.fetch_add(1, Ordering::Relaxed);
        let connected = timeout(CONNECT_LIMIT, connect(&plan, number)).await;
        if let Ok(Ok(mut stream)) = connected {
            counters.open.fetch_add(1, Ordering::Relaxed);
            let mut byte = [0];
            if stream.write_all(plan.first_bytes).await.is_ok() {
                while stream.read(&mut byte).await.is_ok_and(|count| count > 0) {}
            }
            counters.open.fetch_sub(1, Ordering::Relaxed);
        }
        sleep(PAUSE).await;
    }
}

async fn connect(plan: &FloodPlan, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if plan.sources > 0 {
        let last = u8::try_from(number % usize::from(plan.sources)).unwrap_or_default();
        socket.bind((Ipv4Addr::new(127, 0, 1, last), 0).into())?;
    }
    socket.connect(plan.address).await
}

/// The latencies of equal requests, sorted.
#[derive(Debug, Clone)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Repeats a request and measures each.
    pub fn measure(count: usize, mut request: impl FnMut()) -> Self {
        let measure = |_| {
            let began = Instant::now();
            request();
            began.elapsed()
        };
        let mut all: Vec<_> = (0..count).map(measure).collect();
        all.sort_unstable();
        Self(all)
    }

    /// Returns the latency that so many percent of the requests did not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    /// Returns how many times longer the median is than another one.
    pub fn ratio_to(&self, other: &Self) -> f64 {
        self.percentile(50).as_secs_f64() / other.percentile(50).as_secs_f64()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, high, most] = [50, 99, 100].map(|percent| self.percentile(percent));
        write!(f, "median {median:.1?}, 99 % {high:.1?}, most {most:.1?}")
    }
}
