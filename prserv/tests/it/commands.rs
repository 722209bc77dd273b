//! The commands export, import, migrate-localcount, sync, list, show and backup.

use std::path::Path;

use super::harness::{Server, prserv};

struct Finished {
    status: Option<i32>,
    out: String,
    error: String,
}

fn run(dir: &Path, arguments: &[&str]) -> Finished {
    let output = prserv().current_dir(dir).args(arguments).output().unwrap();
    Finished {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run_successfully(dir: &Path, arguments: &[&str]) -> String {
    let finished = run(dir, arguments);
    assert_eq!(
        finished.status,
        Some(0),
        "{arguments:?}: {}",
        finished.error
    );
    finished.out
}

/// Starts a server whose database has twelve checksums of one package and one of another.
fn start_filled(dir: &Path) -> Server {
    let server = Server::start(dir.join("prserv.sqlite3"));
    let mut client = server.client();
    for number in 0..12 {
        client.get("v-1.0-r0", &format!("c{number}")).unwrap();
    }
    client.get("w-2.0-r0", "c0").unwrap();
    server
}

#[test]
fn an_exported_and_imported_package_continues_with_the_same_value() {
    let dir = tempfile::tempdir().unwrap();
    let _server = start_filled(dir.path());
    run_successfully(dir.path(), &["export", "all.inc"]);
    let text = std::fs::read_to_string(dir.path().join("all.inc")).unwrap();
    assert!(text.starts_with("PRAUTO$v-1.0-r0$all$c11 = \"11\"\nPRAUTO_v-1.0-r0_all = \"11\"\n"));
    assert!(text.ends_with("\nPRSERV_LOCKDOWN = \"1\"\n\n"));
    run_successfully(dir.path(), &["import", "--db", "other.sqlite3", "all.inc"]);
    let other = Server::start(dir.path().join("other.sqlite3"));
    assert_eq!(other.client().get("v-1.0-r0", "c11").unwrap(), "11");
    assert_eq!(other.client().get("v-1.0-r0", "new").unwrap(), "12");
    let third = Server::start(dir.path().join("third.sqlite3"));
    let address = third.address.to_string();
    run_successfully(dir.path(), &["import", "--server", &address, "all.inc"]);
    assert_eq!(third.client().get("v-1.0-r0", "new").unwrap(), "12");
    assert_eq!(
        run_successfully(
            dir.path(),
            &["export", "--server", &address, "--history", "-"]
        )
        .matches("PRAUTO$")
        .count(),
        3
    );
}

#[test]
fn a_file_with_another_extension_or_a_malformed_line_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let finished = run(dir.path(), &["export", "all.txt"]);
    assert_eq!(finished.status, Some(1));
    assert!(
        finished
            .error
            .contains("all.txt must end with .conf or .inc"),
        "{}",
        finished.error
    );
    let text = "PRAUTO$v$a$c = \"1.2\"\nPRAUTO$v$a = \"x\"\n";
    std::io::Write::write_all(
        &mut std::fs::File::create(dir.path().join("a.inc")).unwrap(),
        text.as_bytes(),
    )
    .unwrap();
    let finished = run(dir.path(), &["import", "a.inc"]);
    assert_eq!(finished.status, Some(1));
    assert!(
        finished.error.contains("a.inc:2: not a row"),
        "{}",
        finished.error
    );
    let exported = run(dir.path(), &["export", "--no-lockdown", "-"]);
    assert!(exported.out.starts_with("PRAUTO$v$a$c = \"1.2\"\n"));
    assert!(!exported.out.contains("LOCKDOWN"));
    assert!(
        exported.error.contains("contains dotted values"),
        "{}",
        exported.error
    );
}

#[test]
fn the_greatest_localcount_of_each_tuple_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let text = "PRAUTO$AUTOINC-x-1.0+git$all$rev1 = \"3\"\nPRAUTO$other$all$c = \"9\"\n\
        PRAUTO$AUTOINC-x-1.0+git$all$rev1 = \"11\"\nPRAUTO$AUTOINC-x-1.0+git$all$rev1 = \"9\"\n";
    let mut file = std::fs::File::create(dir.path().join("local.inc")).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    run_successfully(dir.path(), &["migrate-localcount", "local.inc"]);
    assert_eq!(
        run_successfully(dir.path(), &["list"]),
        "VERSION            PKGARCH  VALUE  ROWS\nAUTOINC-x-1.0+git  all      11     1\n"
    );
}

#[test]
fn sync_imports_a_local_database_and_lowers_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let _local = start_filled(dir.path());
    let center = Server::start(dir.path().join("center.sqlite3"));
    center.client().get("v-1.0-r0", "foreign").unwrap();
    let address = center.address.to_string();
    assert_eq!(
        run_successfully(dir.path(), &["sync", "--dry-run", &address])
            .lines()
            .count(),
        13
    );
    assert_eq!(center.client().rows().len(), 1);
    run_successfully(dir.path(), &["sync", &address]);
    assert_eq!(
        run_successfully(dir.path(), &["sync", &address]),
        "",
        "the second sync has nothing to do"
    );
    let rows = center.client().rows();
    let value = |checksum: &str| {
        let row = rows
            .iter()
            .find(|row| row[0] == "v-1.0-r0" && row[1] == checksum)
            .unwrap();
        row[2].clone()
    };
    assert_eq!(value("foreign"), "0");
    assert_eq!(value("c0"), "12", "0 belongs to another checksum");
    assert_eq!(value("c11"), "11");
    let closed = Server::start_with(dir.path().join("closed.sqlite3"), &["--lockdown"]);
    let refused = run(dir.path(), &["sync", &closed.address.to_string()]);
    assert_eq!(refused.status, Some(1));
    assert!(
        refused.error.contains("refused imports"),
        "{}",
        refused.error
    );
}

#[test]
fn list_and_show_print_tables_or_json() {
    let dir = tempfile::tempdir().unwrap();
    let _server = start_filled(dir.path());
    assert_eq!(
        run_successfully(dir.path(), &["list"]),
        "VERSION   PKGARCH  VALUE  ROWS\nv-1.0-r0  all      11     12\nw-2.0-r0  all      0      1\n"
    );
    assert_eq!(
        run_successfully(dir.path(), &["list", "--json", "w-"]),
        "[{\"pkgarch\":\"all\",\"rows\":1,\"value\":\"0\",\"version\":\"w-2.0-r0\"}]\n"
    );
    let shown = run_successfully(dir.path(), &["show", "v-1.0-r0"]);
    assert!(
        shown.starts_with("PKGARCH  VALUE  CHECKSUM\nall      0      c0\n"),
        "{shown}"
    );
    assert!(
        shown.ends_with("all      9      c9\nall      10     c10\nall      11     c11\n"),
        "{shown}"
    );
}

#[test]
fn a_backup_of_a_running_server_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let server = start_filled(dir.path());
    run_successfully(dir.path(), &["backup", "copy.sqlite3"]);
    assert_eq!(server.client().get("v-1.0-r0", "later").unwrap(), "12");
    let copy = Server::start(dir.path().join("copy.sqlite3"));
    assert_eq!(copy.client().rows().len(), 13);
    assert_eq!(copy.client().get("v-1.0-r0", "other").unwrap(), "12");
}
