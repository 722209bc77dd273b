//! The representations of builds. docs/toaster.md explains each field.

use std::fmt::Display;

use config::BuildId;
use config::builds::{Count, Progress, State};
use config::task::Outcome;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::Facts;

/// The time from the first request of a guest until its first lines have been read, in seconds.
const UNREAD_SECONDS: i64 = 3;

/// A build with an outcome. The order of the keys is Toaster's.
#[derive(Debug, Serialize)]
pub struct Finished {
    #[serde(flatten)]
    common: CommonFields,
    outcome: &'static str,
    seconds: String,
    stop: String,
    errors: u32,
    warnings: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cooker_log: Option<String>,
}

/// A build without an outcome.
#[derive(Debug, Serialize)]
pub struct Unfinished {
    #[serde(flatten)]
    common: CommonFields,
    seconds: String,
    clone: String,
    parse: String,
    task: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cooker_log: Option<String>,
}

/// The leading fields of both kinds of builds.
#[derive(Debug, Serialize)]
struct CommonFields {
    id: u64,
    name: String,
    machine: String,
    distro: String,
    start: String,
    target: String,
    project: String,
}

/// A build with or without an outcome.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum AnyBuild {
    /// A build with an outcome.
    Finished(Finished),
    /// A build without an outcome.
    Unfinished(Unfinished),
}

/// The list of builds with an outcome.
#[derive(Debug, Serialize)]
pub struct FinishedList {
    builds: Vec<Finished>,
    count: usize,
}

impl FinishedList {
    /// Returns the list of these builds.
    pub fn new(builds: Vec<Finished>) -> Self {
        let count = builds.len();
        Self { builds, count }
    }
}

/// The list of builds without an outcome, the latest start first.
#[derive(Debug, Serialize)]
pub struct Building {
    building: Vec<Unfinished>,
    count: usize,
}

impl Building {
    /// Returns the list of these builds.
    pub fn new(builds: &[Facts], now: Timestamp) -> Self {
        let building: Vec<_> = builds.iter().map(|build| unfinished(build, now)).collect();
        let count = building.len();
        Self { building, count }
    }
}

/// The answer about one build.
#[derive(Debug, Serialize)]
pub struct OneBuild {
    /// The build, if there is one.
    pub build: Option<AnyBuild>,
}

/// An entry of the list of recent builds.
#[derive(Debug, Serialize)]
pub struct Recent {
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

fn fraction(count: Count) -> String {
    format!("{}:{}", count.done, count.total)
}

fn is_incomplete(count: Count) -> bool {
    count.done < count.total
}

/// Returns the percentage of finished tasks, rounded down.
fn task_percent(count: Count) -> u64 {
    let done = u64::from(count.done) * 100;
    done.checked_div(count.total.into()).unwrap_or(0)
}

/// Returns the percentage of fetched sources or parsed recipes. Toaster computes these with
/// floats: 29 of 100 are 28 %.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the result is at most 100 and not negative"
)]
fn float_percent(count: Count) -> u64 {
    if count.total == 0 {
        return 0;
    }
    (f64::from(count.done) / f64::from(count.total) * 100.0) as u64
}

/// Returns a build's reported progress; for each part without a report, the progress that
/// follows from the build's state. A build without a guest has made none, though an earlier
/// attempt may have reported some. Nothing is known about a guest whose log has not been read yet.
fn progress(build: &Facts, now: Timestamp) -> Progress {
    let reported = if build.state < State::Running {
        Progress::default()
    } else {
        build.progress
    };
    let is_unknown = reported == Progress::default() && is_new(build, now);
    let step = |reported: Count, done_from, total| {
        let is_done = build.state >= done_from && !is_unknown;
        let done = if is_done { total } else { 0 };
        if reported.total == 0 {
            Count { done, total }
        } else {
            reported
        }
    };
    let (errors, warnings) = issues(build.outcome, reported.errors, reported.warnings);
    Progress {
        clone: step(reported.clone, State::Running, build.sources),
        parse: step(reported.parse, State::Running, 1),
        task: step(reported.task, State::Finished, 1),
        errors,
        warnings,
        preload: reported.preload,
    }
}

