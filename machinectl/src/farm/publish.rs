//! The publication of a revision in a farm.

use client::Client;
use config::MachineName;
use farm_core::view::MachineView;
use farm_core::{Published, Revision};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

/// Publishes a revision with the content of the hosts that have it.
pub(super) fn run(
    client: &Client,
    machine: &MachineName,
    revision: Revision,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        let hosts = having(client, machine, revision)?;
        return output.plan(format!(
            "publish revision {} of {machine}, which {hosts}",
            revision.0
        ));
    }
    let wanted = Published {
        revision,
        content: None,
    };
    let current = client.farm_publish(machine, &wanted)?;
    if current.revision != revision {
        return Err(Failure::new(
            ExitStatus::Refused,
            format!(
                "revision {} of {machine} is published, which is newer than {}",
                current.revision.0, revision.0
            ),
        ));
    }
    if output.is_json() {
        return output.print_json(&current);
    }
    output.status(format_args!(
        "revision {} of {machine} is published; hosts fetch it",
        revision.0
    ));
    Ok(())
}

/// Returns in words how many hosts have a revision.
pub(super) fn having(
    client: &Client,
    machine: &MachineName,
    revision: Revision,
) -> Result<String, Failure> {
    let machines = client.farm_machines()?;
    let known = machines.iter().find(|it| it.name == *machine);
    Ok(in_words(known, revision))
}

fn in_words(machine: Option<&MachineView>, revision: Revision) -> String {
    let hosts = machine.map_or(0, |it| {
        let counted = it.revisions.iter().find(|it| it.revision == revision);
        counted.map_or(0, |it| it.hosts)
    });
    let has = if hosts == 1 { "host has" } else { "hosts have" };
    format!("{hosts} {has}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use farm_core::view::RevisionView;

    use super::*;

    #[test]
    fn a_plan_counts_the_hosts_that_have_the_revision() {
        let revisions = [(2, 2), (1, 1)].map(|(revision, hosts)| RevisionView {
            revision: Revision(revision),
            hosts,
        });
        let known = MachineView {
            name: "linux".parse().unwrap(),
            revision: None,
            content: None,
            revisions: revisions.into(),
            unlike_hosts: 0,
            trial: None,
            hosts: BTreeMap::new(),
            unlike: BTreeMap::new(),
        };
        assert_eq!(in_words(Some(&known), Revision(2)), "2 hosts have");
        assert_eq!(in_words(Some(&known), Revision(1)), "1 host has");
        assert_eq!(in_words(None, Revision(1)), "0 hosts have");
    }
}
