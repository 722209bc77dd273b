//! The command line of `bitbake-prserv` and socket activation.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::harness::{Client, prserv, wait_until};

#[expect(
    clippy::disallowed_methods,
    reason = "the tests start the program by another name"
)]
fn bitbake_prserv(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prserv"));
    command
        .arg0("bitbake-prserv")
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn the_command_line_of_bitbake_prserv_is_supported() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let at = ["--host", "localhost", "--port", &port.to_string()];
    let run = |arguments: &[&str]| bitbake_prserv(dir.path(), &[arguments, &at].concat());
    let pid_file = format!("/tmp/PRServer_127.0.0.1_{port}.pid");

    let stopped = run(&["--stop"]);
    assert_eq!(stopped.status.code(), Some(1));
    let error = String::from_utf8(stopped.stderr).unwrap();
    assert!(
        error.contains(&format!(
            "pidfile {pid_file} does not exist. Daemon not running?"
        )),
        "{error}"
    );

    assert!(
        run(&["--start", "--file", "a.sqlite3", "--log", "a.log"])
            .status
            .success()
    );
    let address = ([127, 0, 0, 1], port).into();
    assert_eq!(
        Client::connect(address).unwrap().get("v", "a").unwrap(),
        "0"
    );
    assert!(Path::new(&pid_file).exists());
    let again = run(&["--start", "--file", "b.sqlite3"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        String::from_utf8(again.stderr)
            .unwrap()
            .contains("already exist. Daemon already running?")
    );

    let stopped = run(&["--stop"]);
    assert!(stopped.status.success());
    assert_eq!(stopped.stdout, b"Sending SIGTERM to pr-server.\n");
    assert!(!Path::new(&pid_file).exists());
    assert!(
        std::fs::read_to_string(dir.path().join("a.log"))
            .unwrap()
            .contains("listening")
    );

    let failed = run(&["--start", "--read-only", "--file", "missing.sqlite3"]);
    assert_eq!(
        failed.status.code(),
        Some(1),
        "the failure of the server is reported"
    );
    assert!(!Path::new(&pid_file).exists());
    assert!(bitbake_prserv(dir.path(), &[]).status.success());
    assert!(
        prserv()
            .args(["--start", "--port", "x"])
            .output()
            .unwrap()
            .status
            .code()
            == Some(2)
    );
}

#[test]
fn an_ipv6_address_is_started_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    for host in ["::1", "[::1]"] {
        let at = ["--host", host, "--port", &port.to_string()];
        let run = |arguments: &[&str]| bitbake_prserv(dir.path(), &[arguments, &at].concat());
        let started = run(&["--start", "--file", "a.sqlite3", "--log", "a.log"]);
        assert!(started.status.success(), "{started:?}");
        let address = (std::net::Ipv6Addr::LOCALHOST, port).into();
        let mut client = Client::connect(address).unwrap();
        assert_eq!(client.get("v", "a").unwrap(), "0");
        let pid_file = format!("/tmp/PRServer_::1_{port}.pid");
        assert!(Path::new(&pid_file).exists());
        assert!(run(&["--stop"]).status.success());
        assert!(!Path::new(&pid_file).exists());
    }
}

/// Runs a script in a mount namespace with another `/etc/hosts`.
#[expect(clippy::disallowed_methods, reason = "a shell mounts the file")]
fn with_hosts(dir: &Path, hosts: &str, script: &str) -> Output {
    let file = dir.join("hosts");
    sys::file::replace(&file, hosts.as_bytes()).unwrap();
    let script = format!("mount --bind hosts /etc/hosts; {script}");
    Command::new("unshare")
        .args(["--mount", "sh", "-euc", &script, "sh"])
        .arg(env!("CARGO_BIN_EXE_prserv"))
        .current_dir(dir)
        .output()
        .unwrap()
}

/// BitBake's server listens on the IPv4 address of a name, and its clients connect to that.
#[test]
#[ignore = "needs root"]
fn a_name_is_listened_on_at_all_of_its_addresses() {
    assert!(nix::unistd::geteuid().is_root(), "needs root");
    let dir = tempfile::tempdir().unwrap();
    let hosts = "::1 localhost\n127.0.0.1 localhost\n127.0.0.2 localhost\n";
    let serve = "timeout 1 \"$1\" serve --listen localhost:0 2>&1 || true";
    let output = with_hosts(dir.path(), hosts, serve);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let addresses: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split("listening address=").nth(1))
        .filter_map(|rest| rest.split(' ').next())
        .collect();
    let ports: Vec<&str> = addresses
        .iter()
        .filter_map(|address| address.rsplit(':').next())
        .collect();
    for ip in ["[::1]:", "127.0.0.1:", "127.0.0.2:"] {
        assert!(
            addresses.iter().any(|address| address.starts_with(ip)),
            "{text}"
        );
    }
    assert!(ports.iter().all(|port| *port == ports[0]), "{text}");
}

#[test]
fn a_port_without_a_colon_is_refused_with_the_remedy() {
    let output = prserv()
        .args(["serve", "--listen", "8585"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains(":8585 stands for all addresses of this host"),
        "{error}"
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a shell acts as systemd")]
fn a_socket_passed_by_systemd_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --db \"$1\"";
    let mut server = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_prserv")])
        .arg(dir.path().join("prserv.sqlite3"))
        .stdin(OwnedFd::from(listener))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut client = Client::connect(address).unwrap();
    assert_eq!(client.get("v", "a").unwrap(), "0");
    server.kill().unwrap();
    wait_until("the server ends", || server.try_wait().unwrap().is_some());
}
