//! Installs the toolchain: runs its `bootstrap` and tells the host how it went.

use std::ffi::OsString;

use config::task::{self, Outcome, TaskResult};

use crate::cli::Settings;
use crate::log::Log;
use crate::{WorkerError, exec, report};

/// The toolchain's program that installs it; it may be missing.
const ENTRY: &str = "bootstrap";

/// Runs the toolchain's `bootstrap`, if it has one, in its own directory, and puts
/// the log and [`task::BOOTSTRAP`]. Returns the outcome that the host was told.
///
/// # Errors
/// The host knows nothing of how it went.
pub fn run(settings: &Settings) -> Result<Outcome, WorkerError> {
    let mut log = settings.create_log()?;
    let result = match install(settings, &mut log) {
        Ok(result) => result,
        Err(error) => {
            let result = report::abnormal(&error);
            log.say(&result.message);
            result
        }
    };
    report::report(&settings.client, &[], log, result, task::BOOTSTRAP)
}

fn install(settings: &Settings, log: &mut Log) -> Result<TaskResult, WorkerError> {
    let mut result = TaskResult {
        status: Outcome::Success,
        message: String::new(),
        packages: Vec::new(),
    };
    let program = settings.toolchain.join(ENTRY);
    if !program.exists() {
        log.say("the toolchain has no `bootstrap`: nothing is to be done");
        return Ok(result);
    }
    log.say("running the toolchain's `bootstrap`");
    let status = exec::run(&program, &settings.toolchain, &environment(settings), log)?;
    if !status.success() {
        result.status = Outcome::Error;
        result.message = exec::failed(ENTRY, status, log);
    }
    Ok(result)
}

fn environment(settings: &Settings) -> Vec<(&'static str, OsString)> {
    vec![("BUILDHOST_WORKER", settings.worker.clone().into())]
}
