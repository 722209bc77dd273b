//! The fetching of a revision from other hosts.

use std::sync::atomic::Ordering;

use config::MachineName;
use config::canary::Decider;
use store::Volume;
use store::pull::{Fetch, PullEvent};
use store::send::RemoteHost;
use sys::error_report::chain;

use crate::exit_code::Failure;
use crate::machine::ingest::report_no_manifest;
use crate::machine::retention::Retention;
use crate::machine::trial::{TrialOption, published};
use crate::options::DryRun;
use crate::output::{Output, Progress, mebibytes};

/// Fetches the newest revision of a machine from the hosts that have it.
pub(super) fn run(
    volume: &Volume,
    name: &MachineName,
    hosts: &[RemoteHost],
    (trial, retention, dry_run): (TrialOption, Retention, DryRun),
    output: &Output,
) -> Result<(), Failure> {
    let mut progress = None;
    let mut report = |event: PullEvent<'_>| {
        progress = None;
        say(name, &event, output);
        if let PullEvent::Fetching(fetch) = event {
            progress = Some(watch(&fetch, output));
        }
    };
    let mut pull = volume.plan_pull(name, hosts, &mut report)?;
    let (revision, before) = (pull.revision, pull.current);
    if let Some(current) = pull.current
        && pull.is_up_to_date()
    {
        let host = pull.host();
        output.status(format_args!(
            "{name}: already up to date; revision {current} is current here, {revision} on {host}"
        ));
        return Ok(());
    }
    let trial = trial.begins(before);
    pull.trial = trial.map(Decider::Host);
    let next = before.filter(|_| trial.is_some());
    let next = next.unwrap_or(revision);
    if dry_run.enabled {
        let host = pull.host().to_owned();
        let size = pull.measure();
        let size = size.map_or_else(String::new, |it| format!(", about {}", mebibytes(it)));
        output.plan(format_args!(
            "fetch revision {revision} of {name} from {host}{size}"
        ))?;
        if let Some(terms) = trial {
            output.plan(format_args!(
                "put revision {revision} of {name} on trial ({terms})"
            ))?;
        }
        return retention.plan(volume, name, next, output);
    }
    volume.pull(pull, Progress::is_visible(output), &mut report)?;
    drop(progress);
    let published = published(revision, trial);
    output.status(format_args!("{name}: {published}"));
    if !volume.has_content_manifest(name, revision) {
        report_no_manifest(name, revision, "here", true, output);
    }
    retention.apply(volume, name, output);
    Ok(())
}

fn say(name: &MachineName, event: &PullEvent<'_>, output: &Output) {
    match event {
        PullEvent::Unavailable { host, error } => {
            output.status(format_args!("{name}: {host} is left out: {}", chain(error)));
        }
        PullEvent::OtherContent { host, revision } => output.status(format_args!(
            "{name}: {host} is left out: its revision {revision} has other content"
        )),
        PullEvent::Failed { host, error } => output.status(format_args!(
            "{name}: {host} has failed, the next host is asked: {}",
            chain(error)
        )),
        PullEvent::Fetching(fetch) => {
            let (host, revision) = (fetch.host, fetch.revision);
            let extent = if fetch.incremental {
                "incrementally"
            } else {
                "in full"
            };
            let arrived = match fetch.bytes_arrived {
                0 => String::new(),
                bytes => format!("; {} have arrived before", mebibytes(bytes)),
            };
            output.status(format_args!(
                "{name}: fetching revision {revision} {extent} from {host}{arrived}"
            ));
        }
    }
}

/// Shows the progress of a transfer.
fn watch(fetch: &Fetch<'_>, output: &Output) -> Progress {
    let counter = fetch.counter.clone();
    let total = fetch.bytes.unwrap_or(0).saturating_sub(fetch.bytes_arrived);
    Progress::watch(output, move || (counter.load(Ordering::Relaxed), total))
}
