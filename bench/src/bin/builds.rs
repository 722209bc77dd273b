//! The lists of builds that dashboards poll: requests per second of `/toastergui/api/builds` with
//! 1,000 and 10,000 builds, and the agent's memory.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement ends at the first error, and its tables are its output"
)]

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::api;
use bench::http_client::HttpClient;
use bench::table::milliseconds;
use cache::Caches;
use config::builds::{Artifact, State};
use config::settings::Settings;
use config::task::Outcome;
use jiff::Timestamp;
use records::Records;
use session::BitBakeServices;
use state::AgentState;
use store::toolchains::Toolchains;
use telemetry::Telemetry;

/// The duration of each measurement.
const DURATION: Duration = Duration::from_secs(3);
/// The number of concurrent clients.
const CLIENTS: usize = 4;
/// The number of artifacts of each build. They make the records long, which lists must not read.
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
        let state = runtime.block_on(agent_with_builds(&path, builds));
        let api = runtime.block_on(api::bind(&state)).unwrap();
        let address = api.address().unwrap();
        let server = runtime.spawn(api::serve(Arc::clone(&state), api));
        let began = Instant::now();
        let bytes = connect(address).get("/toastergui/api/builds");
        let first = milliseconds(began.elapsed());
        let per_second = requests_per_second(address, "/toastergui/api/builds");
        println!(
            "{builds:>7}  {bytes:>10}  {first:>12}  {per_second:>12.0}  {:>6.1} MiB",
            memory_mib()
        );
        for page in [
            "/toastergui/api/building",
            "/toastergui/mostrecentbuilds",
            "/toastergui/api/build/7",
        ] {
            let per_second = requests_per_second(address, page);
            println!("{:>7}  {page}: {per_second:.0} requests/s", "");
        }
        state.stopping.cancel();
        runtime.block_on(server).unwrap();
    }
}

/// Returns the state of an agent with this number of finished builds.
async fn agent_with_builds(path: &Path, builds: u32) -> Arc<AgentState> {
    for name in ["toolchains", "state", "run"] {
        std::fs::create_dir_all(path.join(name)).unwrap();
    }
    let text = format!(
        "paths.state = \"{0}/state\"\npaths.run = \"{0}/run\"\nhttp.listen = \"127.0.0.1:0\"\nhttp.requests_per_second_max = 0\n",
        path.display()
    );
    let settings = Settings::parse(&text).unwrap();
    let toolchains = Toolchains::open(&path.join("toolchains")).unwrap();
    let telemetry = Telemetry::default();
    let database = path.join("state/records.sqlite3");
    let records = Records::open(&database, telemetry.clone()).unwrap();
    fill(&database, &records, builds).await;
    let bitbake = BitBakeServices::open(&settings).unwrap();
    let state = AgentState::new(
        settings,
        std::iter::empty().collect(),
        toolchains,
        records,
        Caches::default(),
        telemetry,
        bitbake,
    );
    Arc::new(state)
}

/// Records a build through the library, and copies its row up to this number of builds.
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
    records.save(&mut build).await.unwrap();
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

fn connect(address: SocketAddr) -> HttpClient<TcpStream> {
    HttpClient::new(TcpStream::connect(address).unwrap())
}

/// Returns the number of requests per second of all clients.
fn requests_per_second(address: SocketAddr, page: &str) -> f64 {
    let began = Instant::now();
    let counts = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = connect(address);
                    let mut count = 0u32;
                    while began.elapsed() < DURATION {
                        client.get(page);
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

/// Returns the memory of this process, which includes the clients.
fn memory_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}
