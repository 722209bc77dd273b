//! Files on media and in directories in which nothing can be created.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use nix::unistd::{User, geteuid};

use super::harness::Server;

/// A closed database in a directory, readable by everyone.
fn closed_database(dir: &Path) {
    let mut server = Server::start(dir.join("prserv.sqlite3"));
    for number in 0..3 {
        server.client().get("v", &number.to_string()).unwrap();
    }
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait();
    assert!(!dir.join("prserv.sqlite3-wal").exists());
    for file in fs::read_dir(dir).unwrap() {
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(file.unwrap().path(), mode).unwrap();
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a shell script in a mount namespace, where `$1` is mounted read-only, with the program as
/// `$2`.
#[expect(clippy::disallowed_methods, reason = "a shell mounts the directory")]
fn on_read_only_mount(dir: &Path, script: &str) -> Output {
    let mount = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && cd \"$1\" && ";
    Command::new("unshare")
        .args(["--mount", "sh", "-euc", &format!("{mount}{script}"), "sh"])
        .args([dir.as_os_str(), env!("CARGO_BIN_EXE_prserv").as_ref()])
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[&out[..], &error[..]].concat()).into_owned()
}

#[test]
#[ignore = "needs root"]
fn a_closed_database_on_a_read_only_mount_can_be_read_checked_copied_and_served() {
    assert!(geteuid().is_root(), "needs root");
    let dir = tempfile::tempdir().unwrap();
    closed_database(dir.path());
    let script = "\"$2\" list; \"$2\" check; \"$2\" backup \"$TMPDIR/copy.sqlite3\"";
    let copy = tempfile::tempdir().unwrap();
    let script = script.replace("$TMPDIR", copy.path().to_str().unwrap());
    let output = on_read_only_mount(dir.path(), &script);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("v        all      2      3"),
        "{}",
        text(&output)
    );
    let copy = Server::start(copy.path().join("copy.sqlite3"));
    assert_eq!(copy.client().rows().len(), 3);
    let serve = "timeout 1 \"$2\" serve --read-only --listen 127.0.0.1:0 || true";
    let output = on_read_only_mount(dir.path(), serve);
    assert!(text(&output).contains("listening"), "{}", text(&output));
}

#[test]
#[ignore = "needs root"]
fn a_log_that_cannot_be_read_on_a_read_only_mount_is_named_with_the_remedy() {
    assert!(geteuid().is_root(), "needs root");
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    server.client().get("v", "a").unwrap();
    for name in ["prserv.sqlite3", "prserv.sqlite3-wal", "prserv.sqlite3-shm"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let output = on_read_only_mount(copy.path(), "\"$2\" list");
    assert!(
        text(&output).contains("v        all      0      1"),
        "{}",
        text(&output)
    );
    fs::remove_file(copy.path().join("prserv.sqlite3-shm")).unwrap();
    let output = on_read_only_mount(copy.path(), "\"$2\" list");
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output);
    assert!(error.contains("cannot read prserv.sqlite3-wal"), "{error}");
    assert!(
        error.contains("copy it with prserv.sqlite3 to another directory"),
        "{error}"
    );
}

#[test]
#[ignore = "needs root"]
fn another_user_reads_a_closed_database_and_what_is_written_to_it_later() {
    assert!(geteuid().is_root(), "needs root");
    let dir = tempfile::tempdir().unwrap();
    closed_database(dir.path());
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let program = dir.path().join("program");
    fs::copy(env!("CARGO_BIN_EXE_prserv"), &program).unwrap();
    let list = || {
        #[expect(clippy::disallowed_methods, reason = "tests start the program itself")]
        let mut command = Command::new(&program);
        std::os::unix::process::CommandExt::uid(&mut command, nobody.uid.as_raw());
        command
            .current_dir(dir.path())
            .arg("list")
            .output()
            .unwrap()
    };
    assert!(
        text(&list()).contains("all      2      3"),
        "{}",
        text(&list())
    );
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    server.client().get("v", "new").unwrap();
    for name in ["prserv.sqlite3-wal", "prserv.sqlite3-shm"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert!(
        text(&list()).contains("all      3      4"),
        "{}",
        text(&list())
    );
}
