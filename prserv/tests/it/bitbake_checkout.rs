//! A checkout of BitBake, which the variable `BITBAKE` names: its own tests with this server, and its
//! server on a file of this one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::harness::Server;

/// Returns the checkout.
fn bitbake() -> PathBuf {
    let Some(directory) = std::env::var_os("BITBAKE") else {
        panic!("BITBAKE does not name a checkout of BitBake");
    };
    PathBuf::from(directory)
}

#[expect(clippy::disallowed_methods, reason = "tests start BitBake's programs")]
fn python(arguments: &[&Path]) -> Output {
    let mut command = Command::new("python3");
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
#[ignore = "needs a checkout of BitBake"]
fn bitbakes_own_tests_pass_with_this_server() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bitbake/run_own_tests.py");
    let program = Path::new(env!("CARGO_BIN_EXE_prserv"));
    let output = python(&[&script, &bitbake(), program]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let error = text(&output.stderr);
    assert!(error.contains("test_upstream_and_readonly"), "{error}");
    assert!(!error.contains("skipped"), "{error}");
}

/// Two clients ask by turns. Without a write lock, a value was answered after a greater one.
#[test]
#[ignore = "needs a checkout of BitBake"]
fn bitbakes_server_cannot_write_to_the_file_of_a_running_server() {
    let directory = tempfile::tempdir().unwrap();
    let db = directory.path().join("prserv.sqlite3");
    let server = Server::start(&db);
    let mut client = server.client();
    assert_eq!(client.get("v", "c0").unwrap(), "0");
    let script = directory.path().join("ask.py");
    sys::file::replace(&script, ASK.as_bytes()).unwrap();
    let output = python(&[&script, &bitbake(), &db]);
    assert_eq!(
        text(&output.stdout),
        "refused\n",
        "{}",
        text(&output.stderr)
    );
    assert_eq!(client.get("v", "c1").unwrap(), "1");
    assert_eq!(client.rows().len(), 2);
}

/// Requests a value from the table of BitBake's server.
const ASK: &str = r#"
import logging, os, sqlite3, sys
sys.path.insert(0, os.path.join(sys.argv[1], "lib"))
from prserv.db import PRData
table = PRData(sys.argv[2])["PRMAIN"]
table.conn.execute("PRAGMA busy_timeout = 100")
try:
    print(table.get_value("v", "all", "c2", False))
    table.store_value("v", "all", "c2", "1")
    print("stored")
except sqlite3.OperationalError as error:
    print("refused" if "locked" in str(error) else error)
"#;
