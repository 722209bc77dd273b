//! A farm for tests: PostgreSQL, coordinators, and the enrolment of hosts.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use reqwest::blocking::Client;
use serde_json::{Value, json};
use server_tests::Cluster;
use sys::command;
use tempfile::TempDir;
use tests::agent::AgentHost;
use tests::hosts::CommandOutput;
use tests::{program, wait_until, write_file};

/// The time of a lease, of which a host uses one half.
pub(super) const LEASE_SECONDS: u32 = 8;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A farm, which ends when it is dropped.
pub(super) struct Farm {
    coordinators: Vec<Coordinator>,
    cluster: Cluster,
    directory: TempDir,
    client: Client,
}

/// A coordinator.
struct Coordinator {
    address: SocketAddr,
    process: Child,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Farm {
    pub(super) fn start(coordinators: usize) -> Self {
        Self::with_settings(coordinators, "")
    }

    /// Starts a farm that puts the files of builds into a directory.
    pub(super) fn with_objects(coordinators: usize, directory: &Path) -> Self {
        let url = format!("file://{}", directory.display());
        Self::with_settings(coordinators, &format!("[objects]\nurl = \"{url}\"\n"))
    }

    fn with_settings(coordinators: usize, settings: &str) -> Self {
        let (cluster, directory) = (Cluster::start(), tempfile::tempdir().unwrap());
        write_file(&directory.path().join("farm.toml"), settings);
        write_file(&directory.path().join("clients"), TOKEN);
        let mut farm = Self {
            coordinators: Vec::new(),
            cluster,
            directory,
            client: Client::new(),
        };
        for _ in 0..coordinators {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let coordinator = farm.coordinator(address);
            farm.coordinators.push(coordinator);
        }
        farm
    }

    fn command(&self) -> std::process::Command {
        let mut command = command::prepare(program("buildhost-farm"));
        command.env("BUILDHOST_FARM_DB", self.cluster.url());
        command
    }

    fn coordinator(&self, address: SocketAddr) -> Coordinator {
        let log = fs::File::create(self.directory.path().join(address.port().to_string()));
        let process = self
            .command()
            .arg("--config")
            .arg(self.directory.path().join("farm.toml"))
            .args(["serve", "--listen", &address.to_string()])
            .args(["--url", &format!("http://{address}")])
            .args(["--lease-seconds", &LEASE_SECONDS.to_string()])
            .arg("--client-token")
            .arg(self.directory.path().join("clients"))
            .arg("--sources")
            .arg(self.sources(address))
            .stderr(Stdio::from(log.unwrap()))
            .spawn()
            .unwrap();
        let coordinator = Coordinator { address, process };
        wait_until("the coordinator listens", || {
            TcpStream::connect(address).is_ok()
        });
        coordinator
    }

    /// Returns the directory of a coordinator's sources.
    fn sources(&self, address: SocketAddr) -> PathBuf {
        let name = format!("sources-{}", address.port());
        self.directory.path().join(name)
    }

    /// Returns the settings of a host.
    pub(super) fn settings(&self) -> String {
        let urls = self.coordinators.iter();
        let urls: Vec<_> = urls
            .map(|it| format!("\"http://{}\"", it.address))
            .collect();
        format!(
            "[[controllers]]\nname = \"farm\"\nkind = \"farm\"\nurls = [{}]\n",
            urls.join(", ")
        )
    }

    /// Enrols a host under a name.
    pub(super) fn enrol(&self, host: &AgentHost, name: &str) {
        let invited = self.command().args(["invite", name]).output().unwrap();
        assert!(invited.status.success(), "{invited:?}");
        let file = self.directory.path().join("token");
        write_file(&file, &String::from_utf8(invited.stdout).unwrap());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let file = file.display().to_string();
        host.machinectl(&["enrol", "farm", "--token", &file])
            .success();
    }

    pub(super) fn revoke(&self, name: &str) {
        let revoked = self.command().args(["revoke", name]).output().unwrap();
        assert!(revoked.status.success(), "{revoked:?}");
    }

    /// Submits the build of a script.
    pub(super) fn submit(&self, package: &str, script: &str) -> u64 {
        let body = json!({
            "key": package, "submitter": "ann", "priority": 0,
            "requirements": {
                "machine": "demo", "toolchain": "default", "cpus": 1, "memory_mib": 1,
                "work": { "script": script, "package": package },
            },
        });
        let mut build = None;
        wait_until("the farm accepts a build", || {
            let answer = self.post("builds", &body);
            build = answer.and_then(|it| it["build"].as_u64());
            build.is_some()
        });
        build.unwrap()
    }

    /// Publishes a revision with the content of the hosts, or returns the refusal.
    pub(super) fn publish(&self, machine: &str, revision: u64) -> Result<(), String> {
        self.change(machine, &json!({ "revision": revision }))
    }

    /// Puts a revision on trial, or returns the refusal.
    pub(super) fn try_revision(
        &self,
        machine: &str,
        revision: u64,
        terms: &str,
    ) -> Result<(), String> {
        self.change(machine, &json!({ "revision": revision, "canary": terms }))
    }

    /// Ends a trial: `promote` or `rollback`.
    pub(super) fn decide(&self, machine: &str, verdict: &str) {
        let path = format!("machines/{machine}/{verdict}");
        wait_until("the farm ends a trial", || {
            self.post(&path, &json!({})).is_some()
        });
    }

    fn change(&self, machine: &str, body: &Value) -> Result<(), String> {
        let address = self.coordinators[0].address;
        let url = format!("http://{address}/farm/v1/machines/{machine}");
        let answer = self.client.post(url).bearer_auth(TOKEN).json(body).send();
        let answer = answer.unwrap();
        let is_good = answer.status().is_success();
        let text = answer.text().unwrap();
        if is_good { Ok(()) } else { Err(text) }
    }

    /// Calls `machinectl` with the farm.
    pub(super) fn machinectl(&self, host: &AgentHost, arguments: &[&str]) -> CommandOutput {
        let url = format!("http://{}", self.coordinators[0].address);
        let token = self.directory.path().join("clients").display().to_string();
        let farm = ["--farm", &url, "--token-file", &token];
        host.machinectl(&[&farm, arguments].concat())
    }

    /// Returns a command of `machinectl` with the farm, which is not started yet.
    pub(super) fn command_line(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command::prepare(program("machinectl"));
        let url = format!("http://{}", self.coordinators[0].address);
        command.args(["--farm", &url, "--token-file"]);
        command.arg(self.directory.path().join("clients"));
        command.args(arguments);
        command
    }

    pub(super) fn cancel(&self, build: u64) {
        wait_until("the farm accepts a cancellation", || {
            self.post(&format!("builds/{build}/cancel"), &json!({}))
                .is_some()
        });
    }

    /// Returns the state of a build; null if no coordinator answers.
    pub(super) fn state(&self, build: u64) -> Value {
        let get = |it: &Coordinator| {
            let url = format!("http://{}/farm/v1/builds/{build}", it.address);
            let answer = self.client.get(url).bearer_auth(TOKEN).send().ok()?;
            answer.error_for_status().ok()?.json().ok()
        };
        self.coordinators.iter().find_map(get).unwrap_or_default()
    }

    /// Returns a file of a build from the last coordinator.
    pub(super) fn file(&self, build: u64, path: &str) -> String {
        let address = self.coordinators.last().unwrap().address;
        let url = format!("http://{address}/farm/v1/builds/{build}/{path}");
        let answer = self.client.get(url).bearer_auth(TOKEN).send().unwrap();
        answer.error_for_status().unwrap().text().unwrap()
    }

    pub(super) fn wait_for_outcome(&self, build: u64, outcome: &str) {
        wait_until(
            &format!("build {build} of the farm ends as {outcome}"),
            || self.state(build)["outcome"] == outcome,
        );
    }

    /// Returns the number of times that a finished build was lost.
    pub(super) fn losses(&self, build: u64) -> i64 {
        let mut client = postgres::Client::connect(&self.cluster.url(), postgres::NoTls).unwrap();
        let query = format!("SELECT losses::bigint FROM finished WHERE id = {build}");
        client.query_one(&query, &[]).unwrap().get(0)
    }

    pub(super) fn kill_coordinator(&mut self, index: usize) {
        drop(self.coordinators.remove(index));
    }

    pub(super) fn restart_database(&mut self) {
        self.cluster.restart();
    }

    fn post(&self, path: &str, body: &Value) -> Option<Value> {
        let post = |it: &Coordinator| {
            let url = format!("http://{}/farm/v1/{path}", it.address);
            let request = self.client.post(url).bearer_auth(TOKEN).json(body);
            let answer = request.send().ok()?.error_for_status().ok()?;
            Some(answer.json().unwrap_or_default())
        };
        self.coordinators.iter().find_map(post)
    }
}

/// Starts a host whose machine `demo` is a container, and enrols it.
pub(super) fn host(farm: &Farm, name: &str) -> AgentHost {
    let mut host = AgentHost::new(&farm.settings());
    host.add_container("demo", |_| {});
    host.add_toolchain("1");
    host.start();
    farm.enrol(&host, name);
    host
}
