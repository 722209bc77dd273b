//! `buildhost-agent`: reads the settings, runs the daemon and returns an exit status.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use agent::daemon::{self, StartError};
use clap::{CommandFactory, Parser};
use config::settings::Settings;
use tracing_subscriber::EnvFilter;

/// The host agent of Buildhost: keeps machines bootstrapped and runs builds in
/// temporary guests.
///
/// It runs in the foreground and logs to standard error. SIGTERM and SIGINT stop
/// it: running builds go back into the queue. SIGHUP stops it for a restart or an
/// upgrade: the guests of builds keep running and the next agent adopts them, as it does
/// after a crash. Clients such as `buildhost` connect to the socket `agent.sock`
/// in the run directory.
///
/// Exit status: 0 stopped on request, 1 failed, 2 invalid command line or settings,
/// 3 refused, because another agent runs or the host lacks a requirement.
#[derive(Parser)]
#[command(name = "buildhost-agent", version)]
struct Arguments {
    /// The settings, a TOML file; every key has a default
    #[arg(long, value_name = "FILE", default_value = "/etc/buildhost/agent.toml")]
    config: PathBuf,
    /// Check the settings and exit
    #[arg(long, conflicts_with = "example")]
    check: bool,
    /// Print a settings file that shows every key with its default, and exit
    #[arg(long)]
    example: bool,
    /// Write the manual page into a directory, and exit
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

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

fn main() -> ExitCode {
    run(&Arguments::parse()).into()
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the log is not set up yet"
)]
fn run(arguments: &Arguments) -> ExitStatus {
    if arguments.example {
        print!("{}", config::settings::EXAMPLE);
        return ExitStatus::Success;
    }
    if let Some(directory) = &arguments.manual {
        return match clap_mangen::generate_to(Arguments::command(), directory) {
            Ok(()) => ExitStatus::Success,
            Err(error) => {
                eprintln!("buildhost-agent: cannot write the manual page: {error}");
                ExitStatus::Failure
            }
        };
    }
    let path = arguments.config.display();
    let text = match sys::trusted::read_text(&arguments.config) {
        Ok(text) => text,
        Err(error) => {
            eprintln!(
                "buildhost-agent: cannot read the settings {path}: {error}; `buildhost-agent --example` prints an example"
            );
            return ExitStatus::Usage;
        }
    };
    let settings = match Settings::parse(&text) {
        Ok(settings) => settings,
        Err(faults) => {
            for fault in faults {
                eprintln!("{path}:{}: {}", fault.line, fault.text);
            }
            return ExitStatus::Usage;
        }
    };
    if arguments.check {
        return ExitStatus::Success;
    }
    if let Err(error) = start_log(&settings) {
        eprintln!("buildhost-agent: the setting log.filter cannot be used: {error}");
        return ExitStatus::Usage;
    }
    match daemon::run(settings) {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            tracing::error!(error = &error as &dyn Error, "the agent does not run");
            match error {
                StartError::Refused(_) => ExitStatus::Refused,
                StartError::Failed { .. } => ExitStatus::Failure,
            }
        }
    }
}

fn start_log(settings: &Settings) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(&settings.log.filter)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    if settings.log.json {
        subscriber.json().init();
    } else {
        subscriber.init();
    }
    Ok(())
}