/// Returns true if the guest of a build has just requested its task.
fn is_new(build: &Facts, now: Timestamp) -> bool {
    let since = build.contacted;
    build.state == State::Running
        && since.is_some_and(|since| now.duration_since(since).as_secs() < UNREAD_SECONDS)
}

/// Returns the reported numbers of errors and warnings, at least one if the outcome implies it.
fn issues(outcome: Option<Outcome>, errors: u32, warnings: u32) -> (u32, u32) {
    match outcome {
        Some(Outcome::Error | Outcome::Abnormal) => (errors.max(1), warnings),
        Some(Outcome::Warning) => (errors, warnings.max(1)),
        _ => (errors, warnings),
    }
}

/// Returns what stands for Toaster's names: the submitter for the project of a build without one.
fn names(build: &Facts) -> [&dyn Display; 4] {
    let project = build.project.as_ref();
    let project = project.map_or(&build.submitter as &dyn Display, |name| name);
    [&build.machine, &build.toolchain, &build.target, project]
}

/// Returns the representation of a build with this outcome.
pub fn finished(build: &Facts, outcome: Outcome) -> Finished {
    let start = build.start();
    let stop = build.finished.unwrap_or(start);
    let progress = build.progress;
    let (errors, warnings) = issues(Some(outcome), progress.errors, progress.warnings);
    Finished {
        common: common_fields(build.id, names(build), start),
        outcome: outcome_name(outcome),
        seconds: seconds(start, stop),
        stop: time(stop),
        errors,
        warnings,
        cooker_log: None,
    }
}

/// Returns the representation of a build without an outcome.
pub fn unfinished(build: &Facts, now: Timestamp) -> Unfinished {
    let start = build.start();
    let progress = progress(build, now);
    Unfinished {
        common: common_fields(build.id, names(build), start),
        seconds: seconds(start, now),
        clone: fraction(progress.clone),
        parse: fraction(progress.parse),
        task: fraction(progress.task),
        cooker_log: None,
    }
}

/// Returns the representation of a single build, which has the place of its log.
pub fn with_log(build: &Facts, now: Timestamp, log: String) -> AnyBuild {
    let log = Some(log);
    match build.outcome {
        Some(outcome) => AnyBuild::Finished(Finished {
            cooker_log: log,
            ..finished(build, outcome)
        }),
        None => AnyBuild::Unfinished(Unfinished {
            cooker_log: log,
            ..unfinished(build, now)
        }),
    }
}

/// Returns a build's entry in the list of recent builds, with times of day in `zone` and the paths of an
/// API, such as `/api/v1`.
pub fn recent(
    (build, api): (&Facts, &str),
    is_cancelling: bool,
    now: Timestamp,
    zone: &TimeZone,
) -> Recent {
    let progress = progress(build, now);
    let page = format!("/builds/{}", build.id);
    let url = format!("{api}{page}");
    let targets: Vec<_> = build.target.names().collect();
    let start = build.start();
    let completed = build.finished.unwrap_or(start);
    let is_day_old = now.duration_since(completed).as_secs() >= 24 * 60 * 60;
    let seconds = micros(build.finished.unwrap_or(now)) - micros(start);
    let seconds = seconds / 1_000_000;
    Recent {
        id: build.id.0,
        dashboard_url: page.clone(),
        buildrequest_id: Some(build.id.0),
        recipes_parsed_percentage: float_percent(progress.parse),
        repos_cloned_percentage: float_percent(progress.clone),
        progress_item: String::new(),
        tasks_complete_percentage: match build.outcome.map(outcome_name) {
            None => task_percent(progress.task),
            Some("Cancelled") => 0,
            Some(_) => 100,
        },
        state: state_name(build, is_cancelling, &progress),
        errors: progress.errors,
        dashboard_errors_url: format!("{page}#errors"),
        warnings: progress.warnings,
        dashboard_warnings_url: format!("{page}#warnings"),
        buildtime: format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
        buildtime_url: page,
        rebuild_url: format!("{api}/builds"),
        cancel_url: format!("{url}/cancel"),
        is_default_project_build: build.project.is_none(),
        build_targets_json: serde_json::to_string_pretty(&targets)
            .unwrap_or_default()
            .replace("</", "<\\/"),
        completed_on: completed
            .to_zoned(zone.clone())
            .strftime(if is_day_old {
                "%d/%m/%Y %H:%M"
            } else {
                "%H:%M"
            })
            .to_string(),
        targets_abbreviated: abbreviated(&targets),
        targets: sorted(&targets).join(" "),
    }
}

