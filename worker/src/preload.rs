//! The toolchain's `preload`, which starts in the guest of a checkpoint what builds continue with.

use std::path::{Path, PathBuf};

use config::cache;
use config::task::Preload;

use crate::cli::Settings;
use crate::log::Log;
use crate::{bootstrap, exec};

/// The name of the program.
const PROGRAM: &str = "preload";

/// Returns the path of the program; `None` if the toolchain has none.
pub(crate) fn program(toolchain: &Path) -> Option<PathBuf> {
    Some(toolchain.join(PROGRAM)).filter(|program| program.exists())
}

/// Runs the program. A failure has no consequence: the builds start without what it prepares.
pub(crate) fn run(settings: &Settings, program: &Path, request: Preload, log: &mut Log) {
    log.line("running the toolchain's `preload`");
    let mut environment = bootstrap::environment(settings);
    if request.cache {
        environment.push((cache::VARIABLE, settings.cache_address().into()));
    }
    match exec::run(program, &settings.toolchain, &environment, None, log) {
        Ok(status) if status.success() => {}
        Ok(status) => {
            exec::failure_message(PROGRAM, status, log);
        }
        Err(error) => log.line(&sys::error_report::chain(&error)),
    }
}
