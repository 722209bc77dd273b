//! The hosts and the machines of a farm, and drains.

use clap::Args;
use client::Client;
use config::MachineName;
use farm_core::site::HostState;
use farm_core::view::{HostQuery, HostView, MachineView};

use super::windows;
use crate::exit_code::{ExitStatus, Failure};
use crate::host::DrainCommand;
use crate::options::DryRun;
use crate::output::{Output, Table, fields, or_empty, time};

/// The largest number of hosts that one request asks for.
const PAGE: u32 = 500;

/// The options that select hosts.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only hosts in this state: alive, halted, maintenance, drained, silent, new or revoked
    #[arg(long, conflicts_with = "host")]
    state: Option<HostState>,
    /// Only hosts that offer this machine
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    machine: Option<MachineName>,
    /// Only hosts with this text in their names
    #[arg(long, value_name = "TEXT", conflicts_with = "host")]
    name: Option<String>,
    /// The number of hosts to show; by default all
    #[arg(short = 'n', long, conflicts_with = "host")]
    count: Option<u32>,
}

impl Filter {
    fn query(&self) -> HostQuery {
        HostQuery {
            state: self.state,
            machine: self.machine.clone(),
            name: self.name.clone(),
            after: None,
            count: self.count,
        }
    }
}

/// Prints the hosts that match, which may take several requests.
pub(super) fn list(client: &Client, filter: &Filter, output: &Output) -> Result<(), Failure> {
    let hosts = select(filter.query(), |query| client.farm_hosts(query))?;
    print(&hosts, output)
}

/// Returns the hosts that match, page by page. A coordinator of an older version has one page with all hosts.
fn select<E>(
    mut query: HostQuery,
    mut page: impl FnMut(&HostQuery) -> Result<Vec<HostView>, E>,
) -> Result<Vec<HostView>, E> {
    let mut left = query.count;
    let mut hosts: Vec<HostView> = Vec::new();
    loop {
        let count = left.unwrap_or(PAGE).min(PAGE);
        query.count = Some(count);
        let mut found = page(&query)?;
        let is_whole = found.len() != count as usize;
        found.retain(|it| query.after.as_ref().is_none_or(|after| it.name > *after));
        let Some(last) = found.last() else {
            return Ok(hosts);
        };
        query.after = Some(last.name.clone());
        hosts.append(&mut found);
        left = left.map(|it| it.saturating_sub(count));
        if is_whole || left == Some(0) {
            return Ok(hosts);
        }
    }
}

fn print(hosts: &[HostView], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&hosts);
    }
    let mut table = Table::new([
        "HOST", "STATE", "SEEN", "BUILDS", "FREE", "MACHINES", "VERSION",
    ]);
    for host in hosts {
        let (free, total) = (&host.offer.free, &host.offer.total);
        table.add([
            host.name.clone(),
            host.state().to_string(),
            or_empty(host.seen.map(time)),
            host.builds.to_string(),
            format!("{}/{} cpus, {} MiB", free.cpus, total.cpus, free.memory_mib),
            host.offer.machines.len().to_string(),
            host.offer.version.clone(),
        ]);
    }
    output.print_table(&table)?;
    for host in hosts {
        if let Some(window) = host.open_window() {
            output.status(format_args!(
                "host {} is in maintenance window {window}",
                host.name
            ));
        }
        for sentence in host.unlike.values() {
            output.status(format_args!("host {} {sentence}", host.name));
        }
    }
    Ok(())
}

/// Prints one host.
pub(super) fn show(host: &HostView, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(host);
    }
    let (free, total) = (&host.offer.free, &host.offer.total);
    let of = |free: u64, total: u64| format!("{free} of {total} free");
    let machines = host.offer.machines.iter().map(|(name, it)| {
        let toolchains: Vec<_> = it.toolchains.iter().map(ToString::to_string).collect();
        let frozen = if it.frozen { ", with a checkpoint" } else { "" };
        let trial = it.trial.as_ref();
        let trial = trial.map_or(String::new(), |it| format!("; r{} on trial", it.revision.0));
        format!(
            "{name} r{}: {}{frozen}{trial}",
            it.revision.0,
            toolchains.join(", ")
        )
    });
    let machines: Vec<_> = machines.collect();
    let resources = total.resources.iter().map(|(name, count)| {
        let left = free.resources.get(name).copied().unwrap_or_default();
        format!("{name}: {}", of(left, *count))
    });
    let resources: Vec<_> = resources.collect();
    output.print(&fields(&[
        ("host", host.name.clone()),
        ("state", host.state().to_string()),
        ("drained", if host.drained { "yes" } else { "" }.to_owned()),
        ("seen", or_empty(host.seen.map(time))),
        ("version", host.offer.version.clone()),
        ("builds", host.builds.to_string()),
        ("guests", of(free.guests, total.guests)),
        ("processors", of(free.cpus, total.cpus)),
        (
            "memory",
            format!("{} MiB", of(free.memory_mib, total.memory_mib)),
        ),
        ("resources", resources.join("\n")),
        ("starts nothing", or_empty(host.offer.halt.as_ref())),
        ("machines", machines.join("\n")),
        (
            "windows",
            host.windows
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        (
            "no builds of",
            host.unlike
                .iter()
                .map(|(name, sentence)| format!("{name}: the host {sentence}"))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
    ]))
}

/// Prints the machines.
pub(super) fn machines(machines: &[MachineView], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&machines);
    }
    let mut table = Table::new(["MACHINE", "PUBLISHED", "HOSTS"]);
    for machine in machines {
        table.add([
            machine.name.to_string(),
            or_empty(machine.revision.map(|it| format!("r{}", it.0))),
            named(machine),
        ]);
    }
    output.print_table(&table)?;
    for machine in machines {
        if let Some(trial) = &machine.trial {
            output.status(format_args!("{}: {trial}", machine.name));
        }
    }
    for (host, sentence) in machines.iter().flat_map(|it| &it.unlike) {
        output.status(format_args!("host {host} {sentence}"));
    }
    Ok(())
}

