//! The hosts and the machines of a farm, and drains.

use client::Client;
use farm_core::view::{HostView, MachineView};

use super::windows;
use crate::exit_code::{ExitStatus, Failure};
use crate::host::DrainCommand;
use crate::options::DryRun;
use crate::output::{Output, Table, fields, or_empty, time};

/// Prints the hosts.
pub(super) fn list(hosts: &[HostView], output: &Output) -> Result<(), Failure> {
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
            host.state().to_owned(),
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
        format!(
            "{name} r{}: {}{frozen}",
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
        ("state", host.state().to_owned()),
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
        let hosts = machine.hosts.iter();
        let hosts: Vec<_> = hosts
            .map(|(host, it)| match machine.unlike.get(host) {
                Some(_) => format!("{host} r{} (other content)", it.0),
                None => format!("{host} r{}", it.0),
            })
            .collect();
        table.add([
            machine.name.to_string(),
            or_empty(machine.revision.map(|it| format!("r{}", it.0))),
            hosts.join(", "),
        ]);
    }
    output.print_table(&table)?;
    for (host, sentence) in machines.iter().flat_map(|it| &it.unlike) {
        output.status(format_args!("host {host} {sentence}"));
    }
    Ok(())
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
