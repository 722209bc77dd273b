//! A controller that hands out the tasks of its standard input: see `tests::controller`.
//!
//! usage: `test-controller DIRECTORY [PUBLIC_KEY]`
//!
//! Prints the address for agents. Each line of input is a task: `PACKAGE MACHINE [ORDER]`, with an
//! order to the worker `bbot-worker`. Prints a line for each upload and result that arrives, and
//! stores it in `DIRECTORY`. Ends with its input. `PUBLIC_KEY` is the file with the key of the agent.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, Error, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use config::manifest;
use tests::controller::{Session, TestController};

/// The time between two looks at the sessions.
const LOOK: Duration = Duration::from_millis(100);

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let directory = arguments.next().ok_or_else(|| Error::other("DIRECTORY"))?;
    let controller = TestController::start();
    if let Some(key) = arguments.next() {
        controller.authenticate(&key);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", controller.url())?;
    let (sender, tasks) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut seen = BTreeMap::new();
    loop {
        match tasks.recv_timeout(LOOK) {
            Ok(line) => add(&controller, &line)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        for (number, (name, session)) in controller.state().sessions.iter().enumerate() {
            let seen = seen.entry(name.clone()).or_default();
            show(&directory, number + 1, session, seen, &mut out)?;
        }
    }
}

/// Adds the task of a line.
fn add(controller: &TestController, line: &str) -> io::Result<()> {
    let mut words = line.split_whitespace();
    let (Some(package), Some(machine)) = (words.next(), words.next()) else {
        return Err(Error::other(format!(
            "PACKAGE MACHINE [ORDER] is expected: {line}"
        )));
    };
    let order = words.next().unwrap_or("success");
    controller.add_with(package, machine, &[("requires", order)]);
    Ok(())
}

/// The uploads and results of a session that have been shown.
#[derive(Debug, Default)]
struct Seen {
    uploads: usize,
    has_result: bool,
}

/// Stores and prints what has arrived.
fn show(
    directory: &Path,
    number: usize,
    session: &Session,
    seen: &mut Seen,
    out: &mut impl Write,
) -> io::Result<()> {
    let package = &session.task.package;
    let directory = directory.join(format!("{number}-{package}"));
    for (kind, instance, name, content) in session.uploads.iter().skip(seen.uploads) {
        fs::create_dir_all(&directory)?;
        sys::file::replace(&directory.join(format!("{kind}-{instance}.tar")), content)?;
        let bytes = content.len();
        writeln!(
            out,
            "session {number}: {package}: {kind} upload of {instance}: {name}, {bytes} bytes"
        )?;
        seen.uploads += 1;
    }
    if let (Some(result), false) = (&session.result, seen.has_result) {
        fs::create_dir_all(&directory)?;
        let text = manifest::print(std::slice::from_ref(result));
        sys::file::replace(&directory.join("result.manifest"), text.as_bytes())?;
        let status = result.get("status").unwrap_or_default();
        writeln!(out, "session {number}: {package}: result: {status}")?;
        seen.has_result = true;
    }
    Ok(())
}
