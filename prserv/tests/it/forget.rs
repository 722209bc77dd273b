//! `prserv forget`: on a database, and through a running server.

use std::path::Path;
use std::process::Output;

use serde_json::json;

use super::harness::{Server, prserv};

fn forget(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = prserv();
    command.current_dir(dir).arg("forget").args(arguments);
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Starts a server with three values of a package, the greatest by mistake, and one of another.
fn start(dir: &Path, arguments: &[&str]) -> Server {
    let server = Server::start_with(dir.join("prserv.sqlite3"), arguments);
    let mut client = server.client();
    for checksum in ["a", "b"] {
        client.get("v", checksum).unwrap();
    }
    client.get("other", "a").unwrap();
    let import = json!({"import-one": {"version": "v", "pkgarch": "all", "checksum": "x", "value": 999_999}});
    client.request(&import).unwrap();
    server
}

#[test]
fn rows_of_a_closed_database_are_removed_after_a_dry_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(dir.path(), &[]);
    let package = ["v", "all", "--above", "1"];
    let remove = [&package[..], &["--greatest", "999999"]].concat();
    let refused = forget(dir.path(), &remove);
    assert_eq!(refused.status.code(), Some(3), "the server has the file");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait();
    let planned = forget(dir.path(), &[&package[..], &["--dry-run"]].concat());
    assert_eq!(
        out(&planned),
        "would remove 999999: v for all with checksum x\n\
         the next value is 2; feeds may have packages up to 999999, which installed systems \
         prefer until they are removed\n\
         to remove the rows, repeat with --greatest 999999\n"
    );
    assert_eq!(forget(dir.path(), &package).status.code(), Some(2));
    let other = forget(dir.path(), &["v", "all", "--greatest", "1"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(error(&other).contains("is 999999, not 1; nothing was removed"));
    let removed = forget(dir.path(), &remove);
    assert_eq!(out(&removed), "removed 999999: v for all with checksum x\n");
    assert!(error(&forget(dir.path(), &remove)).contains("v for all has no such rows"));
    let missing = forget(
        dir.path(),
        &["v", "all", "--greatest", "1", "--db", "missing"],
    );
    assert_eq!(missing.status.code(), Some(3));
    assert!(!dir.path().join("missing").exists());
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    assert_eq!(server.client().get("v", "x").unwrap(), "2");
    assert_eq!(server.client().get("other", "a").unwrap(), "0");
}

#[test]
fn a_running_server_removes_rows_for_a_client_with_a_token_only() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        sys::file::replace(&dir.path().join(name), text.as_bytes()).unwrap();
    };
    write("tokens", "ci secret\n");
    write("token", "secret\n");
    write("wrong", "other\n");
    let (tokens, log) = (dir.path().join("tokens"), dir.path().join("audit.jsonl"));
    let arguments = [
        "--token-file",
        tokens.to_str().unwrap(),
        "--audit-log",
        log.to_str().unwrap(),
    ];
    let server = start(dir.path(), &arguments);
    let address = server.address.to_string();
    let at_server = ["v", "all", "--server", &address];
    let ask = |more: &[&str]| forget(dir.path(), &[&at_server[..], more].concat());
    let planned = ask(&["--dry-run"]);
    assert_eq!(out(&planned).matches("would remove").count(), 3);
    let refused = ask(&["--greatest", "999999"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        error(&refused).contains("present a token"),
        "{}",
        error(&refused)
    );
    let refused = ask(&["--greatest", "999999", "--token-file", "wrong"]);
    assert!(
        error(&refused).contains("the token is unknown"),
        "{}",
        error(&refused)
    );
    let refused = ask(&["--greatest", "7", "--token-file", "token"]);
    assert!(
        error(&refused).contains("is 999999, not 7"),
        "{}",
        error(&refused)
    );
    assert_eq!(server.client().rows().len(), 4);
    let removed = ask(&["--greatest", "999999", "--token-file", "token"]);
    assert_eq!(out(&removed).lines().count(), 3, "{}", error(&removed));
    assert_eq!(server.client().get("v", "b").unwrap(), "0");
    assert_eq!(server.client().get("other", "a").unwrap(), "0");
    let log = std::fs::read_to_string(log).unwrap();
    let forgotten = log.lines().filter(|line| line.contains("forgotten"));
    assert_eq!(
        forgotten
            .filter(|line| line.contains(r#""token":"ci""#))
            .count(),
        3
    );
}

#[test]
fn nothing_is_removed_in_lockdown() {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), &[]));
    sys::file::replace(&dir.path().join("token"), b"secret\n").unwrap();
    let token = dir.path().join("token");
    let arguments = ["--lockdown", "--token-file", token.to_str().unwrap()];
    let server = Server::start_with(dir.path().join("prserv.sqlite3"), &arguments);
    let address = server.address.to_string();
    let refused = forget(
        dir.path(),
        &[
            "v",
            "all",
            "--server",
            &address,
            "--token-file",
            "token",
            "--greatest",
            "999999",
        ],
    );
    assert!(
        error(&refused).contains("may not remove rows"),
        "{}",
        error(&refused)
    );
    assert_eq!(server.client().rows().len(), 4);
}
