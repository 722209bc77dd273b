//! The trials of revisions in a farm.

use client::Client;
use config::MachineName;
use config::canary::Terms;
use farm_core::Revision;

use super::publish::having;
use crate::exit_code::{ExitStatus, Failure};
use crate::machine::RevisionCommand;
use crate::options::DryRun;
use crate::output::Output;

/// Puts a revision on trial in the whole farm.
pub(super) fn begin(
    client: &Client,
    (machine, revision, terms): (&MachineName, Revision, Terms),
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let number = revision.0;
    if dry_run.enabled {
        let hosts = having(client, machine, revision)?;
        return output.plan(format!(
            "put revision {number} of {machine}, which {hosts}, on trial ({terms})"
        ));
    }
    let candidate = client.farm_try(machine, revision, terms)?;
    if output.is_json() {
        return output.print_json(&candidate);
    }
    output.status(format_args!(
        "revision {number} of {machine} is on trial ({terms}); hosts fetch it"
    ));
    Ok(())
}

/// Ends the trial of a revision: it is published or rolled back.
pub(crate) fn end(
    command: &RevisionCommand,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let (machine, verb, done, dry_run) = match command {
        RevisionCommand::Promote { name, dry_run } => (name, "promote", "published", dry_run),
        RevisionCommand::Rollback {
            name,
            revision: None,
            dry_run,
        } => (name, "rollback", "rolled back", dry_run),
        _ => {
            let text = "a published revision of a farm is never taken back; publish a newer one, or end a trial \
                        with `rollback MACHINE`";
            return Err(Failure::new(ExitStatus::Refused, text));
        }
    };
    let machines = client.farm_machines()?;
    let trial = machines.into_iter().find(|it| it.name == *machine);
    let trial = trial
        .and_then(|it| it.trial)
        .filter(|it| it.ended.is_none());
    let Some(trial) = trial else {
        let text = format!("no revision of {machine} is on trial in the farm");
        return Err(Failure::new(ExitStatus::Refused, text));
    };
    let revision = trial.revision.0;
    if dry_run.enabled {
        return output.plan(format!("{verb} revision {revision} of {machine}"));
    }
    client.farm_end_trial(machine, verb)?;
    if output.is_json() {
        return output.print_json(&trial.revision);
    }
    output.status(format_args!("revision {revision} of {machine} is {done}"));
    Ok(())
}