/// Returns targets in Toaster's order.
fn sorted<'a>(targets: &[&'a str]) -> Vec<&'a str> {
    let mut sorted = targets.to_vec();
    sorted.sort_unstable();
    sorted
}

/// Returns the first target in Toaster's order, and the number of the others: `a-img +1`.
fn abbreviated(targets: &[&str]) -> String {
    match sorted(targets).as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first, others @ ..] => format!("{first} +{}", others.len()),
    }
}

/// Returns a time in microseconds, Toaster's precision.
pub fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn common_fields(id: BuildId, names: [&dyn Display; 4], start: Timestamp) -> CommonFields {
    let [machine, distro, target, project] = names.map(ToString::to_string);
    CommonFields {
        id: id.0,
        name: start.strftime("%Y%m%d%H%M%S").to_string(),
        machine,
        distro,
        start: time(start),
        target,
        project,
    }
}

/// Returns Toaster's name for an outcome.
fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Skip | Outcome::Success | Outcome::Warning => "Succeeded",
        Outcome::Error | Outcome::Abnormal => "Failed",
        Outcome::Abort | Outcome::Interrupt => "Cancelled",
    }
}

/// Returns Toaster's name for the state of a build. The order of the arms is Toaster's
/// (`Build.get_state`): a build is *starting* when its recipes are parsed and no task has ended.
/// One that reports no recipes has no such state.
fn state_name(build: &Facts, is_cancelling: bool, progress: &Progress) -> &'static str {
    let reports_recipes = build.progress.parse.total > 0;
    match (build.outcome, build.state) {
        (Some(outcome), _) => outcome_name(outcome),
        (None, _) if is_cancelling => "Cancelling",
        (None, State::Queued) => "Queued",
        (None, _) if is_incomplete(progress.clone) => "Cloning",
        (None, _) if is_incomplete(progress.parse) => "Parsing",
        (None, _) if reports_recipes && progress.task.done == 0 => "Starting",
        (None, _) => "In Progress",
    }
}

/// Returns a time in ISO 8601 with truncated milliseconds, which whole seconds omit.
fn time(time: Timestamp) -> String {
    let micros = micros(time).rem_euclid(1_000_000);
    let whole = time.strftime("%Y-%m-%dT%H:%M:%S");
    if micros == 0 {
        format!("{whole}Z")
    } else {
        format!("{whole}.{:03}Z", micros / 1000)
    }
}

