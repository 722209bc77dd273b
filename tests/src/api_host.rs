//! A host that serves the agent's HTTP API: its machine is on a fake backend, and no scheduler runs
//! unless a test starts it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::api;
use cache::Caches;
use config::settings::Settings;
use records::Records;
use reqwest::blocking::{Client, RequestBuilder, Response};
use session::BitBakeServices;
use state::AgentState;
use store::subvolumes::{FakeBackend, SubvolumeBackend};
use store::toolchains::Toolchains;
use store::{Intent, Source, Volume};
use telemetry::Telemetry;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The time limit for a response.
const RESPONSE_LIMIT: Duration = Duration::from_mins(1);

/// A host that serves the API. Its machine is `linux`, its toolchain `default`.
#[derive(Debug)]
pub struct ApiHost {
    /// The state of the agent.
    pub host: Arc<AgentState>,
    /// The TCP address of the API.
    pub address: SocketAddr,
    /// The runtime of the server.
    pub runtime: Runtime,
    backend: Arc<FakeBackend>,
    directory: TempDir,
}

impl ApiHost {
    /// Starts a server on a free port of the loopback interface. The settings are added to those
    /// for its paths.
    pub fn new(settings: &str) -> Self {
        Self::with_volumes(settings, &["volume"])
    }

    /// Starts a server of a host with these volumes. Each has the machine.
    pub fn with_volumes(settings: &str, volumes: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        for name in ["toolchains/default", "state/sources", "run"] {
            std::fs::create_dir_all(path.join(name)).unwrap();
        }
        let text = format!(
            "paths.state = \"{0}/state\"\npaths.run = \"{0}/run\"\nhttp.listen = \"127.0.0.1:0\"\nhttp.token_file = \"{0}/tokens\"\n{settings}",
            path.display()
        );
        let settings = Settings::parse(&text).unwrap();
        let toolchains = Toolchains::open(&path.join("toolchains")).unwrap();
        let telemetry = Telemetry::default();
        let database = path.join("state/records.sqlite3");
        let records = Records::open(&database, telemetry.clone()).unwrap();
        let bitbake = BitBakeServices::open(&settings).unwrap();
        let place = path.join("state/caches");
        let caches = Caches::open(&place, &settings.caches, 0, &telemetry.metrics).unwrap();
        let backend = Arc::new(FakeBackend::default());
        let host = AgentState::new(
            settings,
            volumes
                .iter()
                .map(|name| volume(&path.join(name), &backend))
                .collect(),
            toolchains,
            records,
            caches,
            telemetry,
            bitbake,
        );
        let host = Arc::new(host);
        let runtime = Runtime::new().unwrap();
        let api = runtime.block_on(api::bind(&host)).unwrap();
        let address = api.address().unwrap();
        runtime.spawn(api::serve(Arc::clone(&host), api));
        Self {
            host,
            address,
            runtime,
            backend,
            directory,
        }
    }

    /// Adds a revision to the machine of the first volume, which becomes current.
    pub fn upgrade_machine(&self) {
        let volume = self.host.volumes.iter().next().expect("a volume");
        bring_in(volume, &self.backend, Intent::Upgrade);
    }

    /// Returns the path of a file of the host.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns a client of the administration socket.
    pub fn local(&self) -> Client {
        let client = Client::builder().unix_socket(self.path("run/agent.sock"));
        client.timeout(RESPONSE_LIMIT).build().expect("a client")
    }

    /// Returns a request over TCP.
    pub fn remote(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        request(&Client::new(), method, &url).timeout(RESPONSE_LIMIT)
    }

    /// Sends a GET request over TCP without a token.
    pub fn get(&self, path: &str) -> Response {
        self.remote("GET", path).send().expect("a response")
    }

    /// Replaces the tokens by these pairs of a scope and a secret.
    pub fn allow(&self, tokens: &[(&str, &str)]) {
        let lines = tokens.iter().map(|(scope, secret)| {
            let mut hash = sys::file::Hasher::default();
            hash.update(secret.as_bytes());
            format!("{scope}-{} {scope} {}\n", secret.len(), hash.finish())
        });
        crate::write_file(&self.path("tokens"), &lines.collect::<String>());
    }

    /// Runs a future of the agent to its end.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

impl Drop for ApiHost {
    fn drop(&mut self) {
        self.host.stopping.cancel();
    }
}

/// Returns a request with the method of this name.
pub fn request(client: &Client, method: &str, url: &str) -> RequestBuilder {
    client.request(method.parse().expect("a method"), url)
}

/// Creates a volume on a fake backend with the machine `linux`.
fn volume(path: &std::path::Path, backend: &Arc<FakeBackend>) -> Volume {
    let volume = Volume::with_backend(path, backend.clone());
    std::fs::create_dir(path).unwrap();
    bring_in(&volume, backend, Intent::Add);
    volume
}

/// Brings a revision of the machine `linux` in.
fn bring_in(volume: &Volume, backend: &FakeBackend, intent: Intent) {
    let original = volume.path().with_extension(format!("{intent:?}"));
    backend.create(&original).unwrap();
    backend.write(&original.join("disk.img"), b"disk").unwrap();
    backend.make_read_only(&original).unwrap();
    let machine = "linux".parse().unwrap();
    volume
        .ingest(intent, &machine, Source::Subvolume(original))
        .unwrap();
}
