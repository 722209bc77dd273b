//! An agent as a process, on a volume with machines, as an operator would run it.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use config::builds::{Build, ImageState, StartKind, Status};
use config::task::Outcome;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sys::command;

use crate::guest_fixture::LIMIT;
use crate::http_client::HttpClient;

/// The programs and the paths of an agent.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The directory of the measurement. Its subdirectory `host` has the volumes and toolchains.
    pub work: PathBuf,
    /// The name of the volume.
    pub volume: String,
    /// The name of the agent's own directories and log.
    pub name: String,
    /// The directory of `buildhost-agent` and `machinectl`, or `None` to search them in `PATH`.
    pub programs: Option<PathBuf>,
    /// Additional settings, as lines of the top level.
    pub settings: String,
}

impl Installation {
    /// Returns the programs in `PATH` on a volume, with the usual settings.
    pub fn new(work: &Path, volume: &str) -> Self {
        Self {
            work: work.to_owned(),
            volume: volume.to_owned(),
            name: volume.to_owned(),
            programs: None,
            settings: String::new(),
        }
    }

    fn program(&self, name: &str) -> PathBuf {
        match &self.programs {
            Some(directory) => directory.join(name),
            None => name.into(),
        }
    }

    fn run_directory(&self) -> PathBuf {
        self.work.join(format!("run-{}", self.name))
    }

    fn log(&self) -> PathBuf {
        self.work.join(format!("agent-{}.log", self.name))
    }
}

/// A running agent. Dropping it stops the agent and its guests.
#[derive(Debug)]
pub struct AgentProcess {
    process: Child,
    installation: Installation,
}

impl AgentProcess {
    /// Starts an agent.
    pub fn start(installation: Installation) -> Self {
        let work = installation.work.display();
        let Installation {
            volume,
            name,
            settings,
            ..
        } = &installation;
        let text = format!(
            "{settings}\
             host.name = \"bench\"\n\
             guests.user = \"nobody\"\n\
             guests.cpu_percent = 10000\n\
             log.filter = \"info,guest=debug,session=debug\"\n\
             log.format = \"json\"\n\
             [paths]\n\
             volumes = [\"{work}/host/{volume}\"]\n\
             toolchains = \"{work}/host/toolchains\"\n\
             state = \"{work}/state-{name}\"\n\
             run = \"{work}/run-{name}\"\n"
        );
        let path = installation.work.join("agent.toml");
        sys::file::replace(&path, text.as_bytes()).unwrap();
        let log = File::create(installation.log()).unwrap();
        let mut agent = command::prepare(installation.program("buildhost-agent"));
        agent.arg("--config").arg(path).stderr(log);
        Self {
            process: agent.spawn().unwrap(),
            installation,
        }
    }

    /// Runs `machinectl` and returns its output.
    pub fn machinectl(&self, arguments: &[&str]) -> String {
        let mut machinectl = self.command();
        machinectl.args(arguments);
        String::from_utf8(command::run(machinectl, LIMIT).unwrap()).unwrap()
    }

    fn command(&self) -> Command {
        let host = self.installation.work.join("host");
        let mut machinectl = command::prepare(self.installation.program("machinectl"));
        machinectl
            .env("BUILDHOST_VOLUME", host.join(&self.installation.volume))
            .env("BUILDHOST_TOOLCHAINS", host.join("toolchains"))
            .env("BUILDHOST_SOCKET", self.socket());
        machinectl
    }

    fn socket(&self) -> PathBuf {
        self.installation.run_directory().join("agent.sock")
    }

    /// Connects to the agent's administration socket.
    pub fn connect(&self) -> HttpClient<UnixStream> {
        HttpClient::new(UnixStream::connect(self.socket()).unwrap())
    }

    /// Waits until these machines have images, the machine `frozen` with a checkpoint, and no guest
    /// runs.
    pub fn wait_until_ready(&self, machines: &[&str]) {
        let status = || -> Option<Status> {
            let mut host = self.command();
            host.args(["host", "--json"]);
            serde_json::from_slice(&command::run(host, LIMIT).ok()?).ok()
        };
        self.wait("the machines are ready", || {
            let Some(status) = status() else {
                return false;
            };
            let is_ready = |name: &&str| {
                status.machines.iter().any(|it| {
                    let has_start = *name != "frozen" || it.start == StartKind::Restored;
                    it.machine.as_str() == *name && it.image == ImageState::Ready && has_start
                })
            };
            status.guests == 0 && machines.iter().all(is_ready)
        });
    }

    /// Waits until a condition holds.
    pub fn wait(&self, description: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !condition() {
            let is_in_time = Instant::now() < deadline;
            assert!(is_in_time, "timed out: {description}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the agent's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.installation.log()).unwrap()
    }

    /// Returns the time of the first entry with a message after an offset of the log.
    pub fn logged_at(&self, offset: usize, message: &str) -> Timestamp {
        let log = self.log();
        let entries = log[offset..].lines().map(serde_json::from_str::<Value>);
        let mut entries = entries.filter_map(Result::ok);
        let entry = entries.find(|entry| entry["fields"]["message"] == message);
        let entry = entry.unwrap();
        entry["timestamp"].as_str().unwrap().parse().unwrap()
    }

    /// Builds the demo's package on a machine and returns the record.
    pub fn build(&self, machine: &str) -> Build {
        let id = self.submit(machine, &[]);
        self.machinectl(&["--quiet", "log", "--follow", &id]);
        self.wait("the build has finished", || {
            self.record(&id).finished.is_some()
        });
        let build = self.record(&id);
        assert_eq!(build.outcome, Some(Outcome::Success), "{}", build.message);
        assert_eq!(build.attempts, 1, "{}", build.message);
        build
    }

    /// Submits a build of the demo's package and returns its number.
    pub fn submit(&self, machine: &str, options: &[&str]) -> String {
        let source = self.installation.work.join("hello-1.0.tar.gz");
        let build = ["--quiet", "build", "--no-attach", machine];
        let source = [source.to_str().unwrap()];
        let arguments = [&build[..], &source, options].concat();
        self.machinectl(&arguments).trim().to_owned()
    }

    /// Returns the record of a build.
    pub fn record(&self, id: &str) -> Build {
        let text = self.machinectl(&["builds", id, "--json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// Returns the records of the newest builds.
    pub fn newest_records(&self, count: usize) -> Vec<Build> {
        let text = self.machinectl(&["builds", "--count", &count.to_string(), "--json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// Returns a number of the process's status, such as `VmRSS`.
    pub fn status(&self, key: &str) -> u64 {
        number(&format!("/proc/{}/status", self.process.id()), key)
    }

    /// Returns how often the threads of the process have slept and been woken.
    pub fn wake_ups(&self) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let wake_ups = |thread: PathBuf| {
            let path = thread.join("status");
            number(path.to_str().unwrap(), "voluntary_ctxt_switches")
        };
        threads.map(|thread| wake_ups(thread.unwrap().path())).sum()
    }
}

fn number(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // The agent ends its guests before it exits.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}
