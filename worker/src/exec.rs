//! Runs a program of the toolchain and reads its output.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use crate::WorkerError;
use crate::fork::Rendezvous;
use crate::log::Log;

/// The time for which the output of a program's children is read after it has ended.
const ORPHAN_OUTPUT_MAX: Duration = Duration::from_secs(2);
/// The interval at which bytes that the host has not taken are sent again.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// The number of chunks that may wait for the log. With more, the program waits.
const CHUNKS_MAX: usize = 16;
const CHUNK_SIZE: usize = 16 * 1024;

/// An event of a running program.
enum Event {
    Output(Vec<u8>),
    Exited(io::Result<ExitStatus>),
}

/// Runs `program` in `directory` to its end. Its guest may be forked meanwhile. There is no time
/// limit: the host ends a guest that takes too long.
///
/// # Errors
/// The program cannot be started, or a copy of the guest cannot go on.
pub fn run(
    program: &Path,
    directory: &Path,
    environment: &[(&str, OsString)],
    mut rendezvous: Option<&mut Rendezvous>,
    log: &mut Log,
) -> Result<ExitStatus, WorkerError> {
    let failed = |source| WorkerError::Exec {
        path: program.to_owned(),
        source,
    };
    let events = spawn(program, directory, environment).map_err(failed)?;
    let mut exited = None;
    loop {
        if exited.is_none()
            && let Some(rendezvous) = &mut rendezvous
        {
            rendezvous.poll(log)?;
        }
        let timeout = if exited.is_some() {
            ORPHAN_OUTPUT_MAX
        } else {
            FLUSH_INTERVAL
        };
        match events.recv_timeout(timeout) {
            Ok(Event::Output(bytes)) => log.append(&bytes),
            Ok(Event::Exited(status)) => exited = Some(status.map_err(failed)?),
            Err(RecvTimeoutError::Timeout) if exited.is_none() => log.flush(),
            Err(_) => break,
        }
    }
    log.end_output();
    exited.ok_or_else(|| failed(ErrorKind::Other.into()))
}

/// Logs the failure of a program and returns the message of the result: the last lines of
/// its output, or its exit status if it has printed nothing.
pub(crate) fn failure_message(program: &str, status: ExitStatus, log: &mut Log) -> String {
    let output = log.last_lines();
    let message = format!("the toolchain's `{program}` ended with {status}");
    log.line(&message);
    if output.is_empty() { message } else { output }
}

/// Starts the program and two threads: one reads its output, one waits for its end.
#[expect(
    clippy::disallowed_methods,
    reason = "`sys::command` collects output, but this program's is logged as it comes"
)]
fn spawn(
    program: &Path,
    directory: &Path,
    environment: &[(&str, OsString)],
) -> io::Result<mpsc::Receiver<Event>> {
    let (mut reader, writer) = io::pipe()?;
    let mut child = Command::new(program)
        .current_dir(directory)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    let (sender, events) = mpsc::sync_channel(CHUNKS_MAX);
    let output = sender.clone();
    std::thread::spawn(move || read_output(&mut reader, &output));
    std::thread::spawn(move || sender.send(Event::Exited(child.wait())));
    Ok(events)
}

fn read_output(reader: &mut impl Read, events: &SyncSender<Event>) {
    let mut chunk = vec![0; CHUNK_SIZE];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                let output = Event::Output(chunk[..length].to_vec());
                if events.send(output).is_err() {
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
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        std::io::Write::write_all(
            &mut std::fs::File::create(&program).unwrap(),
            script.as_bytes(),
        )
        .unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut log = Log::create(&directory.path().join("log"), None).unwrap();
        let environment = [("WORD", OsString::from("word"))];
        let status = run(&program, directory.path(), &environment, None, &mut log);
        let mut text = String::new();
        log.finish().read_to_string(&mut text).unwrap();
        (status, text)
    }

    #[test]
    fn both_outputs_are_logged_and_the_environment_is_set() {
        let (status, log) =
            run_script("#!/bin/sh\necho $WORD\necho problem >&2\npwd >/dev/null\nexit 3\n");
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!(log, "word\nproblem\n");
    }

    #[test]
    fn an_orphaned_child_does_not_block_the_end() {
        let (status, log) = run_script("#!/bin/sh\nsleep 1000 & echo $! && exit 0\n");
        assert!(status.unwrap().success());
        let child: u32 = log.trim().parse().unwrap();
        kill(child);
    }

    #[expect(clippy::disallowed_methods, reason = "a test cleans up behind itself")]
    fn kill(child: u32) {
        Command::new("kill")
            .arg(child.to_string())
            .status()
            .unwrap();
    }

    #[test]
    fn a_missing_interpreter_is_reported() {
        let (status, _) = run_script("#!/nonexistent\n");
        let error = sys::error_report::chain(&status.unwrap_err());
        assert!(error.starts_with("cannot run /"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }
}
