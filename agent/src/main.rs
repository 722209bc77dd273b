//! `buildhost-agent`: reads the settings, runs the daemon and returns an exit status.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent::daemon::{self, StartError};
use agent::settings_file::{SettingsError, SettingsFile};
use clap::{CommandFactory, Parser};
use manual::SettingsPage;

/// The host agent of Buildhost: keeps machines bootstrapped and runs builds in
/// temporary guests.
///
/// It runs in the foreground and logs to standard error. SIGTERM and SIGINT stop
/// it: running builds go back into the queue. SIGUSR2 stops it for a restart or an
/// upgrade: the guests of builds keep running and the next agent adopts them, as it does
/// after a crash. SIGHUP makes it read its settings again. Clients such as `buildhost`
/// connect to the socket `agent.sock` in the run directory.
///
/// Exit status: 0 stopped on request, 1 failed, 2 invalid command line or settings,
/// 3 refused, because another agent runs or the host lacks a requirement.
#[derive(Parser)]
#[command(name = "buildhost-agent", version)]
struct Arguments {
    /// The settings, a TOML file; every key has a default
    #[arg(long, value_name = "FILE", default_value = "/etc/buildhost/agent.toml")]
    config: PathBuf,
    /// Check the settings and the volumes that they name, and exit
    #[arg(long, conflicts_with = "example")]
    check: bool,
    /// Print a settings file that shows every key with its default, and exit
    #[arg(long)]
    example: bool,
    /// Write the manual pages below a directory, and exit
    #[arg(long, value_name = "DIR", hide = true)]
    manual: Option<PathBuf>,
}

/// The exit status of the process.
#[derive(Clone, Copy)]
enum ExitStatus {
    Success = 0,
    Failure = 1,
    Usage = 2,
    Refused = 3,
}

impl ExitStatus {
    fn of(error: &StartError) -> Self {
        match error {
            StartError::Refused(_) => Self::Refused,
            StartError::Failed { .. } => Self::Failure,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

fn main() -> ExitCode {
    run(&Arguments::parse()).into()
}

/// Writes the manual pages of the agent and of its settings below a directory.
fn write_manual(directory: &Path) -> io::Result<()> {
    manual::write_program(Arguments::command(), directory)?;
    let settings = SettingsPage {
        program: "buildhost-agent",
        description: "The settings are a TOML file, by default /etc/buildhost/agent.toml. \
             `buildhost-agent --check` checks one. After a change, `systemctl reload buildhost-agent` \
             applies the settings that can change while the agent runs, and the log names the others.",
        example: config::settings::EXAMPLE,
    };
    settings.write(directory)
}

#[expect(clippy::print_stdout, reason = "the example is the output")]
fn run(arguments: &Arguments) -> ExitStatus {
    if arguments.example {
        print!("{}", config::settings::EXAMPLE);
        return ExitStatus::Success;
    }
    if let Some(directory) = &arguments.manual {
        return match write_manual(directory) {
            Ok(()) => ExitStatus::Success,
            Err(error) => report(&error, ExitStatus::Failure),
        };
    }
    let file = SettingsFile::new(arguments.config.clone());
    let settings = match file.read() {
        Ok(settings) => settings,
        Err(error) => return report(&error, ExitStatus::Usage),
    };
    if arguments.check {
        return match daemon::check(&settings) {
            Ok(()) => ExitStatus::Success,
            Err(error) => report(&error, ExitStatus::of(&error)),
        };
    }
    let log = match agent::log::start(&settings.log) {
        Ok(log) => log,
        Err(error) => return report(&SettingsError::Filter(error), ExitStatus::Usage),
    };
    match daemon::run(settings, file, log) {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            tracing::error!(error = &error as &dyn Error, "the agent does not run");
            ExitStatus::of(&error)
        }
    }
}

/// Prints an error and returns the exit status.
#[expect(clippy::print_stderr, reason = "the log is not set up yet")]
fn report(error: &dyn Error, status: ExitStatus) -> ExitStatus {
    eprintln!("buildhost-agent: {}", sys::error_report::chain(error));
    status
}
