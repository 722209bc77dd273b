//! `record`: a content manifest beside a revision that has none.

use config::{MachineName, Revision};
use store::content_manifest::Verified;
use store::{KnownContent, RecordRefusal, StoreError, Volume};

use crate::exit_code::Failure;
use crate::options::DryRun;
use crate::output::{Output, count};

/// Records the content of a revision, unless that is known already.
pub(super) fn run(
    volume: &Volume,
    name: &MachineName,
    revision: Option<Revision>,
    again: bool,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let (revision, known) = volume.plan_record(name, revision)?;
    match known {
        KnownContent::Manifest => {
            output.status(format_args!(
                "{name}: revision {revision} has a content manifest, so there is nothing to record"
            ));
            return Ok(());
        }
        KnownContent::Recorded if !again => {
            output.status(format_args!(
                "{name}: the content of revision {revision} is recorded already"
            ));
            return Ok(());
        }
        KnownContent::Outdated if !again => {
            let refusal = RecordRefusal::Outdated(name.clone(), revision);
            return Err(StoreError::from(refusal).into());
        }
        KnownContent::Recorded | KnownContent::Outdated | KnownContent::Unknown => {}
    }
    if dry_run.enabled {
        return plan(name, revision, output);
    }
    let recorded = volume.record(name, revision)?;
    report(name, revision, &recorded, output);
    Ok(())
}

/// Prints the plan to record a revision.
pub(in crate::machine) fn plan(
    name: &MachineName,
    revision: Revision,
    output: &Output,
) -> Result<(), Failure> {
    output.plan(format_args!(
        "record the content of revision {revision} of {name}"
    ))
}

/// Reports that a revision was recorded.
pub(in crate::machine) fn report(
    name: &MachineName,
    revision: Revision,
    recorded: &Verified,
    output: &Output,
) {
    let files = count(recorded.entries, "file");
    let mebibytes = recorded.bytes >> 20;
    output.status(format_args!(
        "{name}: recorded the content of revision {revision}: {files}, {mebibytes} MiB"
    ));
}
