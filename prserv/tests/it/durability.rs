//! Durability in the order of system calls: a new value is written and synced before a byte of its
//! reply is sent. Needs `strace`.

use std::fs;
use std::process::Command;

use super::harness::{Server, prserv};

/// A relevant system call of a trace.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    /// Bytes were written to the write-ahead log.
    Write,
    /// The write-ahead log was synced.
    Sync,
    /// A value was sent.
    Answer,
}

/// Parses a line of `strace -f -y`. A call that another thread interrupts has two lines: a sync
/// counts at its end, every other call at its start.
fn call(line: &str) -> Option<Call> {
    let is_log = line.contains(".sqlite3-wal>");
    if line.contains("pwrite64(") && is_log {
        return Some(Call::Write);
    }
    let is_sync = line.contains("sync(") && is_log || line.contains("sync resumed>");
    if is_sync && line.trim_end().ends_with("= 0") {
        return Some(Call::Sync);
    }
    let is_sent = line.contains("sendto(") || line.contains("write(");
    (is_sent && line.contains(r#"{\"value\": \""#)).then_some(Call::Answer)
}

/// Checks that each answer follows a sync of the bytes written for it. Returns the number of
/// answers.
fn check(trace: &str) -> Result<usize, String> {
    let (mut is_written, mut is_synced, mut answers) = (false, false, 0);
    for line in trace.lines() {
        match call(line) {
            None => {}
            Some(Call::Write) => (is_written, is_synced) = (true, false),
            Some(Call::Sync) => is_synced = is_written,
            Some(Call::Answer) if is_synced => {
                (is_written, is_synced, answers) = (false, false, answers + 1);
            }
            Some(Call::Answer) => return Err(format!("answered before the sync: {line}")),
        }
    }
    Ok(answers)
}

#[test]
fn the_check_detects_a_late_sync() {
    let write = "7 pwrite64(9</x/p.sqlite3-wal>, \"\"..., 24, 32) = 24\n";
    let sync = "7 fdatasync(9</x/p.sqlite3-wal>) = 0\n";
    let resumed =
        "7 fdatasync(9</x/p.sqlite3-wal> <unfinished ...>\n7 <... fdatasync resumed>) = 0\n";
    let answer = "8 sendto(12<TCP:[1]>, \"{\\\"value\\\": \\\"0\\\"}\\n\", 15, 0, NULL, 0) = 15\n";
    assert_eq!(
        check(&[write, sync, answer, write, resumed, answer].concat()),
        Ok(2)
    );
    assert!(check(&[write, answer, sync].concat()).is_err());
    assert!(check(&[write, sync, answer, answer].concat()).is_err());
    assert!(check(&[write, sync, write, answer].concat()).is_err());
}

#[test]
#[ignore = "needs strace"]
#[expect(clippy::disallowed_methods, reason = "strace starts the program")]
fn every_new_value_is_on_disk_before_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-y",
        "-s",
        "64",
        "-e",
        "trace=pwrite64,fdatasync,fsync,sendto,write",
        "-o",
    ]);
    strace.arg(&trace).arg(prserv().get_program());
    strace.args(["serve", "--listen", "127.0.0.1:0", "--allow-quit", "--db"]);
    strace.arg(dir.path().join("prserv.sqlite3"));
    let mut server = Server::launch(strace);
    let mut client = server.client();
    for number in 0..200 {
        client.get("v", &format!("c{number}")).unwrap();
    }
    // A signal would reach strace instead of the server.
    let quit = "<methodCall><methodName>quit</methodName></methodCall>";
    let length = quit.len();
    let head = "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Type: text/xml";
    server.exchange(format!("{head}\r\nContent-Length: {length}\r\n\r\n{quit}").as_bytes());
    assert!(server.wait().success());
    let trace = fs::read_to_string(&trace).unwrap();
    assert_eq!(check(&trace), Ok(200));
    assert!(
        trace.contains("fdatasync("),
        "SQLite was built without fdatasync; fsync is much slower"
    );
}
