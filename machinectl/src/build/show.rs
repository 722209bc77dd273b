//! `builds BUILD`: everything about one build.

use std::num::NonZeroUsize;

use client::Client;
use config::builds::{Build, HoldKind, PreloadUse, Priority, State};
use config::canary::TrialResult;

use super::forecast;
use crate::exit_code::Failure;
use crate::output::{Output, count, fields, or_empty, time};

/// Prints everything about a build.
pub(super) fn run(client: &Client, build: &Build, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(build);
    }
    let forecast = if build.state == State::Queued {
        forecast::of_build(&client.queue_with_forecasts()?, build.id)
    } else {
        String::new()
    };
    output.print(&fields(&[
        ("build", build.id.to_string()),
        ("target", build.target.to_string()),
        ("state", state(build)),
        ("message", build.message.clone()),
        ("forecast", forecast),
        ("held", hold(build)),
        ("submitter", build.submitter.to_string()),
        ("schedule", or_empty(build.schedule.as_ref())),
        ("forked from", super::fork::origin(build)),
        ("controller", controller(build)),
        ("auxiliaries", auxiliaries(build)),
        ("priority", priority(build)),
        ("resources", build.resources.to_string()),
        ("after", list(&build.after, " ")),
        ("secrets", list(&build.secrets, " ")),
        ("machine", build.machine.to_string()),
        ("revision", or_empty(build.revision)),
        ("trial", trial(build)),
        ("toolchain", build.toolchain.to_string()),
        ("guest", or_empty(build.guest)),
        ("sources", sources(build)),
        ("submitted", time(build.submitted)),
        ("started", or_empty(build.started.map(time))),
        ("start", start(build)),
        ("finished", or_empty(build.finished.map(time))),
        ("attempts", build.attempts.to_string()),
        ("earlier logs", earlier_logs(build)),
        ("not before", or_empty(build.not_before.map(time))),
        ("phases", phases(build)),
        ("usage", usage(build)),
        ("packages", packages(build)),
    ]))
}

/// Returns the outcome, or the state of an unfinished build.
pub(super) fn state(build: &Build) -> String {
    match build.outcome {
        Some(outcome) => outcome.to_string(),
        None => build.state.to_string(),
    }
}

/// Returns the hold of a build with its end and the number of debug sessions.
pub(super) fn hold(build: &Build) -> String {
    let Some(held) = build.interactive.held else {
        return String::new();
    };
    let kind = match held.kind {
        HoldKind::Breakpoint => "waits at its breakpoint",
        HoldKind::Guest => "guest held",
        HoldKind::Snapshot => "snapshot held",
    };
    let until = time(held.until);
    let mut text = format!("{kind} until {until}");
    // The disk alone has none.
    if held.kind != HoldKind::Snapshot && !build.secrets.is_empty() {
        text.push_str(", with its secrets in memory");
    }
    if let Some(copies) = build.interactive.copies.map(NonZeroUsize::get) {
        text = format!("{text}, {}", count(copies, "debug session"));
    }
    text
}

/// Returns the kind of the guest's start and its duration.
pub(super) fn startup(build: &Build) -> String {
    or_empty(
        build
            .startup()
            .map(|(kind, seconds)| format!("{kind} {seconds:.2}")),
    )
}

/// Returns the kind of the guest's start, its duration, and the reason for a cold one.
fn start(build: &Build) -> String {
    let start = match (startup(build), build.cold_reason()) {
        (start, Some(reason)) if !start.is_empty() => format!("{start}, because {reason}"),
        (start, _) => start,
    };
    match build.progress.preload {
        None => start,
        Some(PreloadUse::Used) => format!("{start}, with what its checkpoint has preloaded"),
        Some(PreloadUse::Outdated) => {
            format!("{start}, without what its checkpoint has preloaded: sources differ")
        }
        Some(PreloadUse::Failed) => {
            format!("{start}, without what its checkpoint has preloaded: that has failed")
        }
    }
}

/// Returns the priority unless it is the default.
fn priority(build: &Build) -> String {
    if build.priority == Priority::default() {
        String::new()
    } else {
        build.priority.to_string()
    }
}

/// Returns the controller that gave the task, with its priority, the session and the end of the
/// lease.
fn controller(build: &Build) -> String {
    let Some(task) = &build.controller else {
        return String::new();
    };
    format!(
        "{}, priority {}, {} {}, session {}, until {}",
        task.controller,
        task.priority,
        task.package,
        task.version,
        task.session,
        time(task.expires)
    )
}

/// Returns the auxiliary machines, each with the name of its environment.
fn auxiliaries(build: &Build) -> String {
    let shown = build.auxiliaries().map(|it| match &it.environment {
        Some(environment) => format!("{} ({environment})", it.machine),
        None => it.machine.to_string(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn sources(build: &Build) -> String {
    let sources = build
        .sources
        .iter()
        .map(|source| format!("{} ({})", source.name, source.sha256));
    list(&sources.collect::<Vec<_>>(), "\n")
}

/// Returns each state with the seconds that the build spent in it.
fn phases(build: &Build) -> String {
    let phases = build.phases.windows(2).map(|pair| {
        let seconds = pair[1].at.duration_since(pair[0].at).as_secs_f64();
        format!("{} {seconds:.2}", pair[0].state)
    });
    list(&phases.collect::<Vec<_>>(), ", ")
}

/// Returns the earlier attempts whose logs are kept, with the way to read them.
fn earlier_logs(build: &Build) -> String {
    if build.earlier_logs.is_empty() {
        return String::new();
    }
    let attempts = list(&build.earlier_logs, ", ");
    format!(
        "attempt {attempts}; `buildhost log {} --attempt NUMBER`",
        build.id
    )
}

/// Returns the result of the attempt on a revision on trial.
fn trial(build: &Build) -> String {
    let Some(run) = &build.trial else {
        return String::new();
    };
    let revision = run.revision;
    match &run.result {
        None if build.outcome.is_none() => {
            format!("runs on revision {revision}, which is on trial")
        }
        None => format!("was canceled on revision {revision}, on trial then"),
        Some(TrialResult::Succeeded) => format!("succeeded on revision {revision}, on trial then"),
        Some(TrialResult::Failed { message, .. } | TrialResult::HostFailed { message }) => {
            let repeated = build.repeats_trial().then_some(", and was repeated");
            let repeated = repeated.unwrap_or_default();
            format!("failed on revision {revision}, on trial then{repeated}: {message}")
        }
    }
}

fn usage(build: &Build) -> String {
    let mut usage = Vec::new();
    if let Some(milliseconds) = build.usage.cpu_milliseconds {
        let (seconds, fraction) = (milliseconds / 1000, milliseconds % 1000);
        usage.push(format!("{seconds}.{fraction:03} s of CPU"));
    }
    if let Some(bytes) = build.usage.memory_bytes_max {
        usage.push(format!("{} MiB of memory", bytes / (1024 * 1024)));
    }
    usage.join(", ")
}

fn packages(build: &Build) -> String {
    let packages = build.packages.iter().map(|built| {
        let package = &built.package;
        format!(
            "{} {} {} {} ({})",
            package.name, package.version, built.revision, package.architecture, package.file
        )
    });
    list(&packages.collect::<Vec<_>>(), "\n")
}

fn list(items: &[impl ToString], separator: &str) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(separator)
}
