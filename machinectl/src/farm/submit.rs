//! Submitting a build to a farm, and following it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};

use client::{Client, ClientError};
use config::BuildId;
use config::task::{Digest, Outcome};
use farm_core::messages::NewBuild;
use farm_core::view::{BuildState, BuildView};
use serde_json::json;

use super::files::produced;
use crate::build::{BuildArguments, POLL_INTERVAL, WaitingOptions, may_be_repeated, unless_closed};
use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

/// The number of attempts to submit, with a second between. All have one key, so that they make one build. They
/// take longer than a coordinator that has died counts as alive, which delays builds with sources.
const ATTEMPTS: usize = 25;
/// The number of attempts to cancel.
const CANCEL_ATTEMPTS: usize = 5;

pub(super) fn run(
    client: &Client,
    arguments: &BuildArguments,
    waiting: &WaitingOptions,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let key = sys::random::bytes().map_err(|error| Failure::new(ExitStatus::Failure, error))?;
    let new = arguments.of_farm(Digest::from(key).to_string())?;
    if dry_run.enabled {
        let machine = &new.requirements.machine;
        let target = &new.requirements.work.package;
        return output.plan(format_args!(
            "build {target} on a host of the farm with {machine}"
        ));
    }
    arguments.upload_to_farm(client, &new, output)?;
    let signal = waiting.signal()?;
    let build = submit(client, arguments, &new, output)?;
    if !waiting.follows() {
        if output.is_json() {
            return output.print_json(&json!({ "build": build }));
        }
        return output.print(&format!("{build}\n"));
    }
    let ended = match signal {
        Some(signal) => canceling(client, build, &signal, output, || {
            follow(client, build, output)
        }),
        None => follow(client, build, output),
    };
    // Nobody reads the log any more.
    let Some(ended) = ended? else {
        return Ok(());
    };
    conclude(&ended, output)?;
    match waiting.output() {
        None => Ok(()),
        Some(directory) => {
            let dry_run = DryRun { enabled: false };
            produced(client, &ended)?.fetch(client, directory, dry_run, output)
        }
    }
}

/// Submits a build. If its sources were lost meanwhile, they are uploaded again.
fn submit(
    client: &Client,
    arguments: &BuildArguments,
    new: &NewBuild,
    output: &Output,
) -> Result<BuildId, Failure> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match repeated(output, || client.farm_submit(new)) {
            Err(error) if left > 0 && is_source_lost(&error, new) => {
                output.status(format_args!("{error}; uploading again"));
                arguments.upload_to_farm(client, new, output)?;
            }
            submitted => return Ok(submitted?),
        }
    }
}

/// Sends a request with an idempotency key, repeatedly while it may or may not have had its effect.
pub(super) fn repeated<T>(
    output: &Output,
    request: impl Fn() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let (mut left, mut last) = (ATTEMPTS, String::new());
    loop {
        left -= 1;
        match request() {
            Err(error) if left > 0 && may_be_repeated(&error) => {
                let shown = error.to_string();
                if shown != last {
                    output.status(format_args!("{shown}; submitting again"));
                    last = shown;
                }
                sleep(5 * POLL_INTERVAL);
            }
            answered => return answered,
        }
    }
}

/// Returns true if a submission is refused because no coordinator has its sources any more.
fn is_source_lost(error: &ClientError, new: &NewBuild) -> bool {
    let has_sources = !new.requirements.work.sources.is_empty();
    has_sources && matches!(error, ClientError::Refused { status: 409, .. })
}

/// Follows a build, and cancels it at the first signal.
fn canceling<T>(
    client: &Client,
    build: BuildId,
    signal: &Arc<AtomicBool>,
    output: &Output,
    follow: impl FnOnce() -> T,
) -> T {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                if signal.load(Ordering::SeqCst) {
                    return cancel(client, build, output);
                }
                sleep(POLL_INTERVAL);
            }
        });
        let followed = follow();
        ended.store(true, Ordering::SeqCst);
        followed
    })
}

/// Cancels a build, repeatedly until the farm has it.
fn cancel(client: &Client, build: BuildId, output: &Output) {
    for _ in 0..CANCEL_ATTEMPTS {
        match client.farm_cancel(build) {
            Ok(()) => return output.status(format_args!("cancelling build {build}")),
            Err(error) if may_be_repeated(&error) => sleep(5 * POLL_INTERVAL),
            // It is about to finish.
            Err(error) => return output.status(error),
        }
    }
    output.status(format_args!(
        "the farm does not answer; `buildhost cancel {build}` cancels the build"
    ));
}

/// Waits for a build, says why it waits, and copies its log. Returns `None` if nobody reads the log any
/// more.
pub(super) fn follow(
    client: &Client,
    id: BuildId,
    output: &Output,
) -> Result<Option<BuildView>, Failure> {
    let mut last = None;
    loop {
        let build = client.farm_build(id)?;
        if build.state != BuildState::Queued {
            break;
        }
        if build.why != last {
            if let Some(why) = &build.why {
                output.status(format_args!("build {id} waits: {why}"));
            }
            last = build.why;
        }
        sleep(POLL_INTERVAL);
    }
    // The record at the end is the whole answer in JSON.
    if !output.is_json() && !copy_log(client, id, output)? {
        return Ok(None);
    }
    loop {
        let build = client.farm_build(id)?;
        if build.state == BuildState::Finished && build.outcome.is_some() {
            return Ok(Some(build));
        }
        sleep(POLL_INTERVAL);
    }
}

/// Copies the log of a build while it runs. Returns false if nobody reads it any more.
fn copy_log(client: &Client, id: BuildId, output: &Output) -> Result<bool, Failure> {
    // A host that fails takes the log with it, and the build is placed again.
    while let Err(error) = client.farm_log(id, true, &mut io::stdout()) {
        if error.is_closed_output() {
            return unless_closed(Err(error)).map(|()| false);
        }
        if client.farm_build(id)?.state == BuildState::Finished {
            output.status(format_args!("the log is not complete: {error}"));
            break;
        }
        sleep(5 * POLL_INTERVAL);
    }
    Ok(true)
}

pub(super) fn conclude(build: &BuildView, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        output.print_json(build)?;
    }
    let id = build.build;
    let host = build.host.as_deref().unwrap_or("a host that is gone");
    let outcome = build.outcome.unwrap_or(Outcome::Abnormal);
    let text = format!("build {id} finished on {host} with {outcome}");
    if outcome.is_good() {
        output.status(text);
        return Ok(());
    }
    Err(Failure::new(outcome.into(), text))
}
