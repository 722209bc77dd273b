//! The time limits of guests that start cold.

use config::builds::Build;
use config::limits::Limits;
use config::machine::Machine;
use config::settings::Settings;

use crate::state::ImageKey;

/// Returns the time limits of the guest of a build.
pub(super) fn of_build(settings: &Settings, build: &Build, machine: &Machine) -> Limits {
    let guests = &settings.guests;
    settings
        .builds
        .limits
        .of(&build.machine, machine.limits, &guests.limits)
}

/// Returns the time limits of the guest of a bootstrap.
pub(super) fn of_bootstrap(settings: &Settings, key: &ImageKey, machine: &Machine) -> Limits {
    let guests = &settings.guests;
    settings
        .bootstrap
        .limits
        .of(&key.machine, machine.limits, &guests.limits)
}
