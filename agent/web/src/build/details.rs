//! The details of a build, as a list of terms with their values.

use config::builds::{Build, HoldKind, PreloadUse, StartKind};
use config::canary::TrialResult;
use config::text::join_and;

use crate::words::{duration, size};

/// Returns the terms that have a value.
pub(super) fn of(build: &Build) -> Vec<(&'static str, String)> {
    let text = |value: Option<&dyn ToString>| value.map(ToString::to_string).unwrap_or_default();
    let all = [
        ("toolchain", build.toolchain.to_string()),
        ("start", start(build)),
        (
            "guest",
            text(build.guest.as_ref().map(|it| it as &dyn ToString)),
        ),
        ("used", usage(build)),
        ("held", hold(build)),
        ("attempts", attempts(build)),
        ("trial", trial(build)),
        (
            "project",
            text(build.project.as_ref().map(|it| it as &dyn ToString)),
        ),
        (
            "schedule",
            text(build.schedule.as_ref().map(|it| it as &dyn ToString)),
        ),
        ("controller", controller(build)),
        (
            "priority",
            match build.priority.to_string() {
                usual if usual == "0" => String::new(),
                other => other,
            },
        ),
        ("resources", build.resources.to_string()),
        ("secrets", join_and(&build.secrets)),
        (
            "typed on its console",
            join_and(
                &build
                    .typists
                    .iter()
                    .map(|it| &it.submitter)
                    .collect::<Vec<_>>(),
            ),
        ),
        (
            "volume",
            build
                .volume
                .as_ref()
                .map(|it| it.display().to_string())
                .unwrap_or_default(),
        ),
    ];
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn start(build: &Build) -> String {
    let Some((kind, seconds)) = build.startup() else {
        return String::new();
    };
    let kind = match kind {
        StartKind::Cold => "cold",
        StartKind::Restored => "warm",
    };
    let mut text = format!("{kind}, {}", duration(seconds));
    if let Some(reason) = build.cold_reason() {
        text.extend([", because ", reason]);
    }
    text.push_str(match build.progress.preload {
        None => "",
        Some(PreloadUse::Used) => ", with what its checkpoint has preloaded",
        Some(PreloadUse::Outdated) => ", without what its checkpoint has preloaded: sources differ",
        Some(PreloadUse::Failed) => ", without what its checkpoint has preloaded: that has failed",
    });
    text
}

fn usage(build: &Build) -> String {
    let processor = build.usage.cpu_milliseconds;
    let parts = [
        processor.map(|it| format!("{}.{} s of processors", it / 1000, it / 100 % 10)),
        build
            .usage
            .memory_bytes_max
            .map(|it| format!("{} of memory", size(it))),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    join_and(&parts)
}

fn hold(build: &Build) -> String {
    let Some(held) = build.interactive.held else {
        return String::new();
    };
    let kind = match held.kind {
        HoldKind::Breakpoint => "it waits at its breakpoint",
        HoldKind::Guest => "its guest, suspended",
        HoldKind::Snapshot => "its snapshot",
    };
    format!(
        "{kind}, until {}",
        held.until.strftime("%Y-%m-%d %H:%M:%S UTC")
    )
}

fn attempts(build: &Build) -> String {
    match (build.attempts, build.forked_from) {
        (0 | 1, None) => String::new(),
        (attempts, None) => attempts.to_string(),
        (_, Some(origin)) => format!(
            "copy {} of {} of build {}",
            origin.number, origin.copies, origin.build
        ),
    }
}

fn trial(build: &Build) -> String {
    let Some(run) = &build.trial else {
        return String::new();
    };
    let result = match &run.result {
        None => "without a result yet".to_owned(),
        Some(TrialResult::Succeeded) => "succeeded".to_owned(),
        Some(TrialResult::Failed { message, .. } | TrialResult::HostFailed { message }) => {
            let repeated = build.repeats_trial().then_some(", and was repeated");
            format!("failed{}: {message}", repeated.unwrap_or_default())
        }
    };
    format!("on revision {}: {result}", run.revision)
}

fn controller(build: &Build) -> String {
    let task = build.controller.as_ref();
    task.map(|task| format!("{}: {} {}", task.controller, task.package, task.version))
        .unwrap_or_default()
}
