//! The builds of a farm: lists, one build, the queue, cancellation.

use std::io;

use client::Client;
use config::builds::{Cursor, SortKey};
use config::{BuildId, printable};
use farm_core::view::{BuildQuery, BuildState, BuildView, FilesPlace, LISTED_MAX, QueueView};
use jiff::Timestamp;
use serde_json::json;

use crate::build::{LogCommand, unless_closed};
use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::{Output, Table, count, fields, or_empty, time};
use crate::toaster::recipes;

/// Prints the builds that match, which may take several requests.
pub(super) fn list(client: &Client, query: &BuildQuery, output: &Output) -> Result<(), Failure> {
    let wanted = query.count() as usize;
    let mut builds: Vec<BuildView> = Vec::new();
    let mut before = query.before;
    loop {
        let left = u32::try_from(wanted - builds.len()).unwrap_or(LISTED_MAX);
        let page = client.farm_builds(&BuildQuery {
            before,
            count: Some(left),
            ..query.clone()
        })?;
        builds.extend(page.builds);
        before = page.next;
        if before.is_none() || builds.len() >= wanted {
            break;
        }
    }
    if let (Some(id), Some(last)) = (before, builds.last()) {
        let key = SortKey::Time(last.submitted);
        let position = Cursor { key, id };
        output.status(format_args!("more builds may follow: --from {position}"));
    }
    if output.is_json() {
        return output.print_json(&builds);
    }
    output.print_table(&table(&builds, Timestamp::now()))
}

/// Prints all builds as Toaster does, the oldest first.
pub(crate) fn list_for_toaster(client: &Client, output: &Output) -> Result<(), Failure> {
    let mut query = BuildQuery {
        count: Some(LISTED_MAX),
        ..BuildQuery::default()
    };
    let mut lines = Vec::new();
    loop {
        let page = client.farm_builds(&query)?;
        lines.extend(page.builds.iter().map(toaster_line));
        query.before = page.next;
        if query.before.is_none() {
            break;
        }
    }
    lines.iter().rev().try_for_each(|line| output.print(line))
}

fn toaster_line(build: &BuildView) -> String {
    let requirements = &build.requirements;
    let target = build.subject.target.as_ref();
    let (machine, toolchain) = (&requirements.machine, &requirements.toolchain);
    let recipes = target.map_or_else(|| "-".to_owned(), recipes);
    format!("{}: {machine} {toolchain} {recipes}\n", build.build)
}

fn table(builds: &[BuildView], now: Timestamp) -> Table {
    let mut table = Table::new([
        "BUILD",
        "TARGET",
        "MACHINE",
        "STATE",
        "HOST",
        "SUBMITTER",
        "SUBMITTED",
        "SECONDS",
        "RESULT",
    ]);
    for build in builds {
        table.add([
            build.build.to_string(),
            or_empty(build.subject.target.as_ref()),
            build.requirements.machine.to_string(),
            state(build),
            build.host.clone().unwrap_or_default(),
            build.submitter.to_string(),
            time(build.submitted),
            or_empty(build.seconds(now)),
            result(build),
        ]);
    }
    table
}

/// Returns the outcome of a build, or its state.
fn state(build: &BuildView) -> String {
    match build.outcome {
        Some(outcome) => outcome.to_string(),
        None => build.state.to_string(),
    }
}

/// Returns the reason for which a build waits, the message about its outcome, or the number of attempts that
/// were lost.
fn result(build: &BuildView) -> String {
    match (&build.why, &build.message, build.losses) {
        (Some(why), ..) => format!("waits: {why}"),
        (None, Some(message), _) => message.to_string(),
        (None, None, 0) => String::new(),
        (None, None, losses) => count(
            usize::try_from(losses).unwrap_or(usize::MAX),
            "lost attempt",
        ),
    }
}

