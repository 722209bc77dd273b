//! A farm of programs in a network of its own: a database, two coordinators, and three hosts, each in a
//! network namespace. Everything may be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::geteuid;
use server_tests::{Cluster, wait_until};

/// The number of hosts.
pub(crate) const HOSTS: usize = 3;
/// The number of coordinators.
pub(crate) const COORDINATORS: usize = 2;
/// The seconds of a lease.
const LEASE: &str = "4";

/// A child that is killed when it is dropped, and when the test ends.
#[derive(Debug)]
struct Killed(Child);

impl Killed {
    /// Starts a command that ends with the test. The thread of the test must be the one that calls this.
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace, which exists as long as its process.
#[derive(Debug)]
struct Namespace(Killed);

impl Namespace {
    /// Creates a namespace beside the one of the test. Users other than root get one of users as well.
    fn outer() -> Self {
        let mut command = program("unshare");
        if !geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--", "setpriv", "--pdeathsig", "KILL"]);
        command.args(["sleep", "infinity"]);
        Self::wait(command)
    }

    /// Creates a namespace that belongs to the same users as another one.
    fn inner(&self) -> Self {
        let mut command = self.command("unshare");
        command.args(["--net", "--", "setpriv", "--pdeathsig", "KILL"]);
        command.args(["sleep", "infinity"]);
        Self::wait(command)
    }

    fn wait(command: Command) -> Self {
        let child = Killed::start(command);
        let comm = format!("/proc/{}/comm", child.id());
        wait_until("the namespace exists", || {
            std::fs::read_to_string(&comm).is_ok_and(|it| it.trim() == "sleep")
        });
        Self(child)
    }

    /// Returns a command that runs a program in the namespace, and ends with the test.
    fn command(&self, name: impl AsRef<Path>) -> Command {
        let mut command = program("nsenter");
        let process = self.0.id().to_string();
        command.args(["--target", &process, "--net"]);
        if !geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--", "setpriv", "--pdeathsig", "KILL"]);
        command.arg(name.as_ref());
        command
    }

    fn ip(&self, arguments: &str) {
        let mut command = self.command("ip");
        let done = command.args(arguments.split(' ')).status().unwrap();
        assert!(done.success(), "ip {arguments}");
    }
}

/// The farm.
#[derive(Debug)]
pub(crate) struct Programs {
    coordinators: [Option<Killed>; COORDINATORS],
    hosts: [Option<Killed>; HOSTS],
    inside: Vec<Namespace>,
    outside: Namespace,
    pub(crate) cluster: Cluster,
    directory: PathBuf,
}

impl Programs {
    /// Starts everything. The directory is for the disks of the hosts.
    pub(crate) fn start(directory: &Path) -> Self {
        let cluster = Cluster::start();
        let outside = Namespace::outer();
        outside.ip("link add farm type bridge");
        outside.ip("addr add 10.99.0.1/24 dev farm");
        outside.ip("link set farm up");
        let inside: Vec<_> = (0..HOSTS)
            .map(|host| {
                let inside = outside.inner();
                let process = inside.0.id();
                outside.ip(&format!(
                    "link add host{host} type veth peer name eth0 netns {process}"
                ));
                outside.ip(&format!("link set host{host} master farm up"));
                inside.ip(&format!("addr add 10.99.0.1{host}/24 dev eth0"));
                inside.ip("link set eth0 up");
                inside
            })
            .collect();
        let mut farm = Self {
            coordinators: [const { None }; COORDINATORS],
            hosts: [const { None }; HOSTS],
            inside,
            outside,
            cluster,
            directory: directory.to_owned(),
        };
        (0..COORDINATORS).for_each(|it| farm.start_coordinator(it));
        // The first coordinator creates the tables.
        farm.wait_for("SELECT count(*) FROM hosts", |it| it == 0);
        for host in 0..HOSTS {
            let key = key(host);
            let sql = format!(
                "WITH added AS (INSERT INTO hosts (id, name, key_hash)
                    VALUES ({host} + 1, 'host{host}', sha256('{key}')) RETURNING id)
                 SELECT id FROM added"
            );
            farm.wait_for(&sql, |_| true);
        }
        (0..HOSTS).for_each(|it| farm.start_host(it));
        farm
    }

    /// Kills a coordinator, if it runs, and starts it again.
    pub(crate) fn start_coordinator(&mut self, number: usize) {
        self.coordinators[number] = None;
        let mut command = self.outside.command(env!("CARGO_BIN_EXE_buildhost-farm"));
        command
            .args([
                "--db",
                &self.cluster.url(),
                "serve",
                "--lease-seconds",
                LEASE,
            ])
            .args(["--listen", &address(number)])
            .env("RUST_LOG", "off");
        self.coordinators[number] = Some(Killed::start(command));
    }

    /// Kills a host, if it runs, and starts it again with the same disk.
    pub(crate) fn start_host(&mut self, number: usize) {
        self.hosts[number] = None;
        let mut command = self.inside[number].command(example("simulated_host"));
        command
            .args([
                "--key",
                &key(number),
                "--guests",
                "8",
                "--lease-seconds",
                LEASE,
                "--disk",
            ])
            .arg(self.directory.join(format!("host{number}")))
            .args((0..COORDINATORS).map(|it| format!("http://{}", address(it))));
        self.hosts[number] = Some(Killed::start(command));
    }

    /// Cuts a host off, or connects it again.
    pub(crate) fn set_link(&self, host: usize, state: &str) {
        self.outside.ip(&format!("link set host{host} {state}"));
    }

    /// Starts everything again that has ended by itself.
    pub(crate) fn revive(&mut self) {
        for number in 0..COORDINATORS {
            if has_ended(&mut self.coordinators[number]) {
                self.start_coordinator(number);
            }
        }
        for number in 0..HOSTS {
            assert!(!has_ended(&mut self.hosts[number]), "host {number} failed");
        }
    }

    /// Returns the number that a query returns, if the database answers.
    pub(crate) fn number(&self, query: &str) -> Option<i64> {
        let mut client = postgres::Client::connect(&self.cluster.url(), postgres::NoTls).ok()?;
        Some(client.query_one(query, &[]).ok()?.get(0))
    }

    /// Waits until a query returns a number that satisfies a condition.
    pub(crate) fn wait_for(&self, query: &str, holds: impl Fn(i64) -> bool) {
        wait_until(query, || self.number(query).is_some_and(&holds));
    }
}

fn has_ended(child: &mut Option<Killed>) -> bool {
    let child = child.as_mut();
    child.is_none_or(|it| it.0.try_wait().is_ok_and(|it| it.is_some()))
}

fn key(host: usize) -> String {
    format!("{host}").repeat(64)
}

fn address(coordinator: usize) -> String {
    format!("10.99.0.1:859{coordinator}")
}

/// Returns an example of this crate, which is built with the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.parent().and_then(Path::parent).unwrap();
    target.join("examples").join(name)
}

#[expect(clippy::disallowed_methods, reason = "the test starts programs")]
fn program(name: &str) -> Command {
    Command::new(name)
}
