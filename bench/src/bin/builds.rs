//! Measures the lists that dashboards ask for all the time: requests per second of
//! `/toastergui/api/builds` with 1,000 and 10,000 builds, and the agent's memory.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement stops at the first surprise"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::records::Records;
use agent::state::AgentState;
use agent::{api, pr_service};
use config::builds::{Artifact, State};
use config::settings::Settings;
use config::task::Outcome;
use jiff::Timestamp;
use store::toolchains::Toolchains;

/// How long each point is measured.
const TIME: Duration = Duration::from_secs(3);
/// How many clients ask at once.
const CLIENTS: usize = 4;
/// How many files a build gave out: its record is long, and no list is to read it all.
const ARTIFACTS: u32 = 50;

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!(
        "{:>7}  {:>10}  {:>12}  {:>12}  {:>10}",
        "builds", "bytes", "first", "requests/s", "memory"
    );
    for builds in [1_000, 10_000] {
        let path = directory.path().join(builds.to_string());
        let host = runtime.block_on(host(&path, builds));
        let api = runtime.block_on(api::bind(&host)).unwrap();
        let address = api.address().unwrap();
        let served = runtime.spawn(api::serve(Arc::clone(&host), api));
        let began = Instant::now();
        let bytes = Client::new(address).ask("/toastergui/api/builds");
        let first = began.elapsed();
        let per_second = load(address, "/toastergui/api/builds");
        println!(
            "{builds:>7}  {bytes:>10}  {:>9.1} ms  {per_second:>12.0}  {:>6.1} MiB",
            first.as_secs_f64() * 1000.0,
            memory()
        );
        for page in [
            "/toastergui/api/building",
            "/toastergui/mostrecentbuilds",
            "/toastergui/api/build/7",
        ] {
            println!("{:>7}  {page}: {:.0} requests/s", "", load(address, page));
        }
        host.stopping.cancel();
        runtime.block_on(served).unwrap();
    }
}

async fn host(path: &Path, builds: u32) -> Arc<AgentState> {
    for name in ["toolchains", "state", "run"] {
        std::fs::create_dir_all(path.join(name)).unwrap();
    }
    let text = format!(
        "paths.state = \"{0}/state\"\npaths.run = \"{0}/run\"\nhttp.listen = \"127.0.0.1:0\"\nhttp.requests_per_second_max = 0\n",
        path.display()
    );
    let settings = Settings::parse(&text).unwrap();
    let toolchains = Toolchains::open(&path.join("toolchains")).unwrap();
    let records = Records::open(&path.join("state/records.sqlite3")).unwrap();
    fill(&path.join("state/records.sqlite3"), &records, builds).await;
    let pr = prserv::Service::open(&pr_service::options(&settings.pr).unwrap()).unwrap();
    let host = AgentState::new(
        settings,
        std::iter::empty().collect(),
        toolchains,
        records,
        pr,
        (0, 0),
    );
    Arc::new(host)
}

/// One build through the door; the others are copies of its row.
async fn fill(path: &Path, records: &Records, builds: u32) {
    let digest = "0".repeat(64);
    let request = format!(
        r#"{{"machine": "linux-gcc_6", "sources": [{{"name": "hello-1.0.tar.gz", "sha256": "{digest}"}}]}}"#
    );
    let request = serde_json::from_str(&request).unwrap();
    let (toolchain, root) = ("default".parse().unwrap(), "root".parse().unwrap());
    let now = Timestamp::now();
    let mut build = records.submit(request, toolchain, root, now).await.unwrap();
    build.enter(State::Starting, now).unwrap();
    build.enter(State::Running, now).unwrap();
    build.enter(State::Finished, Timestamp::now()).unwrap();
    build.outcome = Some(Outcome::Success);
    build.artifacts = (0..ARTIFACTS).map(artifact).collect();
    records.save(&build).await.unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "CREATE TEMP TABLE one AS SELECT * FROM builds;
             UPDATE one SET id = NULL;
             INSERT INTO builds SELECT one.* FROM one,
               (WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {builds}) SELECT i FROM n);"
        ))
        .unwrap();
}

fn artifact(number: u32) -> Artifact {
    Artifact {
        name: format!("hello-{number}_1.0-r0_x86_64.ipk").parse().unwrap(),
        bytes: 1 << 20,
        sha256: "0".repeat(64).parse().unwrap(),
    }
}

/// Requests per second of a page.
fn load(address: SocketAddr, page: &str) -> f64 {
    let began = Instant::now();
    let counts = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::new(address);
                    let mut count = 0u32;
                    while began.elapsed() < TIME {
                        client.ask(page);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let counts = clients.into_iter().map(|client| client.join().unwrap());
        counts.sum::<u32>()
    });
    f64::from(counts) / began.elapsed().as_secs_f64()
}

/// A client that costs next to nothing, and keeps its connection.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).unwrap(),
            buffer: vec![0; 1 << 20],
        }
    }

    /// The length of a page's body.
    fn ask(&mut self, page: &str) -> usize {
        let request = format!("GET {page} HTTP/1.1\r\nhost: bench\r\n\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut got = self.stream.read(&mut self.buffer).unwrap();
        let head = self.buffer[..got]
            .windows(4)
            .position(|it| it == b"\r\n\r\n");
        let head = head.unwrap() + 4;
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_lowercase();
        assert!(text.starts_with("http/1.1 200"), "{text}");
        let length = text.split("content-length: ").nth(1).unwrap();
        let length: usize = length.split('\r').next().unwrap().parse().unwrap();
        while got < head + length {
            got += self.stream.read(&mut self.buffer).unwrap();
        }
        length
    }
}

/// Of this process, in MiB: the agent's, and a little for the clients.
fn memory() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}
