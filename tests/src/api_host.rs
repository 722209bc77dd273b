//! A host that answers over HTTP as an agent does, but builds nothing: its machine is
//! on a fake pool, and nobody takes builds out of the queue.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::records::Records;
use agent::state::agent_state::AgentState;
use agent::{api, pr_service};
use config::settings::Settings;
use reqwest::blocking::{Client, RequestBuilder, Response};
use store::subvolumes::{FakeBackend, SubvolumeBackend};
use store::toolchains::Toolchains;
use store::{Intent, Source, Volume};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// A host that answers. Its machine is `linux`, its toolchain `default`.
#[derive(Debug)]
pub struct WebHost {
    /// What all parts of the agent share.
    pub host: Arc<AgentState>,
    /// Where it is found over TCP.
    pub address: SocketAddr,
    /// What runs it.
    pub runtime: Runtime,
    directory: TempDir,
}

impl WebHost {
    /// A host with these settings besides its paths; it listens on the loopback.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::unwrap_used, reason = "a test cannot go on without it")]
    pub fn new(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        for name in ["volume", "toolchains/default", "state/sources", "run"] {
            std::fs::create_dir_all(path.join(name)).unwrap();
        }
        let text = format!(
            "paths.state = \"{0}/state\"\npaths.run = \"{0}/run\"\nhttp.listen = \"127.0.0.1:0\"\nhttp.token_file = \"{0}/tokens\"\n{settings}",
            path.display()
        );
        let settings = Settings::parse(&text).unwrap();
        let volume = volume(&path.join("volume"));
        let toolchains = Toolchains::open(&path.join("toolchains")).unwrap();
        let records = Records::open(&path.join("state/records.sqlite3")).unwrap();
        let pr = prserv::Service::open(&pr_service::options(&settings.pr).unwrap()).unwrap();
        let host = AgentState::new(settings, vec![volume], toolchains, records, pr, (0, 0));
        let host = Arc::new(host);
        let runtime = Runtime::new().unwrap();
        let api = runtime.block_on(api::bind(&host)).unwrap();
        let address = api.address().unwrap();
        runtime.spawn(api::serve(Arc::clone(&host), api));
        Self {
            host,
            address,
            runtime,
            directory,
        }
    }

    /// A file of the host.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A client of the socket, as its own user.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn local(&self) -> Client {
        let client = Client::builder().unix_socket(self.path("run/agent.sock"));
        client.timeout(ANSWER_LIMIT).build().expect("a client")
    }

    /// A request over TCP.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn remote(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        request(&Client::new(), method, &url).timeout(ANSWER_LIMIT)
    }

    /// What a path over TCP gives to everybody.
    ///
    /// # Panics
    /// When there is no answer.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn get(&self, path: &str) -> Response {
        self.remote("GET", path).send().expect("an answer")
    }

    /// Lets the bearers of these tokens in: names of scopes, and secrets.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn allow(&self, tokens: &[(&str, &str)]) {
        let lines = tokens.iter().map(|(scope, secret)| {
            let mut hash = sys::file::Hasher::default();
            hash.update(secret.as_bytes());
            format!("{scope}-{} {scope} {}\n", secret.len(), hash.finish())
        });
        crate::put(&self.path("tokens"), &lines.collect::<String>());
    }

    /// Waits for something of the agent's.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

impl Drop for WebHost {
    fn drop(&mut self) {
        self.host.stopping.cancel();
    }
}

/// A request by the name of its method.
///
/// # Panics
/// When that is none.
#[expect(clippy::expect_used, reason = "a test cannot go on without it")]
pub fn request(client: &Client, method: &str, url: &str) -> RequestBuilder {
    client.request(method.parse().expect("a method"), url)
}

#[expect(clippy::unwrap_used, reason = "a test cannot go on without it")]
fn volume(path: &std::path::Path) -> Volume {
    let backend = Arc::new(FakeBackend::default());
    let volume = Volume::with_backend(path, backend.clone());
    let original = path.with_file_name("original");
    backend.create(&original).unwrap();
    backend.write(&original.join("disk.img"), b"disk").unwrap();
    backend.seal(&original).unwrap();
    let machine = "linux".parse().unwrap();
    volume
        .bring_in(Intent::Add, &machine, Source::Subvolume(original))
        .unwrap();
    volume
}
