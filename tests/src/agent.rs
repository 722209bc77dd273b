//! A build host with a running agent, the real machine and toolchain of the demo, and
//! `machinectl` as its client.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use config::builds::{Build, HoldKind, State};
use guest::network::Network;
use rustix::process::{Pid, Signal, kill_process};
use store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use sys::command;
use tempfile::TempDir;

use crate::hosts::{BuildHost, CommandOutput, run};
use crate::terminal::Terminal;
use crate::wait_until;

/// The source of a program that waits in a container until the test opens its gate. See
/// [`AgentHost::open_gate`].
pub const GATED_PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) {
    puts("waiting at the gate");
    fflush(stdout);
    while (access("/gate", F_OK)) usleep(10000);
    return 0;
}
"#;

/// The source of a program that does not end by itself.
pub const ENDLESS_PROGRAM: &str = "#include <unistd.h>\nint main(void) { for (;;) sleep(1000); }\n";

/// A build host with an agent.
///
/// Dropping it ends the agent and everything that the agent started.
#[derive(Debug)]
pub struct AgentHost {
    agent: Option<Child>,
    name: String,
    settings: String,
    first_volume: Option<PathBuf>,
    work: TempDir,
    /// The host with the volume.
    pub host: BuildHost,
}

/// Returns the name of another host of this process.
fn next_name() -> String {
    static HOSTS: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id();
    match HOSTS.fetch_add(1, Ordering::Relaxed) {
        0 => format!("t{process}"),
        number => format!("t{process}h{number}"),
    }
}

impl AgentHost {
    /// Creates a host without machines and toolchains, whose agent does not run yet. The settings
    /// are added to those for its name and its paths.
    pub fn new(settings: &str) -> Self {
        Self::with_volume(4096, settings)
    }

    /// Creates a host like [`AgentHost::new`], with a volume of this many MiB.
    pub fn with_volume(mebibytes: u64, settings: &str) -> Self {
        let host = BuildHost::new(mebibytes);
        let prefix = format!("buildhost-test-{}-", std::process::id());
        let work = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir()
            .expect("a directory");
        Self {
            agent: None,
            name: next_name(),
            settings: settings.to_owned(),
            first_volume: None,
            work,
            host,
        }
    }

    /// Creates a host with the demo's machine and toolchain, and starts its agent.
    pub fn ready(settings: &str) -> Self {
        let mut host = Self::new(settings);
        host.add("demo", |_| {});
        host.add_toolchain("0.1.0");
        host.start();
        host
    }

    /// Creates a host like [`AgentHost::ready`], whose machine `demo` is a container.
    pub fn ready_with_container(settings: &str) -> Self {
        let mut host = Self::new(settings);
        host.add_container("demo", |_| {});
        host.add_toolchain("0.1.0");
        host.start();
        host
    }

    /// Creates a host with the demo's machine, without checkpoints and with a worker that is a
    /// shell script, and starts its agent.
    pub fn with_worker(settings: &str, script: &str) -> Self {
        let mut host = Self::new(&format!("guests.frozen = \"off\"\n{settings}"));
        host.add("demo", |_| {});
        host.add_worker("default", script);
        host.start();
        host
    }

    /// Adds the demo's machine under a name, after a change of its files.
    pub fn add(&self, name: &str, change: impl FnOnce(&Path)) {
        self.add_from(&demo_file("BUILDHOST_TEST_MACHINE"), name, change);
    }

    /// Adds the demo's container under a name, after a change of its files.
    pub fn add_container(&self, name: &str, change: impl FnOnce(&Path)) {
        let from = demo_file("BUILDHOST_TEST_MACHINE").with_file_name("container");
        self.add_from(&from, name, change);
    }

