//! `buildhost-worker`: reads its command line, does one thing, ends with a meaning.

use std::io::{self, Write};
use std::process::ExitCode;

use config::task::Outcome;
use worker::cli::{self, Command};
use worker::{bootstrap, build, chain, pr, shell};

/// What the one who started us sees; the numbers stand in `--help`.
#[derive(Clone, Copy)]
enum Ending {
    Good = 0,
    Bad = 1,
    Abnormal = 2,
    Unreported = 3,
    Usage = 64,
}

fn main() -> ExitCode {
    let ending = match start() {
        Ok(ending) => ending,
        Err(error) => {
            complain(error.as_ref());
            Ending::Unreported
        }
    };
    ExitCode::from(ending as u8)
}

fn start() -> Result<Ending, Box<dyn std::error::Error>> {
    let worker = std::env::current_exe()?;
    let pr_host = std::env::var(cli::PR_HOST).ok();
    let command = match cli::parse(std::env::args_os().skip(1), worker, pr_host) {
        Ok(command) => command,
        Err(error) => {
            complain(&error);
            return Ok(Ending::Usage);
        }
    };
    let mut stdout = io::stdout();
    match command {
        Command::Bootstrap(settings) => Ok(ending(bootstrap::run(&settings)?)),
        Command::Build(settings) => Ok(ending(build::run(&settings)?)),
        Command::Shell => Err(shell::failed(&shell::become_shell()).into()),
        Command::Pr(server, question) => {
            writeln!(stdout, "{}", pr::ask(server, &question)?)?;
            Ok(Ending::Good)
        }
        Command::Help => {
            stdout.write_all(cli::HELP.as_bytes())?;
            Ok(Ending::Good)
        }
        Command::Version => {
            writeln!(stdout, "buildhost-worker {}", env!("CARGO_PKG_VERSION"))?;
            Ok(Ending::Good)
        }
    }
}

fn ending(outcome: Outcome) -> Ending {
    match outcome {
        Outcome::Skip | Outcome::Success | Outcome::Warning => Ending::Good,
        Outcome::Error => Ending::Bad,
        Outcome::Abort | Outcome::Abnormal | Outcome::Interrupt => Ending::Abnormal,
    }
}

fn complain(error: &(dyn std::error::Error + 'static)) {
    let _ = writeln!(io::stderr(), "buildhost-worker: {}", chain(error));
}
