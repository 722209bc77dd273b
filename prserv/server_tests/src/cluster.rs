//! A PostgreSQL server. Needs Debian's `postgresql`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use crate::wait_until;

/// A PostgreSQL server on a Unix socket, ended on drop.
#[derive(Debug)]
pub struct Cluster {
    server: Child,
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Starts a server with an empty database.
    pub fn start() -> Self {
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
        let server = serve(&programs, directory.path());
        let cluster = Self { server, directory };
        cluster.wait();
        cluster
    }

    /// Ends the server at once, as a crash does, and starts it again.
    pub fn restart(&mut self) {
        self.end();
        let programs = programs().unwrap();
        self.server = serve(&programs, self.directory.path());
        self.wait();
    }

    fn wait(&self) {
        let url = self.url();
        wait_until("PostgreSQL answers", || {
            postgres::Client::connect(&url, postgres::NoTls).is_ok()
        });
    }

    fn end(&mut self) {
        if let Ok(id) = i32::try_from(self.server.id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGQUIT);
        }
        let _ = self.server.wait();
    }

    /// Returns the URL of the database.
    pub fn url(&self) -> String {
        let directory = self.directory.path().display();
        format!("postgres://postgres@/postgres?host={directory}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the server on the data in a directory.
fn serve(programs: &Path, directory: &Path) -> Child {
    as_postgres(&programs.join("postgres"))
        .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
        .arg(directory)
        .arg("-D")
        .arg(directory.join("data"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
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
