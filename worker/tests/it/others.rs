//! Files go to and come from the servers of others. `scripts/test` unpacks them
//! and names the place in `BUILDHOST_TEST_SERVERS`.

use std::fs;
use std::io::Cursor;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::line::{self, Faults};
use crate::transfers::{client, content};

/// A server of others that is ended with the test.
struct Server {
    process: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The place of the servers. Without them a test on a developer's machine is
/// skipped loudly; where `CI=true` that is a failure.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn servers() -> Option<PathBuf> {
    let place = std::env::var_os("BUILDHOST_TEST_SERVERS").map(PathBuf::from);
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(place.is_some() || !ci, "scripts/test unpacks servers");
    if place.is_none() {
        eprintln!("SKIPPED: no servers of others are here; run scripts/test");
    }
    place
}

#[expect(clippy::disallowed_methods, reason = "a test has no other door")]
fn start(servers: &Path, program: &str, arguments: impl Fn(u16, &str) -> Vec<String>) -> Server {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let library = |package: &str| servers.join(package).join("usr/lib/x86_64-linux-gnu");
    let libraries = [library("libwrap0"), library("libpcre2-8-0")];
    let process = Command::new(servers.join(program))
        .args(arguments(port, directory.path().to_str().unwrap()))
        .env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Server {
        process,
        port,
        directory,
    }
}

fn go_both_ways(server: &Server) {
    let faults = Faults {
        lost: 1,
        doubled: 0,
    };
    let far = ([127, 0, 0, 1], server.port).into();
    let client = client(line::lay(far, faults));
    for size in [0, 1427, 1428, 100_000] {
        let content = content(size);
        let name = format!("file-{size}");
        client
            .put(&name, &mut Cursor::new(&content), size as u64)
            .unwrap();
        // The server closes the file after its last word to us.
        let there = server.directory.path().join(&name);
        let mut tries = 0;
        while fs::read(&there).unwrap() != content {
            tries += 1;
            assert!(tries < 1_000_000, "{name} went otherwise");
            std::thread::yield_now();
        }
        let mut got = Vec::new();
        client.get(&name, &mut got).unwrap();
        assert!(got == content, "{name} came otherwise");
    }
}

#[test]
fn tftpd_hpa_understands_us() {
    let Some(servers) = servers() else { return };
    let server = start(
        &servers,
        "tftpd-hpa/usr/sbin/in.tftpd",
        |port, directory| {
            let address = format!("127.0.0.1:{port}");
            let words = ["-L", "-c", "-p", "-s", directory, "-a", &address];
            words.map(str::to_owned).into()
        },
    );
    go_both_ways(&server);
}

#[test]
fn atftpd_understands_us() {
    let Some(servers) = servers() else { return };
    let server = start(&servers, "atftpd/usr/sbin/atftpd", |port, directory| {
        let port = port.to_string();
        let words = [
            "--daemon",
            "--no-fork",
            "--logfile",
            "-",
            "--bind-address",
            "127.0.0.1",
            "--port",
            &port,
            directory,
        ];
        words.map(str::to_owned).into()
    });
    go_both_ways(&server);
}