/// Prints one build.
pub(super) fn show(build: &BuildView, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(build);
    }
    let requirements = &build.requirements;
    let lost: Vec<_> = build
        .lost
        .iter()
        .map(|it| {
            let host = it.host.as_deref().unwrap_or("a host that is gone");
            format!(
                "{} on {host} until {}: {}",
                it.epoch.0,
                time(it.ended),
                it.reason()
            )
        })
        .collect();
    output.print(&fields(&[
        ("build", build.build.to_string()),
        ("target", or_empty(build.subject.target.as_ref())),
        ("project", or_empty(build.subject.project.as_ref())),
        ("machine", requirements.machine.to_string()),
        ("revision", or_empty(build.revision.map(|it| it.0))),
        ("toolchain", requirements.toolchain.to_string()),
        ("processors", requirements.cpus.to_string()),
        ("memory", format!("{} MiB", requirements.memory_mib)),
        ("submitter", build.submitter.to_string()),
        ("priority", build.priority.0.to_string()),
        ("state", state(build)),
        ("host", build.host.clone().unwrap_or_default()),
        ("message", or_empty(build.message.as_ref())),
        ("waits", build.why.clone().unwrap_or_default()),
        ("submitted", time(build.submitted)),
        ("claimed", or_empty(build.claimed.map(time))),
        ("finished", or_empty(build.finished.map(time))),
        ("seconds", or_empty(build.seconds(Timestamp::now()))),
        ("usual seconds", or_empty(build.usual_seconds)),
        ("files", or_empty(build.files.map(FilesPlace::words))),
        ("trial", or_empty(build.trial)),
        ("lost attempts", lost.join("\n")),
    ]))
}

/// Prints the reason for which a build waits.
pub(super) fn explain(build: &BuildView, output: &Output) -> Result<(), Failure> {
    let reason = reason(build);
    if output.is_json() {
        return output.print_json(&json!({ "why": reason }));
    }
    output.print(&format!("{}\n", printable(&reason)))
}

fn reason(build: &BuildView) -> String {
    let id = build.build;
    let host = build.host.as_deref().unwrap_or("a host");
    match (build.state, &build.outcome, &build.why) {
        (BuildState::Queued, _, Some(why)) => format!("build {id} waits: {why}"),
        (BuildState::Queued, _, None) => format!("build {id} waits for a host"),
        (BuildState::Running, ..) => format!("build {id} does not wait: it runs on {host}"),
        (BuildState::Finished, Some(outcome), _) => {
            format!("build {id} does not wait: it finished with {outcome}")
        }
        (BuildState::Finished, None, _) => format!("build {id} does not wait: it has finished"),
    }
}

/// Prints the queue.
pub(super) fn queue(queue: &QueueView, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(queue);
    }
    output.status(summary(queue));
    output.print_table(&table(&queue.waiting, queue.at))
}

fn summary(queue: &QueueView) -> String {
    let number = |it: u64, noun| count(usize::try_from(it).unwrap_or(usize::MAX), noun);
    let oldest = queue.oldest.map_or_else(String::new, |it| {
        let seconds = queue.at.duration_since(it).as_secs().max(0);
        format!(", the oldest for {seconds} s")
    });
    format!(
        "{}{oldest}; {}; hosts that take builds: {}",
        number(queue.queued, "waiting build"),
        number(queue.running, "running build"),
        queue.hosts_alive,
    )
}

/// Cancels a build.
pub(super) fn cancel(
    client: &Client,
    id: BuildId,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        let build = client.farm_build(id)?;
        if build.state == BuildState::Finished {
            let text = format!("build {id} is finished: too late to cancel it");
            return Err(Failure::new(ExitStatus::Refused, text));
        }
        return output.plan(format_args!("cancel build {id}, which is {}", build.state));
    }
    client.farm_cancel(id)?;
    output.status(format_args!("cancelling build {id}"));
    Ok(())
}

/// Prints the log of a build, which its host sends.
pub(super) fn log(command: &LogCommand, client: &Client) -> Result<(), Failure> {
    let LogCommand::Log {
        build,
        attempt,
        console,
        auxiliary,
        timestamps,
        follow,
    } = command;
    let unknown = [
        ("--attempt", attempt.is_some()),
        ("--console", *console),
        ("--auxiliary", auxiliary.is_some()),
        ("--timestamps", *timestamps),
    ];
    if let Some((option, _)) = unknown.iter().find(|(_, is_set)| *is_set) {
        let text =
            format!("{option} has no meaning for a farm; ask the agent of the host with --host");
        return Err(Failure::new(ExitStatus::Usage, text));
    }
    let copied = client.farm_log(*build, follow.enabled, &mut io::stdout());
    unless_closed(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_summed_up_in_one_line() {
        let at: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let mut view = QueueView {
            at,
            queued: 0,
            oldest: None,
            running: 1,
            hosts_alive: 2,
            waiting: Vec::new(),
        };
        let none = "no waiting builds; 1 running build; hosts that take builds: 2";
        assert_eq!(summary(&view), none);
        view.queued = 3;
        view.oldest = Some("2026-11-30T11:59:00Z".parse().unwrap());
        let some =
            "3 waiting builds, the oldest for 60 s; 1 running build; hosts that take builds: 2";
        assert_eq!(summary(&view), some);
    }
}
