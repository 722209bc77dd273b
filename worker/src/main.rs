//! `buildhost-worker`: parses its command line, runs one command, and exits with its status.

use std::io::{self, Write};
use std::process::ExitCode;

use config::task::Outcome;
use sys::error_report::chain;
use worker::cli::{self, Command};
use worker::{bootstrap, build, fetch, pr, shell};

/// The exit status, as `--help` describes it.
#[derive(Clone, Copy)]
enum ExitStatus {
    Success = 0,
    Failure = 1,
    Abnormal = 2,
    Unreported = 3,
    Usage = 64,
}

fn main() -> ExitCode {
    let status = run().unwrap_or_else(|error| {
        print_error(error.as_ref());
        ExitStatus::Unreported
    });
    ExitCode::from(status as u8)
}

fn run() -> Result<ExitStatus, Box<dyn std::error::Error>> {
    let worker = std::env::current_exe()?;
    let pr_host = std::env::var(cli::PR_HOST).ok();
    let command = match cli::parse(std::env::args_os().skip(1), worker, pr_host) {
        Ok(command) => command,
        Err(error) => {
            print_error(&error);
            return Ok(ExitStatus::Usage);
        }
    };
    let mut stdout = io::stdout();
    match command {
        Command::Bootstrap(settings) => Ok(exit_status(bootstrap::run(&settings)?)),
        Command::Build(settings) => Ok(exit_status(build::run(&settings)?)),
        Command::Shell => Err(shell::exec_error(&shell::exec_shell()).into()),
        Command::Pr(server, query) => {
            writeln!(stdout, "{}", pr::get(server, &query)?)?;
            Ok(ExitStatus::Success)
        }
        Command::Fetch(client, name, file) => {
            fetch::run(&client, &name, &file)?;
            Ok(ExitStatus::Success)
        }
        Command::Help => {
            stdout.write_all(cli::HELP.as_bytes())?;
            Ok(ExitStatus::Success)
        }
        Command::Version => {
            writeln!(stdout, "buildhost-worker {}", env!("CARGO_PKG_VERSION"))?;
            Ok(ExitStatus::Success)
        }
    }
}

fn exit_status(outcome: Outcome) -> ExitStatus {
    match outcome {
        Outcome::Skip | Outcome::Success | Outcome::Warning => ExitStatus::Success,
        Outcome::Error => ExitStatus::Failure,
        Outcome::Abort | Outcome::Abnormal | Outcome::Interrupt => ExitStatus::Abnormal,
    }
}

fn print_error(error: &(dyn std::error::Error + 'static)) {
    let _ = writeln!(io::stderr(), "buildhost-worker: {}", chain(error));
}
