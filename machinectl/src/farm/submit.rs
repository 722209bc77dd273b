//! Submitting a build to a farm, and following it.

use std::io;
use std::thread::sleep;

use client::{Client, ClientError};
use config::BuildId;
use config::task::{Digest, Outcome};
use farm_core::view::BuildState;
use serde_json::json;

use crate::build::{BuildArguments, POLL_INTERVAL, WaitingOptions, unless_closed};
use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

/// The number of attempts to submit. All have one key, so that they make one build.
const ATTEMPTS: usize = 5;

pub(super) fn run(
    client: &Client,
    arguments: &BuildArguments,
    waiting: &WaitingOptions,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let follows = waiting.only_follows()?;
    let key = sys::random::bytes().map_err(|error| Failure::new(ExitStatus::Failure, error))?;
    let new = arguments.of_farm(Digest::from(key).to_string())?;
    if dry_run.enabled {
        let machine = &new.requirements.machine;
        let target = &new.requirements.work.package;
        return output.plan(format_args!(
            "build {target} on a host of the farm with {machine}"
        ));
    }
    let mut left = ATTEMPTS;
    let build = loop {
        left -= 1;
        match client.farm_submit(&new) {
            Err(error) if left > 0 && may_be_repeated(&error) => {
                output.status(format_args!("{error}; submitting again"));
                sleep(5 * POLL_INTERVAL);
            }
            submitted => break submitted?,
        }
    };
    if follows {
        return follow(client, build, output);
    }
    if output.is_json() {
        return output.print_json(&json!({ "build": build }));
    }
    output.print(&format!("{build}\n"))
}

/// Returns true for a failure after which the farm may or may not have the build.
fn may_be_repeated(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { status, .. } => (500..600).contains(status),
        ClientError::TimedOut { .. } | ClientError::Answer(_) => true,
        _ => false,
    }
}

/// Waits for a build, says why it waits, and copies its log.
pub(super) fn follow(client: &Client, id: BuildId, output: &Output) -> Result<(), Failure> {
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
    // A host that fails takes the log with it, and the build is placed again.
    while let Err(error) = client.farm_log(id, true, &mut io::stdout()) {
        if error.is_closed_output() {
            return unless_closed(Err(error));
        }
        if client.farm_build(id)?.state == BuildState::Finished {
            output.status(format_args!("the log is not complete: {error}"));
            break;
        }
        sleep(5 * POLL_INTERVAL);
    }
    loop {
        let build = client.farm_build(id)?;
        if let (BuildState::Finished, Some(outcome)) = (build.state, build.outcome) {
            let host = build.host.as_deref().unwrap_or("a host that is gone");
            return conclude(
                &format!("build {id} finished on {host} with {outcome}"),
                outcome,
                output,
            );
        }
        sleep(POLL_INTERVAL);
    }
}

fn conclude(text: &str, outcome: Outcome, output: &Output) -> Result<(), Failure> {
    if matches!(outcome, Outcome::Success | Outcome::Warning) {
        output.status(text);
        return Ok(());
    }
    Err(Failure::new(outcome.into(), text))
}
