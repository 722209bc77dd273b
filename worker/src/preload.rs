//! The toolchain's `preload`, which starts in the guest of a checkpoint what builds continue with.

use std::path::Path;

use config::task::Preload;
use config::{cache, hashserv};

use crate::cli::Settings;
use crate::log::Log;
use crate::{bootstrap, exec};

/// The name of the program.
const PROGRAM: &str = "preload";

/// Returns the function that runs the program; `None` if the toolchain has none.
pub(crate) fn of(settings: &Settings) -> Option<impl FnOnce(Preload, &mut Log)> {
    let program = settings.toolchain.join(PROGRAM);
    let is_there = program.exists();
    is_there.then_some(move |request, log: &mut Log| run(settings, &program, request, log))
}

/// Runs the program. A failure has no consequence: the builds start without what it prepares.
fn run(settings: &Settings, program: &Path, request: Preload, log: &mut Log) {
    log.line("running the toolchain's `preload`");
    let mut environment = bootstrap::environment(settings);
    if request.cache {
        environment.push((cache::VARIABLE, settings.cache_address().into()));
    }
    if request.hashserv {
        environment.push((hashserv::VARIABLE, settings.hashserv_address().into()));
    }
    match exec::run(program, &settings.toolchain, &environment, None, log) {
        Ok(status) if status.success() => {}
        Ok(status) => {
            exec::failure_message(PROGRAM, status, log);
        }
        Err(error) => log.line(&sys::error_report::chain(&error)),
    }
}
