//! Following a build until it has finished.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use client::{Client, ClientError, LogSelection};
use config::BuildId;
use config::builds::{Build, State};
use config::task::Outcome;

use super::stamped_lines::{Reader, StampedLines};
use crate::exit_code::Failure;
use crate::options::Follow;
use crate::output::Output;

/// The time between two requests for a build's state.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Prints the number of a submitted build, or follows it.
pub(crate) fn finish_submission(
    client: &Client,
    build: &Build,
    follow: Follow,
    output: &Output,
) -> Result<(), Failure> {
    if follow.enabled {
        return run(client, build.id, false, output);
    }
    print_submitted(build, output)
}

/// Prints the number of a submitted build; in JSON, its record.
pub(super) fn print_submitted(build: &Build, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(build);
    }
    output.print(&format!("{}\n", build.id))
}

/// Waits until a build has finished.
pub(crate) fn wait(client: &Client, id: BuildId) -> Result<Build, ClientError> {
    loop {
        let build = client.build(id)?;
        if build.state == State::Finished {
            return Ok(build);
        }
        sleep(POLL_INTERVAL);
    }
}

/// Copies the log as it grows and prints why the build waits, until the build has finished or
/// nobody reads the log any more.
pub(super) fn run(
    client: &Client,
    id: BuildId,
    timestamps: bool,
    output: &Output,
) -> Result<(), Failure> {
    run_with(client, id, timestamps, output, &mut || Ok(()))
}

/// Follows a build as [`run`] does, and calls a function in each round.
pub(super) fn run_with(
    client: &Client,
    id: BuildId,
    timestamps: bool,
    output: &Output,
    each_round: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut last_reason = String::new();
    let mut lines = StampedLines::default();
    let selected = LogSelection::default();
    loop {
        each_round()?;
        // The state is read before the log, so that nothing is missed before the end.
        let build = client.build(id)?;
        let reason = &build.message;
        if build.state != State::Finished && !reason.is_empty() && *reason != last_reason {
            output.status(format_args!("build {id} waits {reason}"));
            last_reason.clone_from(reason);
        }
        lines.position.follow(&build);
        if output.is_json() {
            // The record at the end is the whole answer.
        } else if timestamps {
            let stdout = &mut io::stdout();
            if lines.copy(client, id, selected, stdout)? == Reader::Closed {
                return Ok(());
            }
        } else {
            let stdout = &mut io::stdout();
            match client.copy_log(id, selected, lines.position.offset, stdout) {
                Err(error) if error.is_closed_output() => return Ok(()),
                copied => lines.position.offset += copied?,
            }
            let _ = stdout.flush();
        }
        if let Some(outcome) = build.outcome {
            return conclude(&build, outcome, output);
        }
        sleep(POLL_INTERVAL);
    }
}

/// Prints the packages and the outcome of a build; in JSON, its record. Fails if the build has failed.
pub(super) fn conclude(build: &Build, outcome: Outcome, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        output.print_json(build)?;
    }
    for built in &build.packages {
        let package = &built.package;
        output.status(format_args!(
            "build {}: produced {} {} {} for {} in {}",
            build.id,
            package.name,
            package.version,
            built.revision,
            package.architecture,
            package.file
        ));
    }
    let text = match build.message.as_str() {
        "" => format!("build {} finished with {outcome}", build.id),
        message => format!("build {} finished with {outcome}: {message}", build.id),
    };
    if build.succeeded() {
        output.status(text);
        return Ok(());
    }
    Err(Failure::new(outcome.into(), text))
}