    /// Adds a machine with a copy of these files, after a change of the copy.
    pub fn add_from(&self, files: &Path, name: &str, change: impl FnOnce(&Path)) {
        let revision = self.host.mount.path().join(format!("{name}-1"));
        BtrfsBackend.create(&revision).expect("a subvolume");
        let mut copy = command::prepare("cp");
        copy.args(["--sparse=always", "--recursive", "--no-target-directory"]);
        copy.args([files, &revision]);
        command::run(copy, Duration::from_mins(1)).expect("a copy");
        change(&revision);
        BtrfsBackend
            .make_read_only(&revision)
            .expect("a read-only image");
        let from = revision.display().to_string();
        self.host
            .machinectl(&["add", name, "--from", &from], b"")
            .success();
    }

    /// Makes the demo's toolchain the toolchain `default`, marked with a version.
    pub fn add_toolchain(&self, version: &str) {
        let directory = tempfile::tempdir_in(self.work.path()).expect("a directory");
        let from = demo_file("BUILDHOST_TEST_TOOLCHAIN").join("toolchain.tar.gz");
        fs::copy(from, directory.path().join("toolchain.tar.gz")).expect("a copy");
        // No guest fetches this file, but it is part of the toolchain's identity.
        crate::write_file(&directory.path().join("version"), version);
        let from = directory.path().display().to_string();
        self.host
            .machinectl(&["toolchain", "add", "default", &from], b"")
            .success();
    }

