//! `fork`: copies of a running build that continue where it is.

use client::Client;
use config::BuildId;
use config::builds::{Build, State};
use config::join_and;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;

/// Forks a build, and prints the numbers of its copies.
pub(super) fn run(
    client: &Client,
    id: BuildId,
    copies: u32,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        let state = client.build(id)?.state;
        if state != State::Running {
            let text = format!("build {id} is {state}; only a running build can be forked");
            return Err(Failure::new(ExitStatus::Refused, text));
        }
        return output.plan(format_args!("fork build {id} into {}", count(copies)));
    }
    let forked = client.fork(id, copies)?;
    let numbers: Vec<_> = forked.iter().map(|copy| copy.id.to_string()).collect();
    let builds = if copies == 1 { "build" } else { "builds" };
    output.status(format_args!(
        "forked build {id} into {builds} {}",
        join_and(&numbers)
    ));
    if output.is_json() {
        return output.print_json(&forked);
    }
    output.print(&(numbers.join("\n") + "\n"))
}

fn count(copies: u32) -> String {
    match copies {
        1 => "1 copy".to_owned(),
        copies => format!("{copies} copies"),
    }
}

/// Returns the origin of a build that continues as a copy.
pub(super) fn origin(build: &Build) -> String {
    let Some(origin) = build.forked_from else {
        return String::new();
    };
    format!("build {}, copy {}", origin.build, origin.identity())
}
