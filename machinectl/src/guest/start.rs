//! `guest start`: submits the build of a driven guest, and waits until it runs.

use std::num::NonZeroU32;
use std::thread::sleep;

use clap::Args;
use client::Client;
use config::builds::{Build, Priority, Request, State, Submitter, Target};
use config::exec::CommandLimits;
use config::limits::SECONDS_MAX;
use config::{MachineName, SecretName, ToolchainName};
use jiff::{Span, SpanRelativeTo};

use crate::build::{POLL_INTERVAL, ResourceOptions};
use crate::exit_code::Failure;
use crate::options::DryRun;
use crate::output::Output;

/// The name of a guest that has none.
const NAME: &str = "guest";

/// The arguments of `guest start`.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The machine
    machine: MachineName,
    /// The toolchain; by default the agent's default toolchain
    #[arg(long, value_name = "NAME")]
    toolchain: Option<ToolchainName>,
    /// A name for lists, such as that of the job of another CI system
    #[arg(long, value_name = "NAME")]
    name: Option<Target>,
    /// End the guest as aborted after this time; at most that of its machine
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    limit: Option<NonZeroU32>,
    /// End the guest as aborted after this time without a command; at most the idle timeout of its
    /// machine
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    idle: Option<NonZeroU32>,
    /// The priority; builds with a higher number start first
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,
    #[command(flatten)]
    resources: ResourceOptions,
    /// Give the guest this secret; may be repeated. `secret add` adds secrets
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<SecretName>,
    /// The submitter to record; administrators only
    #[arg(long, value_name = "NAME")]
    submitter: Option<Submitter>,
    /// Print the number at once, and do not wait until the guest runs
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Start {
    fn request(&self) -> Result<Request, Failure> {
        Ok(Request {
            machine: self.machine.clone(),
            toolchain: self.toolchain.clone(),
            sources: Vec::new(),
            interactive: None,
            hold: false,
            commands: Some(CommandLimits {
                idle_seconds_max: self.idle,
                total_seconds_max: self.limit,
            }),
            target: self.name.clone().or_else(|| NAME.parse().ok()),
            priority: Priority(self.priority),
            resources: self.resources.resources()?,
            after: Vec::new(),
            secrets: self.secrets.clone(),
            submitter: self.submitter.clone(),
            coalesce: false,
            project: None,
            controller: None,
        })
    }
}

pub(super) fn run(client: &Client, arguments: &Start, output: &Output) -> Result<(), Failure> {
    let request = arguments.request()?;
    if arguments.dry_run.enabled {
        return output.plan(format_args!("start a guest of {}", arguments.machine));
    }
    let build = client.submit(&request)?.value;
    output.status(format_args!(
        "submitted build {0}; `buildhost cancel {0}` ends it",
        build.id
    ));
    if !arguments.no_wait {
        wait(client, &build, output)?;
    }
    if output.is_json() {
        return output.print_json(&client.build(build.id)?);
    }
    output.print(&format!("{}\n", build.id))
}

/// Waits until the guest of a build runs, and prints the reasons why it does not.
fn wait(client: &Client, build: &Build, output: &Output) -> Result<(), Failure> {
    let id = build.id;
    let mut last_reason = String::new();
    loop {
        let build = client.build(id)?;
        if let Some(outcome) = build.outcome {
            let text = format!(
                "build {id} finished before its guest took commands: {outcome} {}",
                build.message
            );
            return Err(Failure::new(outcome.into(), text.trim_end()));
        }
        if build.state == State::Running {
            return Ok(());
        }
        let reason = &build.message;
        if build.state == State::Queued && !reason.is_empty() && *reason != last_reason {
            output.status(format_args!("build {id} waits {reason}"));
            last_reason.clone_from(reason);
        }
        sleep(POLL_INTERVAL);
    }
}

/// Parses a time as a number of seconds. Days have 24 hours.
fn seconds(text: &str) -> Result<NonZeroU32, String> {
    let days = SpanRelativeTo::days_are_24_hours();
    let span = text
        .parse::<Span>()
        .and_then(|span| span.to_duration(days))
        .ok();
    let seconds = span.and_then(|span| u64::try_from(span.as_secs()).ok());
    let seconds = seconds.or_else(|| text.parse().ok());
    seconds
        .filter(|seconds| *seconds <= SECONDS_MAX)
        .and_then(|seconds| u32::try_from(seconds).ok())
        .and_then(NonZeroU32::new)
        .ok_or_else(|| "expected a time such as 90s, 15m, 2h or 1day".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        let parsed = |text: &str| seconds(text).map(NonZeroU32::get);
        for (text, expected) in [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200)] {
            assert_eq!(parsed(text), Ok(expected), "{text}");
        }
        assert_eq!(parsed("1day"), Ok(86400));
        for text in ["", "0", "-5m", "x", "1000y", "99999999999"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