/// Returns some of the hosts that have a machine, and the number of the others.
fn named(machine: &MachineView) -> String {
    let hosts = machine
        .hosts
        .iter()
        .map(|(host, it)| match machine.unlike.get(host) {
            Some(_) => format!("{host} r{} (other content)", it.0),
            None => format!("{host} r{}", it.0),
        });
    let mut hosts: Vec<_> = hosts.collect();
    let good: u64 = machine.revisions.iter().map(|it| it.hosts).sum();
    let more = (good + machine.unlike_hosts).saturating_sub(hosts.len() as u64);
    if more > 0 {
        hosts.push(format!("and {more} more"));
    }
    hosts.join(", ")
}

/// Drains or undrains a host.
pub(crate) fn drain(
    command: &DrainCommand,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    if let Some(done) = windows::run(command, client, output) {
        return done;
    }
    let (host, is_drained, dry_run) = match command {
        DrainCommand::Drain { wait: true, .. } => {
            let text = "--wait has no meaning for a farm; `buildhost hosts HOST` shows the builds of a host";
            return Err(Failure::new(ExitStatus::Usage, text));
        }
        DrainCommand::Drain { host, dry_run, .. } => (host, true, dry_run),
        DrainCommand::Undrain { host, dry_run, .. } => (host, false, dry_run),
    };
    let Some(host) = host else {
        let text = "name the host of the farm: `drain HOST`; `buildhost hosts` lists them";
        return Err(Failure::new(ExitStatus::Usage, text));
    };
    change(client, host, is_drained, *dry_run, output)
}

fn change(
    client: &Client,
    host: &str,
    is_drained: bool,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let before = client.farm_host(host)?;
    let step = match (is_drained, before.drained) {
        (true, true) | (false, false) => {
            let state = if is_drained {
                "drained already"
            } else {
                "not drained"
            };
            output.status(format_args!("host {host} is {state}"));
            return Ok(());
        }
        (true, false) => format!(
            "place no further builds on host {host}, which runs {}",
            before.builds
        ),
        (false, true) => format!("place builds on host {host} again"),
    };
    if dry_run.enabled {
        return output.plan(step);
    }
    client.farm_drain(host, is_drained)?;
    let done = if is_drained { "drained" } else { "undrained" };
    output.status(format_args!("{done} host {host}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use farm_core::Revision;
    use farm_core::view::RevisionView;

    use super::*;

    fn host(name: &str) -> HostView {
        HostView {
            name: name.to_owned(),
            drained: false,
            alive: true,
            revoked: false,
            seen: None,
            builds: 0,
            offer: farm_core::Offer::default(),
            unlike: BTreeMap::new(),
            windows: Vec::new(),
        }
    }

    /// Selects of so many hosts, and returns the number of those selected and of the requests.
    fn selected(hosts: u32, count: Option<u32>, has_pages: bool) -> (usize, u32) {
        let all: Vec<_> = (0..hosts).map(|it| host(&format!("host{it:05}"))).collect();
        let mut requests = 0;
        let query = HostQuery {
            count,
            ..HostQuery::default()
        };
        let found = select(query, |query| {
            requests += 1;
            if !has_pages {
                return Ok(all.clone());
            }
            let after = query.after.clone().unwrap_or_default();
            let page = all.iter().filter(|it| it.name > after);
            let count = query.count.unwrap_or_default() as usize;
            Ok::<_, Infallible>(page.take(count).cloned().collect())
        });
        let Ok(found) = found;
        assert!(found.is_sorted_by(|a, b| a.name < b.name));
        (found.len(), requests)
    }

    #[test]
    fn hosts_are_read_in_pages_of_a_bounded_length() {
        assert_eq!(selected(0, None, true), (0, 1));
        assert_eq!(selected(1_234, None, true), (1_234, 3));
        assert_eq!(selected(1_000, None, true), (1_000, 3));
        assert_eq!(selected(1_234, Some(700), true), (700, 2));
        // Coordinators of older versions have no pages.
        assert_eq!(selected(1_234, None, false), (1_234, 1));
        assert_eq!(selected(500, None, false), (500, 2));
    }

    #[test]
    fn hosts_of_a_machine_that_are_not_named_are_counted() {
        let mut machine = MachineView {
            name: "linux".parse().unwrap(),
            revision: None,
            content: None,
            revisions: vec![RevisionView {
                revision: Revision(2),
                hosts: 38,
            }],
            unlike_hosts: 0,
            trial: None,
            hosts: [("a".to_owned(), Revision(2))].into(),
            unlike: BTreeMap::new(),
        };
        assert_eq!(named(&machine), "a r2, and 37 more");
        machine.revisions.clear();
        assert_eq!(named(&machine), "a r2");
    }
}
