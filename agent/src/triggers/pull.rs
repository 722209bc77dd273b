//! Fetches new revisions of the machines on this host from other hosts, now and then.

use std::error::Error;
use std::sync::Arc;

use config::MachineName;
use config::canary::{Decider, Terms};
use store::pull::PullEvent;
use store::send::RemoteHost;
use store::{RefusalKind, Result, Volume};
use sys::blocking::blocking;
use sys::ssh::SshCommand;
use tokio::time::sleep;
use tracing::{info, warn};

use state::AgentState;

/// The program on the other hosts.
const PROGRAM: &str = "buildhost";

/// Fetches new revisions until the agent stops: at once, after each interval and after a reload of
/// the settings.
pub(crate) async fn run(agent: Arc<AgentState>) {
    loop {
        let round_agent = Arc::clone(&agent);
        tokio::select! {
            // What has arrived of a revision is kept, and the next agent continues.
            () = agent.stopping.cancelled() => return,
            () = blocking(move || pull_all(&round_agent)) => {}
        }
        let interval = agent.settings().machines.pull.interval;
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = agent.reloaded.notified() => {}
            () = sleep(interval) => {}
        }
    }
}

/// Fetches the new revisions of all machines, one after the other. Blocks.
fn pull_all(agent: &AgentState) {
    let settings = &agent.settings().machines;
    if settings.pull.hosts.is_empty() {
        return;
    }
    let host = |host: &config::SshHost| RemoteHost {
        ssh: SshCommand::new(settings.pull.ssh.clone()),
        host: host.to_string(),
        program: PROGRAM.to_owned(),
        volume: None,
    };
    let hosts: Vec<_> = settings.pull.hosts.iter().map(host).collect();
    let inventory = match agent.volumes.inventory() {
        Ok(inventory) => inventory,
        Err(error) => {
            let error = &error as &dyn Error;
            return warn!(error, "cannot list the machines to pull");
        }
    };
    for (machine, located) in inventory.machines {
        if agent.stopping.is_cancelled() {
            return;
        }
        let volume = agent.volumes.get(located.volume);
        let Some(volume) = volume.filter(|_| located.view.is_live()) else {
            continue;
        };
        if let Err(error) = pull(volume, &machine, &hosts, settings.trial) {
            let error = &error as &dyn Error;
            warn!(%machine, error, "cannot pull a revision");
        }
    }
}

/// Fetches the newest revision of a machine, if it is newer than the current one here. A machine
/// that no host has stays as it is, and so does a revision on trial, or one that was rolled back.
fn pull(
    volume: &Volume,
    machine: &MachineName,
    hosts: &[RemoteHost],
    trial: Option<Terms>,
) -> Result<()> {
    let mut report = |event: PullEvent<'_>| log(machine, &event);
    let mut pull = match volume.plan_pull(machine, hosts, &mut report) {
        Err(error) if error.kind() == Some(RefusalKind::NotFound) => return Ok(()),
        pull => pull?,
    };
    let revision = pull.revision;
    let was_tried = volume.was_tried(machine, revision);
    if pull.is_up_to_date() || was_tried {
        return Ok(());
    }
    pull.trial = trial.map(Decider::Host);
    let host = volume.pull(pull, false, &mut report)?;
    info!(%machine, %revision, host, "pulled a revision");
    Ok(())
}

fn log(machine: &MachineName, event: &PullEvent<'_>) {
    match event {
        PullEvent::Unavailable { host, error } => {
            let error: &dyn Error = *error;
            warn!(%machine, host, error, "cannot ask a host for revisions");
        }
        PullEvent::OtherContent { host, revision } => {
            warn!(%machine, host, %revision, "a host has other content under the same number");
        }
        PullEvent::Failed { host, error } => {
            let error: &dyn Error = *error;
            warn!(%machine, host, error, "a host has failed to send a revision");
        }
        PullEvent::Fetching(fetch) => {
            let (host, revision, incremental) = (fetch.host, fetch.revision, fetch.incremental);
            info!(%machine, host, %revision, incremental, "pulling a revision");
        }
    }
}