    /// Returns the agent's process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.agent.as_ref().expect("a running agent"))
    }

    /// Returns the host's name in its settings.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a toolchain for the demo's machine whose worker is a shell script.
    pub fn add_worker(&self, name: &str, script: &str) {
        self.add_worker_with(name, script, &[]);
    }

    /// Adds a toolchain like [`AgentHost::add_worker`], with programs and libraries beside the script.
    pub fn add_worker_with(&self, name: &str, script: &str, files: &[&Path]) {
        let directory = tempfile::tempdir_in(self.work.path()).expect("a directory");
        let worker = directory.path().join("buildhost-worker");
        crate::write_file(&worker, script);
        fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).expect("a program");
        let archive = directory.path().join("toolchain.tar.gz");
        let mut tar = command::prepare("tar");
        tar.arg("-czf").arg(&archive).arg("--dereference");
        tar.arg("-C").arg(directory.path()).arg("buildhost-worker");
        for file in files {
            let (parent, name) = (file.parent().expect("a parent"), file.file_name());
            tar.arg("-C").arg(parent).arg(name.expect("a name"));
        }
        command::run(tar, Duration::from_mins(1)).expect("an archive");
        fs::remove_file(worker).expect("only the archive");
        let from = directory.path().display().to_string();
        self.host
            .machinectl(&["toolchain", "add", name, &from], b"")
            .success();
    }

    /// Adds the demo's toolchain under a name, with another program `build`.
    pub fn add_build_program(&self, name: &str, script: &str) {
        let directory = tempfile::tempdir_in(self.work.path()).expect("a directory");
        let files = directory.path().join("files");
        fs::create_dir(&files).expect("a directory");
        let from = demo_file("BUILDHOST_TEST_TOOLCHAIN").join("toolchain.tar.gz");
        let mut unpack = command::prepare("tar");
        unpack.arg("-xzf").arg(from).arg("-C").arg(&files);
        command::run(unpack, Duration::from_mins(1)).expect("the demo's toolchain");
        let build = files.join("build");
        crate::write_file(&build, script);
        fs::set_permissions(&build, fs::Permissions::from_mode(0o755)).expect("a program");
        let archive = directory.path().join("toolchain.tar.gz");
        let mut pack = command::prepare("tar");
        pack.arg("-czf")
            .arg(&archive)
            .arg("-C")
            .arg(&files)
            .arg(".");
        command::run(pack, Duration::from_mins(1)).expect("an archive");
        fs::remove_dir_all(files).expect("only the archive");
        let from = directory.path().display().to_string();
        self.host
            .machinectl(&["toolchain", "add", name, &from], b"")
            .success();
    }

    /// Returns the agent's directory for what does not survive a boot.
    pub fn run_directory(&self) -> PathBuf {
        self.work.path().join("run")
    }

    /// Returns the agent's directory for what survives a boot.
    pub fn state_directory(&self) -> PathBuf {
        self.work.path().join("state")
    }

    /// Returns everything that the agent has logged, including earlier processes of it.
    pub fn log(&self) -> String {
        fs::read_to_string(self.work.path().join("agent.log")).unwrap_or_default()
    }

    /// Adds a volume to the settings of the agent, before the host's own.
    pub fn add_first_volume(&mut self, path: PathBuf) {
        self.first_volume = Some(path);
    }

    fn volumes(&self) -> Vec<&Path> {
        let first = self.first_volume.as_deref();
        first.into_iter().chain([self.host.volume.path()]).collect()
    }

    /// Replaces the settings that are added to those for the agent's name and its paths, in its
    /// settings file as well.
    pub fn change_settings(&mut self, settings: &str) {
        settings.clone_into(&mut self.settings);
        self.write_settings();
    }

    /// Writes the settings file and returns its path.
    fn write_settings(&self) -> PathBuf {
        let path = self.work.path().join("agent.toml");
        // They outlive the builds whose end most tests wait for.
        let ready_guests = if self.settings.contains("ready_max") {
            ""
        } else {
            "guests.ready_max = 0\n"
        };
        let text = format!(
            "host.name = \"{}\"\npaths.volumes = {:?}\npaths.toolchains = \"{}\"\npaths.state = \"{}\"\npaths.run = \"{}\"\n{ready_guests}{}",
            self.name,
            self.volumes(),
            self.host.mount.path().join("toolchains").display(),
            self.state_directory().display(),
            self.run_directory().display(),
            self.settings,
        );
        crate::write_file(&path, &text);
        path
    }

    /// Returns the command that starts the agent, and writes its settings.
    pub fn command(&self) -> Command {
        let path = self.write_settings();
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
    pub fn start(&mut self) {
        let agent = self.command().spawn().expect("the agent");
        self.wait_for_agent(agent);
    }

    /// Starts the agent with variables in its environment, and waits until it answers.
    pub fn start_in_environment(&mut self, variables: &[(&str, &OsStr)]) {
        let mut command = self.command();
        let agent = command.envs(variables.iter().copied()).spawn();
        self.wait_for_agent(agent.expect("the agent"));
    }

    /// Starts the agent in a network that stands in for the host's, and waits until it answers.
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

    /// Sends the agent a signal that does not end it.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    /// Sends the agent a signal, waits for its end, and returns its exit code.
    pub fn stop(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        let mut agent = self.agent.take().expect("a running agent");
        agent.wait().expect("its end").code()
    }

    /// Calls `machinectl` with the address of the agent.
    pub fn machinectl(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = self.host.command(arguments);
        command.env("BUILDHOST_SOCKET", self.run_directory().join("agent.sock"));
        run(command, b"")
    }

    /// Calls `machinectl` at a terminal.
    pub fn terminal(&self, arguments: &[&str]) -> Terminal {
        let mut command = self.host.command(arguments);
        command.env("BUILDHOST_SOCKET", self.run_directory().join("agent.sock"));
        Terminal::start(command)
    }

    /// Submits a build of a program that prints a text, and returns its number.
    pub fn submit(&self, machine: &str, text: &str) -> u64 {
        self.submit_code(machine, &printing_program(text))
    }

    /// Submits a build of a C program, and returns its number.
    pub fn submit_code(&self, machine: &str, code: &str) -> u64 {
        self.submit_to(machine, "default", code)
    }

    /// Submits a build of a C program with a toolchain, and returns its number.
    pub fn submit_to(&self, machine: &str, toolchain: &str, code: &str) -> u64 {
        self.submit_with(machine, code, &["--toolchain", toolchain])
    }

    /// Submits a build of a program that prints a text, which stops at a breakpoint before it
    /// starts, until [`AgentHost::resume`].
    pub fn submit_stopped(&self, machine: &str, text: &str) -> u64 {
        let code = printing_program(text);
        self.submit_with(machine, &code, &["--interactive", "start"])
    }

    fn submit_with(&self, machine: &str, code: &str, options: &[&str]) -> u64 {
        let archive = self.source(code);
        let build = ["build", machine, &archive, "--no-coalesce"];
        let answer = self.machinectl(&[&build, options].concat()).success();
        answer.stdout.trim().parse().expect("a number")
    }

    /// Submits a build on the machine `demo` whose source is a file `script`, and returns its number.
    pub fn submit_script(&self, script: &str, options: &[&str]) -> u64 {
        let source = self.work.path().join("script");
        crate::write_file(&source, script);
        let source = source.display().to_string();
        let build = ["build", "demo", &source, "--no-coalesce"];
        let answer = self.machinectl(&[&build, options].concat()).success();
        answer.stdout.trim().parse().expect("a number")
    }

    /// Waits until a build stops at its breakpoint.
    pub fn wait_for_breakpoint(&self, id: u64) {
        wait_until(&format!("build {id} stops at its breakpoint"), || {
            let held = self.build(id).interactive.held;
            held.is_some_and(|hold| hold.kind == HoldKind::Breakpoint)
        });
    }

    /// Resumes a build that has stopped at its breakpoint.
    pub fn resume(&self, id: u64) {
        self.machinectl(&["resume", &id.to_string()]).success();
    }

    /// Waits until a build runs its [`GATED_PROGRAM`].
    pub fn wait_for_gate(&self, id: u64) {
        let log = self.state_directory().join(format!("builds/{id}/log.live"));
        wait_until(&format!("build {id} waits at its gate"), || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("waiting at the gate"))
        });
    }

    /// Ends the [`GATED_PROGRAM`] of a build in a container.
    pub fn open_gate(&self, machine: &str, id: u64) {
        let root = format!("{machine}/{machine}-default-{id}/root");
        let root = self.host.volume.path().join(root);
        crate::write_file(&root.join("gate"), "");
    }

    /// Creates an archive with the source of a C program, and returns its path.
    pub fn source(&self, code: &str) -> String {
        let sources = self.work.path().join("hello-1.0");
        fs::create_dir_all(&sources).expect("a directory");
        crate::write_file(&sources.join("hello.c"), code);
        crate::write_file(
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

    /// Returns the record of a build.
    pub fn build(&self, id: u64) -> Build {
        let answer = self
            .machinectl(&["builds", &id.to_string(), "--json"])
            .success();
        serde_json::from_str(&answer.stdout).expect("a record")
    }

    /// Waits until a build has reached a state or a later one, and returns its record.
    pub fn wait_for(&self, id: u64, state: State) -> Build {
        self.wait_for_within(crate::WAIT_MAX, id, state)
    }

    /// Waits as [`AgentHost::wait_for`], with another limit.
    pub fn wait_for_within(&self, limit: Duration, id: u64, state: State) -> Build {
        let mut build = self.build(id);
        crate::wait_until_within(limit, &format!("build {id} is {state}"), || {
            build = self.build(id);
            build.state >= state
        });
        build
    }

    /// Returns an answer of Toaster's monitoring API.
    pub fn toaster(&self, path: &str) -> serde_json::Value {
        let mut curl = command::prepare("curl");
        curl.args(["--silent", "--fail", "--unix-socket"]);
        curl.arg(self.run_directory().join("agent.sock"));
        curl.arg(format!("http://host{path}"));
        let answer = command::run(curl, Duration::from_mins(1)).expect("an answer");
        serde_json::from_slice(&answer).expect("JSON")
    }

    /// Returns the log of a build's worker and toolchain.
    pub fn log_of(&self, id: u64) -> String {
        self.machinectl(&["log", &id.to_string()]).success().stdout
    }
}

impl Drop for AgentHost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows the agent's log")]
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

/// Returns the source of a program that prints a text.
pub fn printing_program(text: &str) -> String {
    format!("#include <stdio.h>\nint main(void) {{ return puts(\"{text}\") < 0; }}\n")
}

/// Returns the path of something that scripts/test has built.
fn demo_file(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(path) => path.into(),
        None => panic!("{variable} is not set; run the tests by scripts/test"),
    }
}
