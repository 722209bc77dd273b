//! Runs a program of the toolchain and hears everything that it prints.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use crate::WorkerError;
use crate::log::Log;

/// How long a program's children may go on printing after it has ended.
const AFTERMATH: Duration = Duration::from_secs(2);
/// How long bytes may wait for the host, when it has not taken them at once.
const TICK: Duration = Duration::from_millis(100);
/// How many pieces may wait for the log; then the program waits.
const PIECES_MAX: usize = 16;

/// What happens to a running program.
enum Event {
    Printed(Vec<u8>),
    Ended(io::Result<ExitStatus>),
}

/// Runs `program` in the directory `place` to its end. How long it may take is
/// not decided here: the host ends a guest that takes too long.
///
/// # Errors
/// It cannot be run at all.
pub fn run(
    program: &Path,
    place: &Path,
    environment: &[(&str, OsString)],
    log: &mut Log,
) -> Result<ExitStatus, WorkerError> {
    let fault = |source| WorkerError::Start {
        path: program.to_owned(),
        source,
    };
    let events = start(program, place, environment).map_err(fault)?;
    let mut ended = None;
    loop {
        let wait = if ended.is_some() { AFTERMATH } else { TICK };
        match events.recv_timeout(wait) {
            Ok(Event::Printed(bytes)) => log.append(&bytes),
            Ok(Event::Ended(status)) => ended = Some(status.map_err(fault)?),
            Err(RecvTimeoutError::Timeout) if ended.is_none() => log.flush(),
            Err(_) => break,
        }
    }
    ended.ok_or_else(|| fault(ErrorKind::Other.into()))
}

/// What to say of a program that failed: its own last words, or that it had none.
pub(crate) fn failed(entry: &str, status: ExitStatus, log: &mut Log) -> String {
    let words = log.last_lines();
    let own = format!("the toolchain's `{entry}` ended with {status}");
    log.say(&own);
    if words.is_empty() { own } else { words }
}

/// Starts the program and two threads: one hears it, one waits for its end.
#[expect(
    clippy::disallowed_methods,
    reason = "the worker has this one door to programs of its own"
)]
fn start(
    program: &Path,
    place: &Path,
    environment: &[(&str, OsString)],
) -> io::Result<mpsc::Receiver<Event>> {
    let (mut reader, writer) = io::pipe()?;
    let mut child = Command::new(program)
        .current_dir(place)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    let (sender, events) = mpsc::sync_channel(PIECES_MAX);
    let heard = sender.clone();
    std::thread::spawn(move || hear(&mut reader, &heard));
    std::thread::spawn(move || sender.send(Event::Ended(child.wait())));
    Ok(events)
}

fn hear(reader: &mut impl Read, events: &SyncSender<Event>) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return,
            Ok(length) => {
                let printed = Event::Printed(piece[..length].to_vec());
                if events.send(printed).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn run_script(script: &str) -> (Result<ExitStatus, WorkerError>, String) {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("program");
        std::io::Write::write_all(
            &mut std::fs::File::create(&program).unwrap(),
            script.as_bytes(),
        )
        .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut log = Log::create(&place.path().join("log"), None).unwrap();
        let environment = [("WORD", OsString::from("word"))];
        let status = run(&program, place.path(), &environment, &mut log);
        let ended = log.end().unwrap();
        (status, std::fs::read_to_string(ended.path).unwrap())
    }

    #[test]
    fn both_outputs_and_the_environment_arrive() {
        let (status, log) =
            run_script("#!/bin/sh\necho $WORD\necho problem >&2\npwd >/dev/null\nexit 3\n");
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!(log, "word\nproblem\n");
    }

    #[test]
    fn a_child_that_stays_behind_does_not_hold_us_up() {
        let (status, log) = run_script("#!/bin/sh\nsleep 1000 & echo $! && exit 0\n");
        assert!(status.unwrap().success());
        let child: u32 = log.trim().parse().unwrap();
        end(child);
    }

    #[expect(clippy::disallowed_methods, reason = "a test cleans up behind itself")]
    fn end(child: u32) {
        Command::new("kill")
            .arg(child.to_string())
            .status()
            .unwrap();
    }

    #[test]
    fn a_program_that_is_none_says_so() {
        let (status, _) = run_script("#!/nonexistent\n");
        let error = crate::chain(&status.unwrap_err());
        assert!(error.starts_with("cannot run /"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }
}