/// Returns a duration in seconds with three decimals.
#[expect(
    clippy::cast_precision_loss,
    reason = "Toaster computes with a float, too, and rounds alike"
)]
fn seconds(from: Timestamp, to: Timestamp) -> String {
    format!("{:.3}", (micros(to) - micros(from)) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use config::builds::{Build, Submitter};

    use super::*;

    fn count(done: u32, total: u32) -> Count {
        Count { done, total }
    }

    fn build(target: &str, state: State) -> Build {
        let text = format!(
            r#"{{"machine": "m", "target": "{target}", "sources": [{{"name": "a", "sha256": "{}"}}]}}"#,
            "0".repeat(64)
        );
        let request = serde_json::from_str(&text).unwrap();
        let task = "0".repeat(64).parse().unwrap();
        let (toolchain, now) = ("poky".parse().unwrap(), Timestamp::UNIX_EPOCH);
        let mut build = Build::new(BuildId(1), request, toolchain, task, Submitter::root(), now);
        build.state = state;
        build
    }

    fn recent_of(build: &Build) -> Recent {
        recent(
            (&build.into(), "/api/v1"),
            false,
            Timestamp::UNIX_EPOCH,
            &TimeZone::UTC,
        )
    }

    #[test]
    fn percentages_are_rounded_as_toaster_rounds_them() {
        for (done, total, float, whole) in [
            (29, 100, 28, 29),
            (57, 100, 56, 57),
            (58, 100, 57, 58),
            (29, 50, 57, 58),
            (1, 3, 33, 33),
            (7, 7, 100, 100),
            (0, 0, 0, 0),
        ] {
            let it = count(done, total);
            assert_eq!((float_percent(it), task_percent(it)), (float, whole));
        }
    }

    #[test]
    fn the_states_of_a_build_that_reports_its_progress_have_toasters_order() {
        let mut build = build("a", State::Queued);
        let mut states = vec![recent_of(&build).state];
        build.state = State::Starting;
        states.push(recent_of(&build).state);
        build.state = State::Running;
        for (parse, task) in [
            (count(0, 1), count(0, 0)),
            (count(3, 9), count(0, 0)),
            (count(9, 9), count(0, 0)),
            (count(9, 9), count(0, 16)),
            (count(9, 9), count(1, 16)),
        ] {
            (build.progress.parse, build.progress.task) = (parse, task);
            states.push(recent_of(&build).state);
        }
        build.state = State::Storing;
        states.push(recent_of(&build).state);
        states.dedup();
        assert_eq!(
            states,
            ["Queued", "Cloning", "Parsing", "Starting", "In Progress"]
        );
    }

    #[test]
    fn a_build_that_reports_nothing_is_in_progress_while_it_runs() {
        assert_eq!(recent_of(&build("a", State::Running)).state, "In Progress");
    }

    #[test]
    fn a_build_is_cloning_until_its_log_has_been_read() {
        let mut build = build("a", State::Queued);
        let at = |second| Timestamp::from_second(second).unwrap();
        build.enter(State::Starting, at(1)).unwrap();
        build.enter(State::Running, at(2)).unwrap();
        let state = |build: &Build, now| {
            recent((&build.into(), "/api/v1"), false, at(now), &TimeZone::UTC).state
        };
        assert_eq!(state(&build, 4), "Cloning");
        assert_eq!(state(&build, 5), "In Progress");
        build.progress.parse = count(0, 1);
        assert_eq!(state(&build, 4), "Parsing");
    }

    #[test]
    fn a_build_that_waits_again_has_no_progress_of_its_earlier_attempt() {
        let mut build = build("a", State::Queued);
        build.progress = Progress {
            clone: count(1, 1),
            parse: count(9, 9),
            task: count(5, 16),
            errors: 2,
            warnings: 3,
            preload: None,
        };
        for state in [State::Queued, State::Starting] {
            build.state = state;
            let shown = unfinished(&(&build).into(), Timestamp::UNIX_EPOCH);
            assert_eq!(
                (&*shown.clone, &*shown.parse, &*shown.task),
                ("0:1", "0:1", "0:1")
            );
            assert_eq!(recent_of(&build).errors, 0);
        }
    }

    #[test]
    fn several_targets_are_shown_as_toaster_shows_them() {
        let shown = recent_of(&build("b-img a-img:do_x", State::Running));
        assert_eq!(shown.targets, "a-img:do_x b-img");
        assert_eq!(shown.targets_abbreviated, "a-img:do_x +1");
        assert_eq!(
            shown.build_targets_json,
            "[\n  \"b-img\",\n  \"a-img:do_x\"\n]"
        );
        let shown = recent_of(&build("a-img", State::Running));
        assert_eq!(
            (&*shown.targets, &*shown.targets_abbreviated),
            ("a-img", "a-img")
        );
    }
}
