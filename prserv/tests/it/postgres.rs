//! A PostgreSQL database that servers share. Needs Debian's `postgresql`; never skipped silently.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs, thread};

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};

use super::crash::hammer;
use super::harness::{Server, prserv, wait_until};

/// A database server of our own, on a unix socket; it ends with this.
struct Cluster {
    server: Child,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts one, or says why there is none.
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(env::var_os("CI").is_none(), "PostgreSQL is not installed");
            eprintln!("SKIPPED: PostgreSQL is not installed (apt-get install postgresql)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            let user = User::from_name("postgres").unwrap().unwrap();
            chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let data = dir.path().join("data");
        let made = run_as_postgres(&programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--no-sync", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
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
            prserv::store::Postgres::open(&url, prserv::store::Mode::Write).is_ok()
        });
        Some(cluster)
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

/// Where Debian keeps the newest version's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let newest = versions.map(|version| version.path().join("bin")).max()?;
    newest.join("initdb").exists().then_some(newest)
}

/// PostgreSQL refuses to run as root.
#[expect(
    clippy::disallowed_methods,
    reason = "tests start the server that they need"
)]
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
fn two_servers_on_one_database_are_as_right_as_one_also_when_one_is_killed() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
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
            thread::spawn(move || hammer(client, number))
        })
        .collect();
    let mut watch = other.client();
    wait_until("much has been given", || watch.rows().len() > 200);
    killed.signal(Signal::SIGKILL);
    killed.wait();
    let before = watch.rows().len();
    wait_until("the other one goes on", || {
        watch.rows().len() > before + 100
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
fn what_one_server_gives_another_one_knows_at_once() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
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
fn what_the_database_refuses_for_one_client_stops_no_other() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let server = Server::start(cluster.url());
    let others: Vec<_> = (0..4)
        .map(|number| {
            let client = server.client();
            thread::spawn(move || hammer(client, number).len())
        })
        .collect();
    // Longer than what an index entry of PostgreSQL holds, and not to be compressed.
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
fn the_tools_work_on_it_too() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
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
