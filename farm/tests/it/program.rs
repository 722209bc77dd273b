//! The program: its exit status and its signals.

use std::path::Path;
use std::process::{Command, Output};

use axum::http::Method;
use nix::sys::signal::Signal;
use server_tests::{Cluster, RunningProgram, command};
use tokio::task::block_in_place;

use super::object_store::ObjectStore;

/// Returns the command for the program without settings of this host.
pub(super) fn program() -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_buildhost-farm"));
    command.env_remove("BUILDHOST_FARM_DB");
    command.env_remove("AWS_ACCESS_KEY_ID");
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
fn a_directory_of_sources_is_examined_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "file", "");
    let check = |sources: &Path, mib_max: u64| {
        let settings = format!(
            "database = \"postgres://farm@db/farm\"\n[sources]\ndirectory = \"{}\"\nmib_max = {mib_max}\n",
            sources.display()
        );
        let config = write(directory.path(), "farm.toml", &settings);
        let output = program().arg("--config").arg(&config).arg("check").output();
        let Output { status, stderr, .. } = output.unwrap();
        (status.code(), text(&stderr))
    };
    let sources = directory.path().join("sources");
    assert_eq!(check(&sources, 1), (Some(0), String::new()));
    assert!(!sources.exists());
    std::fs::create_dir(&sources).unwrap();
    assert_eq!(check(&sources, 1), (Some(0), String::new()));
    assert_eq!(std::fs::read_dir(&sources).unwrap().count(), 0);
    let (status, stderr) = check(&file.join("sources"), 1);
    assert_eq!(status, Some(3), "{stderr}");
    assert!(stderr.contains("cannot use the directory"), "{stderr}");
    let (status, stderr) = check(&sources, 1 << 30);
    assert_eq!(status, Some(3), "{stderr}");
    assert!(stderr.contains("is full"), "{stderr}");
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
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_puts_an_object_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut bucket = ObjectStore::start().await;
    let check = |objects: &str| {
        let text = format!("database = \"postgres://farm@db/farm\"\n{objects}");
        let config = write(directory.path(), "farm.toml", &text);
        let mut program = program();
        program.env_remove("RUST_LOG");
        program.arg("--config").arg(config).arg("check");
        let Output { status, stderr, .. } = block_in_place(|| program.output()).unwrap();
        (status.code(), self::text(&stderr))
    };
    let right = bucket.right_settings(directory.path());
    assert_eq!(check(&right), (Some(0), String::new()));
    assert!(bucket.files("").is_empty());
    assert_eq!(bucket.faults.count(&Method::PUT), 1);
    let wrong = bucket.settings(directory.path(), "another");
    let (status, message) = check(&wrong);
    assert_eq!(status, Some(3));
    assert!(
        message.contains("cannot use the object store: s3://farm/one fails for probe-"),
        "{message}"
    );
    assert!(!message.contains("another"), "{message}");
    let right = bucket.right_settings(directory.path());
    bucket.go_away().await;
    assert_eq!(check(&right).0, Some(3));
    let config = directory.path().join("farm.toml");
    let mut offline = program();
    offline
        .arg("--config")
        .arg(config)
        .args(["check", "--no-objects"]);
    assert!(block_in_place(|| offline.status()).unwrap().success());
    let (status, message) = check("[objects]\nurl = \"s3://farm\"\n");
    assert_eq!(status, Some(3));
    assert!(
        message.contains("AWS_SECRET_ACCESS_KEY in the environment"),
        "{message}"
    );
    let objects = directory.path().join("objects");
    let section = format!("[objects]\nurl = \"file://{}\"\n", objects.display());
    let (status, message) = check(&section);
    assert_eq!(status, Some(3));
    assert!(
        message.contains("create it for the user of the coordinator"),
        "{message}"
    );
    std::fs::create_dir(&objects).unwrap();
    assert_eq!(check(&section), (Some(0), String::new()));
}
