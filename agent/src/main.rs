//! `buildhost-agent`: reads the settings, runs the daemon, ends with a meaning.

use std::path::PathBuf;
use std::process::ExitCode;

use agent::daemon::{self, StartError};
use clap::{CommandFactory, Parser};
use config::settings::Settings;
use tracing_subscriber::EnvFilter;

/// The host agent of Buildhost: keeps machines bootstrapped and runs builds in
/// throw-away guests.
///
/// It runs in the foreground and logs to standard error. SIGTERM and SIGINT stop
/// it: running builds go back into the queue. SIGHUP stops it for a restart or an
/// upgrade: the guests of builds run on, and the next agent takes them up, as it
/// does after a crash. Clients find it at the socket `agent.sock` in its run
/// directory; `machinectl` is one.
///
/// Exit status: 0 stopped as asked, 1 failed, 2 bad command line or settings,
/// 3 refused, because another agent runs or the host lacks something.
#[derive(Parser)]
#[command(name = "buildhost-agent", version)]
struct Arguments {
    /// The settings, a TOML file; every key has a default
    #[arg(long, value_name = "FILE", default_value = "/etc/buildhost/agent.toml")]
    config: PathBuf,
    /// Check the settings and stop
    #[arg(long, conflicts_with = "example")]
    check: bool,
    /// Print a settings file that shows every key with its default, and stop
    #[arg(long)]
    example: bool,
    /// Write the manual page into a directory, and stop
    #[arg(long, value_name = "DIR", hide = true)]
    manual: Option<PathBuf>,
}

/// What the shell sees.
#[derive(Clone, Copy)]
enum Ending {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Refused = 3,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}

fn main() -> ExitCode {
    run(&Arguments::parse()).into()
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the program's own edge"
)]
fn run(arguments: &Arguments) -> Ending {
    if arguments.example {
        print!("{}", config::settings::EXAMPLE);
        return Ending::Done;
    }
    if let Some(directory) = &arguments.manual {
        return match clap_mangen::generate_to(Arguments::command(), directory) {
            Ok(()) => Ending::Done,
            Err(error) => {
                eprintln!("buildhost-agent: cannot write the manual page: {error}");
                Ending::Failed
            }
        };
    }
    let path = arguments.config.display();
    let text = match std::fs::read_to_string(&arguments.config) {
        Ok(text) => text,
        Err(error) => {
            eprintln!(
                "buildhost-agent: cannot read the settings {path}: {error}; `buildhost-agent --example` prints some to begin with"
            );
            return Ending::Usage;
        }
    };
    let settings = match Settings::parse(&text) {
        Ok(settings) => settings,
        Err(faults) => {
            for fault in faults {
                eprintln!("{path}:{}: {}", fault.line, fault.text);
            }
            return Ending::Usage;
        }
    };
    if arguments.check {
        return Ending::Done;
    }
    if let Err(error) = log(&settings) {
        eprintln!("buildhost-agent: the setting log.filter cannot be used: {error}");
        return Ending::Usage;
    }
    match daemon::run(settings) {
        Ok(()) => Ending::Done,
        Err(error) => {
            tracing::error!("{}", daemon::words(&error));
            match error {
                StartError::Refused(_) => Ending::Refused,
                StartError::Failed { .. } => Ending::Failed,
            }
        }
    }
}

fn log(settings: &Settings) -> Result<(), tracing_subscriber::filter::ParseError> {
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
