//! The time limits of guests.

use std::time::Duration;

use config::builds::Build;
use config::limits::Limits;
use config::machine::Machine;
use config::settings::Settings;
use config::{ImageKey, MachineName};

/// Returns the time limits of the guest that runs an attempt at a build: a restored one has
/// less time for its first contact.
pub(super) fn of_attempt(settings: &Settings, build: &Build, machine: &Machine) -> Limits {
    with_restore(settings, build, of_build(settings, build, machine))
}

/// Shortens the time limits of a build's guest if it was restored.
pub(super) fn with_restore(settings: &Settings, build: &Build, cold: Limits) -> Limits {
    if !build.restored {
        return cold;
    }
    Limits {
        start: settings.guests.restore_limit,
        ..cold
    }
}

/// Returns the time limits of a guest of a build that starts cold.
pub(super) fn of_build(settings: &Settings, build: &Build, machine: &Machine) -> Limits {
    let guests = &settings.guests;
    settings
        .builds
        .limits
        .of(&build.machine, machine.limits, &guests.limits)
}

/// Returns the time limits of an auxiliary guest of a build, of which only that of its start counts.
pub(super) fn of_auxiliary(settings: &Settings, name: &MachineName, machine: &Machine) -> Limits {
    let guests = &settings.guests;
    settings
        .builds
        .limits
        .of(name, machine.limits, &guests.limits)
}

/// Returns the time limits of the guest of a bootstrap.
pub(super) fn of_bootstrap(settings: &Settings, key: &ImageKey, machine: &Machine) -> Limits {
    let guests = &settings.guests;
    settings
        .bootstrap
        .limits
        .of(&key.machine, machine.limits, &guests.limits)
}

/// Returns the time in which the guest of a bootstrap must shut down after its result.
pub(super) fn shutdown_of_bootstrap(
    settings: &Settings,
    key: &ImageKey,
    machine: &Machine,
) -> Duration {
    let rules = &settings.guests.limits;
    let overrides = machine.limits.overridden(&key.machine, rules);
    overrides
        .shutdown
        .unwrap_or(settings.bootstrap.shutdown_limit)
}
