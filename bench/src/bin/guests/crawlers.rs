//! The effect of crawlers on builds: the time from the submission of a build to the first packet of its
//! guest, with and without requests for pages.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bench::agent_process::{AgentProcess, Installation};
use bench::http_client::HttpClient;
use bench::statistics::median;
use bench::table::{milliseconds, print_at_most, print_title};
use config::builds::StartKind;

use crate::startup::startup_duration;

/// The number of pairs of builds. The build without crawlers is the first of every other pair.
const PAIRS: usize = 15;
/// The time between two requests: 50 a second.
const INTERVAL: Duration = Duration::from_millis(20);
const PERCENT_MAX: f64 = 5.0;
/// The pages that are read, in turn.
const PAGES: [&str; 6] = [
    "/",
    "/builds",
    "/builds/1",
    "/builds?outcome=error",
    "/builds/1/log",
    "/machines",
];

/// Compares starts of builds with and without crawlers, in pairs.
pub(crate) fn measure(work: &Path) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let agent = AgentProcess::start(Installation {
        settings: format!(
            "guests.ready_max = 0\nhttp.listen = \"{address}\"\nhttp.web = \"read\"\n\
             http.allowed_hosts = [\"bench\"]\nhttp.requests_per_second_max = 0\n"
        ),
        ..Installation::new(work, "machines")
    });
    agent.wait_until_ready(&["cold", "container"]);
    agent.build("container");
    print_title("starts of builds, with 50 requests a second for pages and without");
    for machine in ["container", "cold"] {
        compare(&agent, machine, address);
    }
}

fn compare(agent: &AgentProcess, machine: &str, address: SocketAddr) {
    let (mut alone, mut crawled, mut requests) = (Vec::new(), Vec::new(), 0);
    let start = || startup_duration(&agent.build(machine), StartKind::Cold);
    for pair in 0..PAIRS {
        let mut crawl = || {
            let pages = Crawler::start(address);
            crawled.push(start());
            requests += pages.stop();
        };
        if pair % 2 == 0 {
            alone.push(start());
            crawl();
        } else {
            crawl();
            alone.push(start());
        }
    }
    let (alone, crawled) = (median(alone), median(crawled));
    println!(
        "{machine}: {} alone, {} with {requests} requests, medians of {PAIRS} pairs",
        milliseconds(alone),
        milliseconds(crawled)
    );
    let percent = (crawled.as_secs_f64() / alone.as_secs_f64() - 1.0) * 100.0;
    let name = format!("{machine}: slower start with crawlers");
    print_at_most(&name, percent, PERCENT_MAX, " %");
}

/// A client that reads pages at a constant rate.
struct Crawler {
    stops: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Crawler {
    fn start(address: SocketAddr) -> Self {
        let (stops, requests) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = {
            let (stops, requests) = (Arc::clone(&stops), Arc::clone(&requests));
            std::thread::spawn(move || crawl(address, &stops, &requests))
        };
        Self {
            stops,
            requests,
            thread,
        }
    }

    /// Ends the client and returns the number of its requests.
    fn stop(self) -> u64 {
        self.stops.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.requests.load(Ordering::Relaxed)
    }
}

fn crawl(address: SocketAddr, stops: &AtomicBool, requests: &AtomicU64) {
    let mut client = HttpClient::new(TcpStream::connect(address).unwrap());
    let mut due = Instant::now();
    for page in PAGES.iter().cycle() {
        if stops.load(Ordering::Relaxed) {
            return;
        }
        client.get(page);
        requests.fetch_add(1, Ordering::Relaxed);
        due += INTERVAL;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}
