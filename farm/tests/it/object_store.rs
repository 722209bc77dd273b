//! A server with the protocol S3 in this process, whose faults a test chooses.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use farm::objects::open;
use farm::settings::{Settings, Written};
use farm_objects::Objects;
use futures_util::StreamExt;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The bucket.
const BUCKET: &str = "farm";
const KEY_ID: &str = "AKFARM";
const SECRET: &str = "the-secret-of-the-bucket";

/// The faults.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Requests that are answered with 500, until there were so many.
    pub(crate) failing: AtomicUsize,
    /// Answers that are cut in the midst, until there were so many.
    pub(crate) cutting: AtomicUsize,
    /// True if each piece of an answer comes late.
    pub(crate) slow: AtomicBool,
    /// The requests.
    pub(crate) seen: Mutex<Vec<String>>,
}

impl Faults {
    /// Returns the number of requests with a method that have arrived.
    pub(crate) fn count(&self, method: &Method) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|it| it.starts_with(method.as_str()))
            .count()
    }
}

/// A server with one bucket.
pub(crate) struct ObjectStore {
    directory: TempDir,
    address: std::net::SocketAddr,
    serving: Option<JoinHandle<()>>,
    pub(crate) faults: Arc<Faults>,
}

#[derive(Clone)]
struct Shared {
    service: S3Service,
    faults: Arc<Faults>,
}

impl ObjectStore {
    /// Starts a server.
    pub(crate) async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut store = Self {
            directory,
            address: listener.local_addr().unwrap(),
            serving: None,
            faults: Arc::default(),
        };
        store.serve(listener);
        store
    }

    fn serve(&mut self, listener: TcpListener) {
        let files = FileSystem::new(self.directory.path()).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let shared = Shared {
            service: builder.build(),
            faults: Arc::clone(&self.faults),
        };
        let router = Router::new().fallback(answer).with_state(shared);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        self.serving = Some(serving);
    }

    /// Ends the server. Its files stay.
    pub(crate) async fn go_away(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
    }

    /// Starts the server again at its address.
    pub(crate) async fn come_back(&mut self) {
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        self.serve(listener);
    }

    /// Returns the files of the bucket below a folder.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let root = self.directory.path().join(BUCKET);
        let mut found = Vec::new();
        collect(&root.join(folder), &mut found);
        let names = found.iter().map(|it| it.strip_prefix(&root).unwrap());
        let mut names: Vec<_> = names.map(|it| it.display().to_string()).collect();
        names.sort();
        names
    }

    /// Returns the place of an object on the disk.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(BUCKET).join(name)
    }

    /// Returns the section of the settings, with a file for the credentials in a directory.
    pub(crate) fn settings(&self, directory: &Path, secret: &str) -> String {
        let credentials = directory.join("credentials");
        let text =
            format!("[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {secret}\n");
        sys::file::replace(&credentials, text.as_bytes()).unwrap();
        format!(
            "[objects]\nurl = \"s3://{BUCKET}/one\"\nendpoint = \"http://{}\"\ncredentials = \"{}\"\n",
            self.address,
            credentials.display()
        )
    }

    /// Opens the store as a coordinator does.
    pub(crate) fn open(&self, secret: &str) -> Objects {
        let directory = TempDir::new().unwrap();
        let text = format!(
            "database = \"postgres://d\"\n{}",
            self.settings(directory.path(), secret)
        );
        let settings: Settings = Written::parse(&text).unwrap().check().unwrap();
        open(&settings.objects.unwrap()).unwrap()
    }

    /// Opens the store with the right credentials.
    pub(crate) fn objects(&self) -> Objects {
        self.open(SECRET)
    }

    /// Returns the right section of the settings.
    pub(crate) fn right_settings(&self, directory: &Path) -> String {
        self.settings(directory, SECRET)
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

fn collect(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let entry = entry.unwrap();
        // The server has files of its own, for parts and types.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Takes one of a number of faults.
fn take(left: &AtomicUsize) -> bool {
    let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
    taken.is_ok()
}

async fn answer(State(shared): State<Shared>, request: Request) -> Result<Response, Infallible> {
    let faults = &shared.faults;
    let line = format!("{} {}", request.method(), request.uri());
    faults.seen.lock().unwrap().push(line);
    if take(&faults.failing) {
        return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    }
    let is_get = request.method() == Method::GET;
    let request = request.map(s3s::Body::http_body_unsync);
    let response = match shared.service.call(request).await {
        Ok(response) => response.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    };
    let is_cut = is_get && take(&faults.cutting);
    let is_slow = faults.slow.load(Ordering::SeqCst);
    Ok(if is_cut || is_slow {
        response.map(|body| Body::from_stream(spoiled(body, is_cut)))
    } else {
        response
    })
}

/// Returns a body whose pieces are small and late, and which is cut after one half of the first one.
fn spoiled(body: Body, is_cut: bool) -> impl futures_util::Stream<Item = Result<Bytes, String>> {
    let pieces = body.into_data_stream().map(move |piece| {
        let piece = piece.map_err(|error| error.to_string())?;
        Ok(if is_cut {
            piece.slice(..piece.len() / 2)
        } else {
            piece
        })
    });
    let end = futures_util::stream::iter(is_cut.then(|| Err("cut".to_owned())));
    pieces
        .take(if is_cut { 1 } else { usize::MAX })
        .chain(end)
        .then(async |piece| {
            sleep(Duration::from_millis(5)).await;
            piece
        })
}
