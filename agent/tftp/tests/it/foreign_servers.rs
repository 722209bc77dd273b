//! Transfers with foreign servers. `scripts/test` unpacks them and names their directory in
//! `BUILDHOST_TEST_SERVERS`.

use std::fs;
use std::io::Cursor;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::lossy_link::{self, Faults};
use crate::transfers::{client, content};

/// A foreign server that is killed with the test.
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

fn servers() -> PathBuf {
    let directory = std::env::var_os("BUILDHOST_TEST_SERVERS");
    PathBuf::from(directory.unwrap_or_else(|| panic!("no foreign servers; run scripts/test")))
}

#[expect(clippy::disallowed_methods, reason = "a test has no other way")]
fn start(program: &str, arguments: impl Fn(u16, &str) -> Vec<String>) -> Server {
    let servers = servers();
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

fn put_and_get(server: &Server) {
    let faults = Faults {
        lost: 1,
        duplicated: 0,
    };
    let far = ([127, 0, 0, 1], server.port).into();
    let client = client(lossy_link::open(far, faults));
    for size in [0, 1427, 1428, 100_000] {
        let content = content(size);
        let name = format!("file-{size}");
        client
            .put(&name, &mut Cursor::new(&content), size as u64)
            .unwrap();
        // The server closes the file after its last acknowledgement.
        let path = server.directory.path().join(&name);
        let mut tries = 0;
        while fs::read(&path).unwrap() != content {
            tries += 1;
            assert!(tries < 1_000_000, "{name} differs on the server");
            std::thread::yield_now();
        }
        let mut got = Vec::new();
        client.get(&name, &mut got).unwrap();
        assert!(got == content, "{name} differs");
    }
}

#[test]
#[ignore = "needs foreign servers, which scripts/test unpacks"]
fn tftpd_hpa_serves_the_client() {
    let server = start("tftpd-hpa/usr/sbin/in.tftpd", |port, directory| {
        let address = format!("127.0.0.1:{port}");
        let arguments = ["-L", "-c", "-p", "-s", directory, "-a", &address];
        arguments.map(str::to_owned).into()
    });
    put_and_get(&server);
}

#[test]
#[ignore = "needs foreign servers, which scripts/test unpacks"]
fn atftpd_serves_the_client() {
    let server = start("atftpd/usr/sbin/atftpd", |port, directory| {
        let port = port.to_string();
        let arguments = [
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
        arguments.map(str::to_owned).into()
    });
    put_and_get(&server);
}
