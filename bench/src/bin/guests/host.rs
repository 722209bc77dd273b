//! An agent with a volume of machines, as an operator would run it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use config::builds::{Build, ImageState, StartKind, Status};
use config::task::Outcome;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sys::command;

use crate::ground::LIMIT;

/// An agent; dropping it ends it.
pub(crate) struct Agent {
    process: Child,
    work: PathBuf,
    volume: String,
}

impl Agent {
    /// Starts one in a directory with the mount `host`, on one of its volumes.
    pub(crate) fn start(work: &Path, volume: &str) -> Self {
        let at = work.display();
        let settings = work.join("agent.toml");
        let text = format!(
            "host.name = \"bench\"\n\
             guests.user = \"nobody\"\n\
             guests.cpu_percent = 10000\n\
             log.filter = \"info,guest=debug,agent::session=debug\"\n\
             log.format = \"json\"\n\
             [paths]\n\
             volumes = [\"{at}/host/{volume}\"]\n\
             toolchains = \"{at}/host/toolchains\"\n\
             state = \"{at}/state-{volume}\"\n\
             run = \"{at}/run-{volume}\"\n"
        );
        sys::file::replace(&settings, text.as_bytes()).unwrap();
        let log = File::create(log(work, volume)).unwrap();
        let mut agent = command::prepare("buildhost-agent");
        agent.arg("--config").arg(settings).stderr(log);
        Self {
            process: agent.spawn().unwrap(),
            work: work.to_owned(),
            volume: volume.to_owned(),
        }
    }

    /// Runs `machinectl`, and returns what it prints.
    pub(crate) fn machinectl(&self, words: &[&str]) -> String {
        let mut machinectl = self.prepare();
        machinectl.args(words);
        String::from_utf8(command::run(machinectl, LIMIT).unwrap()).unwrap()
    }

    fn prepare(&self) -> std::process::Command {
        let host = self.work.join("host");
        let mut machinectl = command::prepare("machinectl");
        machinectl
            .env("BUILDHOST_VOLUME", host.join(&self.volume))
            .env("BUILDHOST_TOOLCHAINS", host.join("toolchains"))
            .env("BUILDHOST_SOCKET", self.run().join("agent.sock"));
        machinectl
    }

    fn run(&self) -> PathBuf {
        self.work.join(format!("run-{}", self.volume))
    }

    /// Waits until these machines have images, with whatever guests they freeze.
    pub(crate) fn wait_until_ready(&self, machines: &[&str]) {
        let status = || -> Option<Status> {
            let mut host = self.prepare();
            host.args(["host", "status", "--json"]);
            serde_json::from_slice(&command::run(host, LIMIT).ok()?).ok()
        };
        self.wait("the machines are not ready", || {
            let Some(status) = status() else {
                return false;
            };
            let ready = |name: &&str| {
                let mut all = status.machines.iter();
                all.any(|it| {
                    let frozen = *name != "frozen" || it.start == StartKind::Restored;
                    it.machine.as_str() == *name && it.image == ImageState::Ready && frozen
                })
            };
            status.guests == 0 && machines.iter().all(ready)
        });
    }

    /// Looks again and again until it is so.
    pub(crate) fn wait(&self, not_yet: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so() {
            assert!(Instant::now() < deadline, "{not_yet}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log(&self.work, &self.volume)).unwrap()
    }

    /// When it first logged something, after so many bytes of its log.
    pub(crate) fn logged(&self, after: usize, message: &str) -> Timestamp {
        let log = self.log();
        let lines = log[after..].lines().map(serde_json::from_str::<Value>);
        let mut lines = lines.filter_map(Result::ok);
        let line = lines.find(|line| line["fields"]["message"] == message);
        let line = line.unwrap();
        line["timestamp"].as_str().unwrap().parse().unwrap()
    }

    /// Builds the demo's package on a machine, and returns what is known of it.
    pub(crate) fn build(&self, machine: &str) -> Build {
        let id = self.submit(machine, &[]);
        self.machinectl(&["--quiet", "log", "--follow", &id]);
        self.wait("a build does not end", || self.look(&id).finished.is_some());
        let build = self.look(&id);
        assert_eq!(build.outcome, Some(Outcome::Success), "{}", build.message);
        assert_eq!(build.attempts, 1, "{}", build.message);
        build
    }

    /// Asks for a build of the demo's package, and returns its number.
    pub(crate) fn submit(&self, machine: &str, wishes: &[&str]) -> String {
        let source = self.work.join("hello-1.0.tar.gz");
        let line = ["--quiet", "build", "--no-coalesce", machine];
        let source = [source.to_str().unwrap()];
        let line = [&line[..], &source, wishes].concat();
        self.machinectl(&line).trim().to_owned()
    }

    /// What is known of a build.
    pub(crate) fn look(&self, id: &str) -> Build {
        let text = self.machinectl(&["builds", id, "--json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// A number of its process's status, such as `VmRSS`.
    pub(crate) fn status(&self, key: &str) -> u64 {
        number(&format!("/proc/{}/status", self.process.id()), key)
    }

    /// How often its threads have waited so far, and gone on.
    pub(crate) fn wake_ups(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of = |task: PathBuf| {
            let path = task.join("status");
            number(path.to_str().unwrap(), "voluntary_ctxt_switches")
        };
        tasks.map(|task| of(task.unwrap().path())).sum()
    }
}

fn log(work: &Path, volume: &str) -> PathBuf {
    work.join(format!("agent-{volume}.log"))
}

fn number(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let word = line.unwrap().split_whitespace().next().unwrap();
    word.parse().unwrap()
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It ends its guests before it ends.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}
