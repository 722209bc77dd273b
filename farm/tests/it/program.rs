//! The program: its exit status and its signals.

use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use server_tests::{Cluster, RunningProgram, command};

/// Returns the command for the program without settings of this host.
pub(super) fn program() -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_buildhost-farm"));
    command.env_remove("BUILDHOST_FARM_DB");
    command
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn write(directory: &Path, name: &str, content: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    sys::file::replace(&path, content.as_bytes()).unwrap();
    path
}

#[test]
fn a_start_without_a_database_is_refused_with_the_steps() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "farm.toml", "");
    let output = program().arg("--config").arg(config).arg("serve").output();
    let Output { status, stderr, .. } = output.unwrap();
    assert_eq!(status.code(), Some(3));
    assert!(
        text(&stderr).contains("1. `createdb farm`"),
        "{}",
        text(&stderr)
    );
}

#[test]
fn faulty_settings_are_refused_with_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "farm.toml", "\nlisen = \"a\"\n");
    let output = program().arg("--config").arg(&config).arg("check").output();
    let Output { status, stderr, .. } = output.unwrap();
    assert_eq!(status.code(), Some(2));
    let stderr = text(&stderr);
    let place = config.display().to_string();
    assert!(
        stderr.contains(&place) && stderr.contains("line 2"),
        "{stderr}"
    );
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_reload_reads_the_token_again_unless_it_cannot_be_used() {
    let cluster = Cluster::start();
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = ("1".repeat(40), "2".repeat(40));
    let token = write(directory.path(), "clients", &first);
    let mut serve = program();
    serve.args(["--db", &cluster.url(), "serve", "--listen", "127.0.0.1:0"]);
    serve.arg("--client-token").arg(&token);
    let mut server = RunningProgram::launch(serve);
    let http = reqwest::blocking::Client::new();
    let base = format!("http://{}/farm/v1", server.address);
    let hosts = |token: &str| {
        let answer = http.get(format!("{base}/hosts")).bearer_auth(token).send();
        answer.unwrap().status().as_u16()
    };
    assert_eq!((hosts(&first), hosts(&second)), (200, 403));
    write(directory.path(), "clients", &second);
    server.signal(Signal::SIGHUP);
    server.wait_for_log("read the token of clients again");
    assert_eq!((hosts(&first), hosts(&second)), (403, 200));
    write(directory.path(), "clients", "short");
    server.signal(Signal::SIGHUP);
    server.wait_for_log("the token of clients stays as it was");
    assert_eq!(hosts(&second), 200);

    server.signal(Signal::SIGTERM);
    assert!(server.wait().success(), "{}", server.log());
}
