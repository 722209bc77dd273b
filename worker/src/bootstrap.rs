//! Installs the toolchain: runs its `bootstrap` and reports the result.

use std::ffi::OsString;

use config::task::{self, Outcome, TaskResult};

use crate::cli::{PR_HOST, Settings};
use crate::log::Log;
use crate::{WorkerError, exec, report};

/// The toolchain's program that installs it. A toolchain may have none.
const PROGRAM: &str = "bootstrap";

/// Runs the toolchain's `bootstrap`, if there is one, in the toolchain's directory. Puts the
/// log and [`task::BOOTSTRAP`], and returns the reported outcome.
///
/// # Errors
/// The result could not be reported.
pub fn run(settings: &Settings) -> Result<Outcome, WorkerError> {
    let mut log = settings.create_log()?;
    let result = install(settings, &mut log).unwrap_or_else(|error| {
        let result = report::failure(&error);
        log.line(&result.message);
        result
    });
    report::report(&settings.client, &[], log, result, task::BOOTSTRAP)
}

fn install(settings: &Settings, log: &mut Log) -> Result<TaskResult, WorkerError> {
    let mut result = TaskResult::new(Outcome::Success);
    let program = settings.toolchain.join(PROGRAM);
    if !program.exists() {
        log.line("the toolchain has no `bootstrap`: there is nothing to do");
        return Ok(result);
    }
    log.line("running the toolchain's `bootstrap`");
    let status = exec::run(
        &program,
        &settings.toolchain,
        &environment(settings),
        None,
        log,
    )?;
    if !status.success() {
        result.status = Outcome::Error;
        result.message = exec::failure_message(PROGRAM, status, log);
    }
    Ok(result)
}

/// Returns the environment of the toolchain's programs that run before a build.
pub(crate) fn environment(settings: &Settings) -> Vec<(&'static str, OsString)> {
    vec![
        ("BUILDHOST_WORKER", settings.worker.clone().into()),
        (PR_HOST, settings.pr_host.to_string().into()),
    ]
}
