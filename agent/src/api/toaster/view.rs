//! What Toaster's readers see of a build. docs/toaster.md tells what each of our
//! words means to them.

use std::fmt::Display;
use std::path::Path;

use config::BuildId;
use config::builds::{Build, Count, Progress, State};
use config::task::Outcome;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::records::Ended;

/// A build that has an outcome. The order of the keys is Toaster's.
#[derive(Debug, Serialize)]
pub(super) struct Finished {
    #[serde(flatten)]
    head: Head,
    outcome: &'static str,
    seconds: String,
    stop: String,
    errors: u32,
    warnings: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cooker_log: Option<String>,
}

/// A build that has none yet.
#[derive(Debug, Serialize)]
pub(super) struct Building {
    #[serde(flatten)]
    head: Head,
    seconds: String,
    clone: String,
    parse: String,
    task: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cooker_log: Option<String>,
}

/// What every build begins with.
#[derive(Debug, Serialize)]
struct Head {
    id: u64,
    name: String,
    machine: String,
    distro: String,
    start: String,
    target: String,
    project: String,
}

/// One of the two.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Either {
    /// With an outcome.
    Finished(Finished),
    /// Without one.
    Building(Building),
}

/// A build among the most recent ones.
#[derive(Debug, Serialize)]
pub(super) struct Recent {
    id: u64,
    dashboard_url: String,
    buildrequest_id: Option<u64>,
    recipes_parsed_percentage: u64,
    repos_cloned_percentage: u64,
    progress_item: String,
    tasks_complete_percentage: u64,
    state: &'static str,
    errors: u32,
    dashboard_errors_url: String,
    warnings: u32,
    dashboard_warnings_url: String,
    buildtime: String,
    buildtime_url: String,
    rebuild_url: String,
    cancel_url: String,
    is_default_project_build: bool,
    build_targets_json: String,
    completed_on: String,
    targets: String,
    targets_abbreviated: String,
}

fn words(count: Count) -> String {
    format!("{}:{}", count.done, count.total)
}

fn is_short(count: Count) -> bool {
    count.done < count.total
}

fn percent(count: Count) -> u64 {
    let done = u64::from(count.done) * 100;
    done.checked_div(count.total.into()).unwrap_or(0)
}

/// How far a build has come: what it has told, or else what follows from its state.
fn progress(build: &Build) -> Progress {
    let told = build.progress;
    let step = |told: Count, reached, total| {
        let done = if build.state >= reached { total } else { 0 };
        if told.total == 0 {
            Count { done, total }
        } else {
            told
        }
    };
    let sources = u32::try_from(build.sources.len()).unwrap_or(u32::MAX);
    let (errors, warnings) = faults(build.outcome, told.errors, told.warnings);
    Progress {
        clone: step(told.clone, State::Running, sources),
        parse: step(told.parse, State::Running, 1),
        task: step(told.task, State::Finished, 1),
        errors,
        warnings,
    }
}

/// The errors and warnings of a build: those that it spoke of, and one at least if it
/// ended so.
fn faults(outcome: Option<Outcome>, errors: u32, warnings: u32) -> (u32, u32) {
    match outcome {
        Some(Outcome::Error | Outcome::Abnormal) => (errors.max(1), warnings),
        Some(Outcome::Warning) => (errors, warnings.max(1)),
        _ => (errors, warnings),
    }
}

/// A build that has an outcome.
pub(super) fn finished(build: &Ended) -> Finished {
    let start = begun(build);
    let stop = build.finished.unwrap_or(start);
    let (errors, warnings) = faults(Some(build.outcome), build.errors, build.warnings);
    let names: [&dyn Display; 4] = [
        &build.machine,
        &build.toolchain,
        &build.target,
        &build.submitter,
    ];
    Finished {
        head: head(build.id, names, start),
        outcome: word(build.outcome),
        seconds: seconds(start, stop),
        stop: time(stop),
        errors,
        warnings,
        cooker_log: None,
    }
}

/// A build that has no outcome yet.
pub(super) fn building(build: &Build, now: Timestamp) -> Building {
    let progress = progress(build);
    let names: [&dyn Display; 4] = [
        &build.machine,
        &build.toolchain,
        &build.target,
        &build.submitter,
    ];
    Building {
        head: head(build.id, names, started(build)),
        seconds: seconds(started(build), now),
        clone: words(progress.clone),
        parse: words(progress.parse),
        task: words(progress.task),
        cooker_log: None,
    }
}

