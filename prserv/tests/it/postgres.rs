//! A PostgreSQL database that several servers share. Needs Debian's `postgresql`.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use super::crash::request_until_disconnected;
use super::harness::{Server, prserv, wait_until};

/// A PostgreSQL server on a Unix socket, ended on drop.
struct Cluster {
    server: Child,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts a server with an empty database.
    fn start() -> Self {
        let Some(programs) = programs() else {
            panic!("PostgreSQL is missing; `scripts/setup test` installs it");
        };
        let dir = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            let user = User::from_name("postgres").unwrap().unwrap();
            chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let data = dir.path().join("data");
        let initialized = run_as_postgres(&programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--no-sync", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(initialized.success());
        let server = run_as_postgres(&programs.join("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(dir.path())
            .arg("-D")
            .arg(&data)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let cluster = Self { server, dir };
        let url = cluster.url();
        wait_until("PostgreSQL answers", || {
            prserv::store::Postgres::open(&url, prserv::store::OpenMode::Write).is_ok()
        });
        cluster
    }

    fn url(&self) -> String {
        format!(
            "postgres://postgres@/postgres?host={}",
            self.dir.path().display()
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let id = i32::try_from(self.server.id()).unwrap();
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), Signal::SIGQUIT);
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
fn run_as_postgres(program: &Path) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

#[test]
#[ignore = "needs PostgreSQL"]
fn two_servers_on_one_database_stay_consistent_when_one_is_killed() {
    let cluster = Cluster::start();
    let url = cluster.url();
    let mut killed = Server::start(&url);
    let mut other = Server::start(&url);
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let client = if number % 2 == 0 {
                killed.client()
            } else {
                other.client()
            };
            thread::spawn(move || request_until_disconnected(client, number))
        })
        .collect();
    let mut observer = other.client();
    wait_until("many values are assigned", || observer.rows().len() > 200);
    killed.signal(Signal::SIGKILL);
    killed.wait();
    let before = observer.rows().len();
    wait_until("the other server continues", || {
        observer.rows().len() > before + 100
    });
    other.signal(Signal::SIGTERM);
    assert!(other.wait().success());
    let answered: HashSet<_> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .collect();
    let rows = Server::start(&url).client().rows();
    let stored: HashSet<_> = rows.iter().cloned().collect();
    assert!(answered.is_subset(&stored), "an answered value is lost");
    let mut owners = HashMap::new();
    for [version, checksum, value] in rows {
        let owner = owners.entry((version, value)).or_insert(checksum.clone());
        assert_eq!(*owner, checksum, "one value for two checksums");
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_value_assigned_by_one_server_is_visible_to_others_immediately() {
    let cluster = Cluster::start();
    let url = cluster.url();
    let servers = [Server::start(&url), Server::start(&url)];
    let mut clients = servers.each_ref().map(Server::client);
    let reader = Server::start_with(&url, &["--read-only"]);
    for round in 0..20_u32 {
        let [one, two] = &mut clients;
        assert_eq!(one.get("v", "a").unwrap(), (2 * round).to_string());
        assert_eq!(two.get("v", "b").unwrap(), (2 * round + 1).to_string());
        assert_eq!(
            reader.client().get("v", "b").unwrap(),
            (2 * round + 1).to_string()
        );
    }
    assert_eq!(reader.client().rows().len(), 40);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_query_that_the_database_rejects_fails_no_other() {
    let cluster = Cluster::start();
    let server = Server::start(cluster.url());
    let others: Vec<_> = (0..4)
        .map(|number| {
            let client = server.client();
            thread::spawn(move || request_until_disconnected(client, number).len())
        })
        .collect();
    // Longer than an index entry of PostgreSQL may be, and not compressible.
    let long: Vec<_> = (0..3000_u32)
        .map(|number| format!("{:x}", number.wrapping_mul(2_654_435_761)))
        .collect();
    let long = long.concat();
    for _ in 0..10 {
        assert!(server.client().get(&long, "c").is_err());
    }
    assert_eq!(server.client().get("fine", "c").unwrap(), "0");
    drop(server);
    for other in others {
        assert!(other.join().unwrap() > 0);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_commands_work_on_postgresql() {
    let cluster = Cluster::start();
    let url = cluster.url();
    assert_eq!(Server::start(&url).client().get("v", "a").unwrap(), "0");
    let output = prserv().args(["list", "--db", &url]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        table,
        "VERSION  PKGARCH  VALUE  ROWS\nv        all      0      1\n"
    );
    let output = prserv()
        .args(["list", "--db", "postgres://nobody@/none?host=/nowhere"])
        .output();
    assert_eq!(output.unwrap().status.code(), Some(1));
}
