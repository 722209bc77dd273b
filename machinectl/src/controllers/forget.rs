//! Gives up the leases of a controller that was removed from the settings.

use clap::Args;
use config::ControllerName;
use config::controllers::{ForgetRequest, GivenUp};

use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The name of the controller, as `doctor` shows it
    name: ControllerName,
    #[command(flatten)]
    dry_run: DryRun,
}

pub(super) fn run(
    arguments: &Forget,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let Forget { name, dry_run } = arguments;
    let request = ForgetRequest {
        dry_run: dry_run.enabled,
    };
    let forgotten = options.client()?.forget_controller(name, request)?;
    if dry_run.enabled {
        for build in &forgotten.builds {
            output.plan(step(build))?;
        }
        return Ok(());
    }
    if output.is_json() {
        return output.print_json(&forgotten);
    }
    let count = forgotten.builds.len();
    output.status(format!(
        "forgot controller {name}; the number of its leases was {count}"
    ));
    Ok(())
}

/// Returns the step for a build.
fn step(given_up: &GivenUp) -> String {
    let GivenUp {
        build,
        package,
        ended,
    } = given_up;
    if *ended {
        format!("never report the result of build {build} ({package})")
    } else {
        format!("end build {build} ({package}), and never report its result")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_what_is_lost() {
        let mut given_up = GivenUp {
            build: config::BuildId(7),
            package: "libhello".into(),
            ended: false,
        };
        let running = "end build 7 (libhello), and never report its result";
        assert_eq!(step(&given_up), running);
        given_up.ended = true;
        let ended = "never report the result of build 7 (libhello)";
        assert_eq!(step(&given_up), ended);
    }
}
