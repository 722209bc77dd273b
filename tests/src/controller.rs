//! A controller for tests. It answers as brep does: with its statuses, sessions that end with their first
//! result, a challenge that the `openssl` program verifies, and manifests in the form of libbutl. It is
//! strict, and misbehaves when it is told to.

mod http;
mod message;
mod protocol;

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use config::manifest::Manifest;

/// A task that the controller hands out.
#[derive(Debug, Clone)]
pub struct Task {
    /// The name of the package.
    pub package: String,
    /// The machine that it is for.
    pub machine: String,
    /// Further values of the task.
    pub values: Manifest,
}

/// A way to misbehave, for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misbehavior {
    /// Closes the connection before anything has happened.
    LostRequest,
    /// Does what the request asks for, and closes the connection without an answer.
    LostAnswer,
    /// Answers with this status.
    Status(u16),
    /// Answers with something that is no manifest.
    Garbage,
    /// Answers after this time.
    Slow(Duration),
}

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestKind {
    /// A request for a task.
    Task,
    /// An upload.
    Upload,
    /// A result.
    Result,
}

/// The state of a session.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its task.
    pub task: Task,
    /// The challenge.
    challenge: Option<String>,
    /// The statuses of the results that were accepted: one at most.
    pub accepted: Vec<String>,
    /// The results that came when the session had ended.
    pub stale: u32,
    /// The accepted result.
    pub result: Option<Manifest>,
    /// The uploads: type, instance, name and content.
    pub uploads: Vec<(String, String, String, Vec<u8>)>,
    /// Set when a result has come with a wrong signature.
    pub unauthenticated: bool,
}

/// The state of a controller, which outlives its process.
#[derive(Debug, Default)]
pub struct State {
    /// The tasks that wait.
    pub tasks: VecDeque<Task>,
    /// The sessions, by their names.
    pub sessions: BTreeMap<String, Session>,
    /// The requests for tasks: the values of the agent, and the names and identities of machines.
    pub requests: Vec<(Manifest, Vec<(String, String)>)>,
    /// The auxiliary machines of the last request, each with its least memory in KiB.
    pub auxiliaries: BTreeMap<String, u64>,
    /// The misbehavior for coming requests.
    pub misbehavior: BTreeMap<RequestKind, VecDeque<Misbehavior>>,
    /// The bad requests, each with the reason: a good agent makes none.
    pub bad_requests: Vec<String>,
    /// The file with the public key of the agent, if it is to be authenticated.
    pub public_key: Option<PathBuf>,
    /// The number of sessions ever made.
    made: u64,
}

impl State {
    /// Returns the sessions of a package, in the order in which they were made.
    pub fn sessions_of(&self, package: &str) -> Vec<&Session> {
        let sessions = self.sessions.values();
        sessions.filter(|it| it.task.package == package).collect()
    }

    /// Returns the statuses of the accepted results of a package, in order.
    pub fn accepted(&self, package: &str) -> Vec<String> {
        let sessions = self.sessions_of(package).into_iter();
        sessions.flat_map(|it| it.accepted.clone()).collect()
    }
}

/// A controller that listens on a port of this host.
#[derive(Debug)]
pub struct TestController {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    running: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl TestController {
    /// Starts a controller without tasks.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut controller = Self {
            state: Arc::default(),
            address: listener.local_addr().expect("an address"),
            running: None,
        };
        controller.serve(listener);
        controller
    }

    fn serve(&mut self, listener: TcpListener) {
        let (state, stop) = (Arc::clone(&self.state), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let base = self.base();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (state, base) = (Arc::clone(&state), base.clone());
                std::thread::spawn(move || http::serve(&stream, &state, &base));
            }
        });
        self.running = Some((stop, thread));
    }

    /// Ends the controller like a killed process; its state stays.
    pub fn kill(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.store(true, Ordering::SeqCst);
            let _ = std::net::TcpStream::connect(self.address);
            let _ = thread.join();
        }
    }

    /// Starts a killed controller again, at the same port.
    pub fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).expect("the same port");
        self.serve(listener);
    }

    fn base(&self) -> String {
        format!("http://{}/pkg", self.address)
    }

    /// Returns the address at which agents ask for tasks.
    pub fn url(&self) -> String {
        format!("{}?build-task&repository=a", self.base())
    }

    /// Returns the settings of an agent for this controller.
    pub fn settings(&self, name: &str, more: &str) -> String {
        format!(
            "[[controllers]]\nname = \"{name}\"\nurl = \"{}\"\n\
             toolchain_version = \"0.17.0\"\npoll_seconds = 1\n{more}\n",
            self.url()
        )
    }

    /// Returns the state.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a task for a machine.
    pub fn add(&self, package: &str, machine: &str) {
        self.add_with(package, machine, &[]);
    }

    /// Adds a task with further values for a machine.
    pub fn add_with(&self, package: &str, machine: &str, more: &[(&str, &str)]) {
        let values = Manifest::new().with("target", "x86_64-linux-gnu").with(
            "environment",
            "a line that is so long that the form of libbutl wraps it somewhere behind its middle",
        );
        let values = more.iter().fold(values, |all, it| all.with(it.0, it.1));
        self.state().tasks.push_back(Task {
            package: package.to_owned(),
            machine: machine.to_owned(),
            values,
        });
    }

    /// Ends the sessions without a result, and hands out their tasks again. Returns their number.
    pub fn expire(&self) -> usize {
        let mut state = self.state();
        let open = state
            .sessions
            .iter()
            .filter(|(_, it)| it.accepted.is_empty());
        let open: Vec<_> = open
            .map(|(name, it)| (name.clone(), it.task.clone()))
            .collect();
        let expired = open.len();
        for (name, task) in open {
            state.sessions.remove(&name);
            state.tasks.push_back(task);
        }
        expired
    }

    /// Lets the coming requests of a kind misbehave, each in one of these ways.
    pub fn misbehave(&self, kind: RequestKind, ways: &[Misbehavior]) {
        let mut state = self.state();
        state
            .misbehavior
            .entry(kind)
            .or_default()
            .extend(ways.iter().cloned());
    }

    /// Authenticates the agent by the public key in a file.
    pub fn authenticate(&self, public_key: &Path) {
        self.state().public_key = Some(public_key.to_owned());
    }
}

impl Drop for TestController {
    fn drop(&mut self) {
        self.kill();
    }
}
