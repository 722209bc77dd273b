//! A build host with a running agent: the real machine, the real toolchain, and
//! `machinectl` to ask it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use config::builds::{Build, State};
use guest::network::Network;
use rustix::process::{Pid, Signal, kill_process};
use store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use sys::command;
use tempfile::TempDir;

use crate::hosts::{Answer, BuildHost, run};
use crate::terminal::Terminal;
use crate::wait_until;

/// A build host with an agent.
///
/// Dropping it ends the agent and everything that it started.
#[derive(Debug)]
pub struct AgentHost {
    agent: Option<Child>,
    name: String,
    settings: String,
    work: TempDir,
    /// The host's volume.
    pub host: BuildHost,
}

impl AgentHost {
    /// A host whose agent has these settings besides its name and its paths. It
    /// holds no machine and no toolchain; the agent does not run yet.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(settings: &str) -> Self {
        Self::with_volume(4096, settings)
    }

    /// The same, with a volume of so many MiB.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn with_volume(mebibytes: u64, settings: &str) -> Self {
        let host = BuildHost::new(mebibytes);
        let prefix = format!("buildhost-test-{}-", std::process::id());
        let work = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir()
            .expect("a directory");
        Self {
            agent: None,
            name: format!("t{}", std::process::id()),
            settings: settings.to_owned(),
            work,
            host,
        }
    }

    /// One with the demo's machine, its toolchain, and a running agent.
    pub fn ready(settings: &str) -> Self {
        let mut host = Self::new(settings);
        host.add("demo", |_| {});
        host.add_toolchain("0.1.0");
        host.start();
        host
    }

    /// One whose machine `demo` is a container.
    pub fn ready_with_container(settings: &str) -> Self {
        let mut host = Self::new(settings);
        host.add_container("demo", |_| {});
        host.add_toolchain("0.1.0");
        host.start();
        host
    }

    /// Adds a machine made from the demo's, after a change of its files.
    pub fn add(&self, name: &str, change: impl FnOnce(&Path)) {
        self.add_from(&made("BUILDHOST_TEST_MACHINE"), name, change);
    }

    /// Adds a container made from the demo's, after a change of its files.
    pub fn add_container(&self, name: &str, change: impl FnOnce(&Path)) {
        let from = made("BUILDHOST_TEST_MACHINE").with_file_name("container");
        self.add_from(&from, name, change);
    }

    /// Adds a machine made from these files, after a change of them.
    ///
    /// # Panics
    /// When it cannot.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn add_from(&self, files: &Path, name: &str, change: impl FnOnce(&Path)) {
        let revision = self.host.mount.path().join(format!("{name}-1"));
        BtrfsBackend.create(&revision).expect("a subvolume");
        let mut copy = command::prepare("cp");
        copy.args(["--sparse=always", "--recursive", "--no-target-directory"]);
        copy.args([files, &revision]);
        command::run(copy, Duration::from_mins(1)).expect("a copy");
        change(&revision);
        BtrfsBackend.seal(&revision).expect("a read-only image");
        let from = revision.display().to_string();
        self.host
            .machinectl(&["add", name, "--from", &from], b"")
            .good();
    }

    /// Makes the demo's toolchain the toolchain `default`, saying that it has this version.
    ///
    /// # Panics
    /// When it cannot.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn add_toolchain(&self, version: &str) {
        let directory = tempfile::tempdir_in(self.work.path()).expect("a directory");
        let from = made("BUILDHOST_TEST_TOOLCHAIN").join("toolchain.tar.gz");
        fs::copy(from, directory.path().join("toolchain.tar.gz")).expect("a copy");
        // Not fetched by the machine, but part of what the toolchain is.
        crate::put(&directory.path().join("version"), version);
        let from = directory.path().display().to_string();
        self.host
            .machinectl(&["toolchain", "add", "default", &from], b"")
            .good();
    }

    /// The agent's process.
    ///
    /// # Panics
    /// When it does not run.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.agent.as_ref().expect("a running agent"))
    }

    /// The name that its settings give the host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a toolchain whose worker is this shell script, in the demo's machine.
    ///
    /// # Panics
    /// When it cannot.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn add_worker(&self, name: &str, script: &str) {
        let directory = tempfile::tempdir_in(self.work.path()).expect("a directory");
        let worker = directory.path().join("buildhost-worker");
        crate::put(&worker, script);
        fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).expect("a program");
        let archive = directory.path().join("toolchain.tar.gz");
        let mut tar = command::prepare("tar");
        tar.arg("-czf")
            .arg(&archive)
            .arg("-C")
            .arg(directory.path());
        tar.arg("buildhost-worker");
        command::run(tar, Duration::from_mins(1)).expect("an archive");
        fs::remove_file(worker).expect("only the archive");
        let from = directory.path().display().to_string();
        self.host
            .machinectl(&["toolchain", "add", name, &from], b"")
            .good();
    }

    /// Where the agent keeps what does not outlive a boot.
    pub fn run(&self) -> PathBuf {
        self.work.path().join("run")
    }

    /// Where the agent keeps what does.
    pub fn state(&self) -> PathBuf {
        self.work.path().join("state")
    }

    /// What the agent has said so far, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.work.path().join("agent.log")).unwrap_or_default()
    }

    /// The agent, not yet started.
    ///
    /// # Panics
    /// When its settings cannot be written.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn command(&self) -> Command {
        let path = self.work.path().join("agent.toml");
        let text = format!(
            "host.name = \"{}\"\npaths.volumes = [\"{}\"]\npaths.toolchains = \"{}\"\npaths.state = \"{}\"\npaths.run = \"{}\"\n{}",
            self.name,
            self.host.volume.path().display(),
            self.host.mount.path().join("toolchains").display(),
            self.state().display(),
            self.run().display(),
            self.settings,
        );
        crate::put(&path, &text);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.work.path().join("agent.log"))
            .expect("a log");
        let mut command = command::prepare(crate::program("buildhost-agent"));
        command.arg("--config").arg(path).stderr(log);
        command
    }

    /// Starts the agent and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn start(&mut self) {
        let agent = self.command().spawn().expect("the agent");
        self.wait_for_agent(agent);
    }

    /// The same, in a network that stands for the host's.
    ///
    /// # Panics
    /// When it does not answer.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn start_in(&mut self, network: &Network) {
        let mut command = self.command();
        let agent = network.enter(|| command.spawn()).expect("the agent");
        self.wait_for_agent(agent);
    }

    fn wait_for_agent(&mut self, agent: Child) {
        self.agent = Some(agent);
        wait_until("the agent answers", || {
            self.machinectl(&["builds"]).code == Some(0)
        });
    }

    /// Sends the agent a signal and waits for its end; its exit code.
    ///
    /// # Panics
    /// When it does not run.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn end(&mut self, signal: Signal) -> Option<i32> {
        let mut agent = self.agent.take().expect("a running agent");
        kill_process(Pid::from_child(&agent), signal).expect("a signal");
        agent.wait().expect("its end").code()
    }

    /// Calls `machinectl`, which knows where the agent is.
    pub fn machinectl(&self, arguments: &[&str]) -> Answer {
        let mut command = self.host.command(arguments);
        command.env("BUILDHOST_SOCKET", self.run().join("agent.sock"));
        run(command, b"")
    }

    /// Calls `machinectl` at a terminal.
    pub fn terminal(&self, arguments: &[&str]) -> Terminal {
        let mut command = self.host.command(arguments);
        command.env("BUILDHOST_SOCKET", self.run().join("agent.sock"));
        Terminal::start(command)
    }

    /// Submits a build of a program that says `words`, and returns its number.
    pub fn submit(&self, machine: &str, words: &str) -> u64 {
        self.submit_code(
            machine,
            &format!("#include <stdio.h>\nint main(void) {{ return puts(\"{words}\") < 0; }}\n"),
        )
    }

    /// Submits a build of a C program, and returns its number.
    pub fn submit_code(&self, machine: &str, code: &str) -> u64 {
        self.submit_to(machine, "default", code)
    }

    /// Submits a build of a C program with a toolchain, and returns its number.
    ///
    /// # Panics
    /// When it is refused.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn submit_to(&self, machine: &str, toolchain: &str, code: &str) -> u64 {
        let archive = self.source(code);
        let verb = ["build", machine, &archive, "--toolchain", toolchain];
        let answer = self
            .machinectl(&[&verb[..], &["--no-attach"]].concat())
            .good();
        answer.stdout.trim().parse().expect("a number")
    }

    /// An archive with the source of a C program.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn source(&self, code: &str) -> String {
        let sources = self.work.path().join("hello-1.0");
        fs::create_dir_all(&sources).expect("a directory");
        crate::put(&sources.join("hello.c"), code);
        crate::put(
            &sources.join("recipe"),
            "name: hello\nversion: 1.0\nrevision: r0\nsummary: Says hello\n",
        );
        let archive = self.work.path().join("hello-1.0.tar.gz");
        let mut tar = command::prepare("tar");
        tar.args(["--sort=name", "--mtime=@0", "-C"])
            .arg(self.work.path());
        tar.arg("-czf").args([&archive, Path::new("hello-1.0")]);
        command::run(tar, Duration::from_mins(1)).expect("an archive");
        archive.display().to_string()
    }

    /// The record of a build.
    ///
    /// # Panics
    /// When there is none.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn build(&self, id: u64) -> Build {
        let answer = self
            .machinectl(&["builds", &id.to_string(), "--json"])
            .good();
        serde_json::from_str(&answer.stdout).expect("a record")
    }

    /// Waits until a build has come to a state, or past it.
    pub fn wait_for(&self, id: u64, state: State) -> Build {
        wait_until(&format!("build {id} is {state}"), || {
            self.build(id).state >= state
        });
        self.build(id)
    }

    /// What its worker and its toolchain printed.
    pub fn log_of(&self, id: u64) -> String {
        self.machinectl(&["log", &id.to_string()]).good().stdout
    }
}

impl Drop for AgentHost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "this is what one wants to read then")]
            {
                eprintln!("The agent's log:\n{}", self.log());
            }
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        for guest in self.guests() {
            let _ = kill_process(guest, Signal::KILL);
        }
        for network in self.networks() {
            let mut delete = command::prepare("ip");
            delete.args(["netns", "delete", &network]);
            let _ = command::run(delete, Duration::from_mins(1));
        }
    }
}

/// What scripts/test has made for the tests.
///
/// # Panics
/// When it has not.
#[expect(clippy::panic, reason = "a test cannot go on without it")]
fn made(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) => path.into(),
        None => panic!("{variable} is not set; run the tests by scripts/test"),
    }
}