/// A build by itself, which tells where its log lies.
pub(super) fn single(build: &Build, now: Timestamp, log: &Path) -> Either {
    let log = Some(log.display().to_string());
    match Ended::of(build) {
        Some(ended) => Either::Finished(Finished {
            cooker_log: log,
            ..finished(&ended)
        }),
        None => Either::Building(Building {
            cooker_log: log,
            ..building(build, now)
        }),
    }
}

/// A build among the most recent ones, at `now`, in a time zone.
pub(super) fn recent(build: &Build, cancelling: bool, now: Timestamp, zone: &TimeZone) -> Recent {
    let progress = progress(build);
    let url = format!("/api/v1/builds/{}", build.id);
    let target = build.target.to_string();
    let completed = build.finished.unwrap_or_else(|| started(build));
    let day_old = now.duration_since(completed).as_secs() >= 24 * 60 * 60;
    let seconds = micros(build.finished.unwrap_or(now)) - micros(started(build));
    let seconds = seconds / 1_000_000;
    Recent {
        id: build.id.0,
        dashboard_url: url.clone(),
        buildrequest_id: Some(build.id.0),
        recipes_parsed_percentage: percent(progress.parse),
        repos_cloned_percentage: percent(progress.clone),
        progress_item: String::new(),
        tasks_complete_percentage: match build.outcome.map(word) {
            None => percent(progress.task),
            Some("Cancelled") => 0,
            Some(_) => 100,
        },
        state: state(build, cancelling, &progress),
        errors: progress.errors,
        dashboard_errors_url: format!("{url}#errors"),
        warnings: progress.warnings,
        dashboard_warnings_url: format!("{url}#warnings"),
        buildtime: format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
        buildtime_url: url.clone(),
        rebuild_url: "/api/v1/builds".to_owned(),
        cancel_url: format!("{url}/cancel"),
        is_default_project_build: true,
        build_targets_json: serde_json::to_string_pretty(&[&target]).unwrap_or_default(),
        completed_on: completed
            .to_zoned(zone.clone())
            .strftime(if day_old { "%d/%m/%Y %H:%M" } else { "%H:%M" })
            .to_string(),
        targets_abbreviated: target.clone(),
        targets: target,
    }
}

/// When a build counts as begun: when its last guest was started, or else when it
/// was asked for.
pub(super) fn started(build: &Build) -> Timestamp {
    build.started.unwrap_or(build.submitted)
}

/// The same of one that has ended.
pub(super) fn begun(build: &Ended) -> Timestamp {
    build.started.unwrap_or(build.submitted)
}

/// A time in microseconds, which is all that Toaster keeps of it.
pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn head(id: BuildId, names: [&dyn Display; 4], start: Timestamp) -> Head {
    let [machine, distro, target, project] = names.map(ToString::to_string);
    Head {
        id: id.0,
        name: start.strftime("%Y%m%d%H%M%S").to_string(),
        machine,
        distro,
        start: time(start),
        target,
        project,
    }
}

/// Toaster's word for an outcome.
fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Skip | Outcome::Success | Outcome::Warning => "Succeeded",
        Outcome::Error | Outcome::Abnormal => "Failed",
        Outcome::Abort | Outcome::Interrupt => "Cancelled",
    }
}

/// Toaster's word for how far a build has come, found in Toaster's order.
fn state(build: &Build, cancelling: bool, progress: &Progress) -> &'static str {
    match (build.outcome, build.state) {
        (Some(outcome), _) => word(outcome),
        (None, _) if cancelling => "Cancelling",
        (None, State::Queued) => "Queued",
        (None, State::Starting) => "Starting",
        (None, _) if is_short(progress.clone) => "Cloning",
        (None, _) if is_short(progress.parse) => "Parsing",
        (None, _) => "In Progress",
    }
}

/// ISO 8601 with the milliseconds cut off, and left out when the second is whole.
fn time(time: Timestamp) -> String {
    let micros = micros(time).rem_euclid(1_000_000);
    let whole = time.strftime("%Y-%m-%dT%H:%M:%S");
    if micros == 0 {
        format!("{whole}Z")
    } else {
        format!("{whole}.{:03}Z", micros / 1000)
    }
}

/// The time between two, with three decimals.
#[expect(
    clippy::cast_precision_loss,
    reason = "Toaster's own way through a float rounds the same"
)]
fn seconds(from: Timestamp, to: Timestamp) -> String {
    format!("{:.3}", (micros(to) - micros(from)) as f64 / 1e6)
}
