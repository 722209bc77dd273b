//! A PostgreSQL database that several servers share. Needs Debian's `postgresql`.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use serde_json::json;

use super::harness::{Server, hash, wait_until};

/// A PostgreSQL server on a Unix socket, ended on drop.
struct Cluster {
    server: Child,
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Starts a server with an empty database.
    fn start() -> Self {
        let Some(programs) = programs() else {
            panic!("PostgreSQL is missing; `scripts/setup test` installs it");
        };
        let directory = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            let user = User::from_name("postgres").unwrap().unwrap();
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let data = directory.path().join("data");
        let initialized = as_postgres(&programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--no-sync", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(initialized.success());
        let server = as_postgres(&programs.join("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(directory.path())
            .arg("-D")
            .arg(&data)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let cluster = Self { server, directory };
        let url = cluster.url();
        wait_until("PostgreSQL answers", || {
            postgres::Client::connect(&url, postgres::NoTls).is_ok()
        });
        cluster
    }

    fn url(&self) -> String {
        let directory = self.directory.path().display();
        format!("postgres://postgres@/postgres?host={directory}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let id = i32::try_from(self.server.id()).unwrap();
        let _ = kill(Pid::from_raw(id), Signal::SIGQUIT);
        let _ = self.server.wait();
    }
}

/// Returns the directory of the newest version's programs on Debian.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let newest = versions.map(|version| version.path().join("bin")).max()?;
    newest.join("initdb").exists().then_some(newest)
}

/// Creates a command that runs as another user if necessary, because PostgreSQL refuses to run as
/// root.
#[expect(clippy::disallowed_methods, reason = "the tests start PostgreSQL")]
fn as_postgres(program: &Path) -> Command {
    if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

#[test]
fn everything_works_on_postgresql_too() {
    let cluster = Cluster::start();
    let server = Server::start(cluster.url());
    let mut client = server.client();
    for number in 0..20 {
        client.report(number, number % 4).unwrap();
    }
    for number in 0..20 {
        assert_eq!(client.get(number).unwrap(), Some(hash(number % 4)));
    }
    let all = json!({"get": {"method": "m", "taskhash": hash(5), "all": true}});
    let report = client.request(&all).unwrap();
    assert_eq!(report["outhash"], hash(1));
    assert!(
        report["created"].as_str().unwrap().contains('T'),
        "{report}"
    );
    let mark = json!({"gc-mark": {"mark": "A", "where": {"unihash": hash(1), "method": "m"}}});
    assert_eq!(client.request(&mark).unwrap(), json!({"count": 5}));
    let status = client.request(&json!({"gc-status": {}})).unwrap();
    assert_eq!(status, json!({"keep": 5, "remove": 15, "mark": "A"}));
    let sweep = json!({"gc-sweep": {"mark": "A"}});
    assert_eq!(client.request(&sweep).unwrap(), json!({"count": 15}));
    assert_eq!(client.get(2).unwrap(), None);
    let clean = |age: u64| json!({"clean-unused": {"max_age_seconds": age}});
    assert_eq!(client.request(&clean(3600)).unwrap(), json!({"count": 0}));
    assert_eq!(client.request(&clean(0)).unwrap(), json!({"count": 15}));
    let columns = client
        .request(&json!({"get-db-query-columns": {}}))
        .unwrap();
    for column in columns["columns"].as_array().unwrap() {
        let name = column.as_str().unwrap();
        let remove = json!({"remove": {"where": {name: "nothing"}}});
        assert_eq!(
            client.request(&remove).unwrap(),
            json!({"count": 0}),
            "{name}"
        );
    }
    let usage = client.request(&json!({"get-db-usage": {}})).unwrap();
    assert_eq!(usage["usage"]["unihashes_v3"]["rows"], 5);
    drop(server);
    let again = Server::start_with(cluster.url(), &["--keep-days", "1"]);
    assert_eq!(again.client().get(1).unwrap(), Some(hash(1)));
}

#[test]
fn servers_that_share_a_database_miss_no_equivalence() {
    let cluster = Cluster::start();
    let servers = [Server::start(cluster.url()), Server::start(cluster.url())];
    let answers: Vec<Vec<String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let server = &servers[usize::try_from(worker % 2).unwrap()];
                scope.spawn(move || {
                    let mut client = server.client();
                    let report = |number| client.report(worker * 1000 + number, number).unwrap();
                    (0..50).map(report).collect()
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    for others in &answers[1..] {
        assert_eq!(others, &answers[0]);
    }
}
