//! `builds delete`.

use client::Client;
use config::BuildId;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

/// Deletes builds. If one cannot be deleted, the others are deleted nevertheless.
pub(super) fn run(
    client: &Client,
    builds: &[BuildId],
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for id in builds {
        let deleted = if dry_run.enabled {
            plan(client, *id, output)
        } else {
            delete(client, *id, output)
        };
        match deleted {
            Err(failure) if is_about_one_build(&failure) => failures.push(failure),
            deleted => deleted?,
        }
    }
    let Some(last) = failures.pop() else {
        return Ok(());
    };
    for failure in failures {
        output.error(failure.error.as_ref());
    }
    Err(last)
}

fn is_about_one_build(failure: &Failure) -> bool {
    matches!(failure.status, ExitStatus::NotFound | ExitStatus::Refused)
}

fn delete(client: &Client, id: BuildId, output: &Output) -> Result<(), Failure> {
    client.delete_build(id)?;
    output.status(format_args!("deleted build {id}"));
    Ok(())
}

/// Prints that a build would be deleted, or fails if it could not be.
pub(crate) fn plan(client: &Client, id: BuildId, output: &Output) -> Result<(), Failure> {
    let build = client.build(id)?;
    let reason = match build.outcome {
        Some(_) if build.interactive.held.is_some() => {
            format!("build {id} is held for debugging; run `buildhost release {id}` first")
        }
        Some(_) => return output.plan(format_args!("delete build {id}")),
        None => format!("build {id} is {}; cancel it first", build.state),
    };
    Err(Failure::new(ExitStatus::Refused, reason))
}
