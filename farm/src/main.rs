//! The program `buildhost-farm`: a coordinator, and the commands that enrol hosts.

mod notify;
mod serve;
mod service_manager;
mod tokens;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use farm::secret;
use farm::settings::{EXAMPLE, Settings, SettingsError, Written, WrittenSources};
use farm_store::Store;
use manual::SettingsPage;
use tracing_subscriber::EnvFilter;

/// The settings of an installed coordinator.
const SETTINGS: &str = "/etc/buildhost/farm.toml";
/// The messages that are logged without `RUST_LOG`. PostgreSQL notes each partition that exists.
const LOGGED: &str = "info,tokio_postgres=warn";

/// Coordinates the hosts of a farm: one queue in PostgreSQL, from which many hosts take builds.
///
/// Exit status: 0 success, 1 failed, 2 invalid command line or settings, 3 refused, because a requirement is
/// missing.
#[derive(Debug, Parser)]
#[command(name = "buildhost-farm", version)]
struct Arguments {
    /// The settings, a TOML file; options of the command line replace them. [default:
    /// /etc/buildhost/farm.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The database, `postgres://USER@HOST/NAME`. Its schema is created or migrated. [setting: database]
    #[arg(
        long,
        value_name = "URL",
        env = "BUILDHOST_FARM_DB",
        hide_env_values = true
    )]
    db: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve hosts and clients. Any number of coordinators may serve one farm.
    ///
    /// SIGTERM and SIGINT stop it: requests that wait for builds are answered at once. SIGHUP makes it read
    /// the token in a file again.
    Serve(Serve),
    /// Check the settings, the token of clients, the directory of sources, notifications and the object store, and
    /// exit. An object is put there, read and deleted.
    Check {
        /// Do not ask the object store. A reload does not, so that it works while the store is away.
        #[arg(long)]
        no_objects: bool,
    },
    /// Print a settings file that shows every key with its default.
    Example,
    /// Print a token with which a host enrols once. A host of the same name gets a new key.
    Invite {
        /// The name of the host.
        name: String,
        /// The seconds for which the token is valid.
        #[arg(long, default_value_t = 3600)]
        seconds: u32,
    },
    /// Take the key of a host away. Its builds end within one half of a lease.
    Revoke {
        /// The name of the host.
        name: String,
    },
    /// Create, list and revoke the tokens of clients.
    #[command(subcommand)]
    Token(tokens::Command),
    /// List the rules for notifications of this coordinator, and try one.
    #[command(subcommand)]
    Notify(notify::Command),
    /// Print a completion script.
    #[command(hide = true)]
    Completions { shell: Shell },
    /// Write the manual pages below a directory.
    #[command(hide = true)]
    Manual { directory: PathBuf },
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// The address to listen on. Put a server with TLS before it, because keys and tokens are sent.
    /// [setting: listen]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// The address at which hosts reach this coordinator and no other one, for logs, artifacts and images
    /// that they send. [setting: url]
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// A file with a token that may do everything, beside those of `buildhost-farm token`.
    /// [setting: `client_token`]
    #[arg(long, value_name = "FILE")]
    client_token: Option<PathBuf>,

    /// The most connections to the database. [setting: `connections_max`]
    #[arg(long, value_name = "NUMBER")]
    connections_max: Option<usize>,

    /// The seconds without a sign of life after which a host loses its builds. All coordinators of a
    /// farm need the same. [setting: `lease_seconds`]
    #[arg(long, value_name = "SECONDS")]
    lease_seconds: Option<u64>,

    /// The directory of the sources that this coordinator keeps, one of its own. [setting:
    /// `sources.directory`]
    #[arg(long, value_name = "DIR")]
    sources: Option<PathBuf>,

    /// The months for which results and idempotency keys are kept; 0 keeps all. [setting: `keep_months`]
    #[arg(long, value_name = "NUMBER")]
    keep_months: Option<u32>,
}

/// The exit status of the process.
#[derive(Debug, Clone, Copy)]
enum ExitStatus {
    Failure = 1,
    Usage = 2,
    Refused = 3,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// An error with another exit status than 1.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The settings cannot be used.
    #[error("cannot use the settings{place}")]
    Settings {
        /// The file, if there is one, in words.
        place: String,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A requirement is missing.
    #[error("{0}")]
    Missing(String),
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "buildhost-farm: {error:#}");
            exit_status(&error).into()
        }
    }
}

fn exit_status(error: &anyhow::Error) -> ExitStatus {
    match error.downcast_ref() {
        Some(Refusal::Settings { .. }) => ExitStatus::Usage,
        Some(Refusal::Missing(_)) => ExitStatus::Refused,
        None => ExitStatus::Failure,
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Serve(_) => serve::serve(settings(&arguments)?).await,
        Command::Check { no_objects } => serve::check(&settings(&arguments)?, !no_objects).await,
        Command::Example => print(EXAMPLE),
        Command::Invite { name, seconds } => {
            let store = Store::open(&settings(&arguments)?.database, 1).await?;
            let token = secret::random().context("cannot make a token")?;
            store.invite(secret::hash(&token), name, *seconds).await?;
            print(&format!("{token}\n"))
        }
        Command::Revoke { name } => {
            let store = Store::open(&settings(&arguments)?.database, 1).await?;
            if store.revoke(name).await? {
                return Ok(());
            }
            Err(anyhow!(
                "host {name} does not exist in the farm; GET /farm/v1/hosts lists them"
            ))
        }
        Command::Token(command) => {
            let store = Store::open(&settings(&arguments)?.database, 1).await?;
            tokens::run(command, &store).await
        }
        Command::Notify(command) => notify::run(command, &settings(&arguments)?).await,
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(*shell, &mut command, "buildhost-farm", &mut io::stdout());
            Ok(())
        }
        Command::Manual { directory } => Ok(write_manual(directory)?),
    }
}

/// Writes the manual pages of the coordinator and of its settings below a directory.
fn write_manual(directory: &Path) -> io::Result<()> {
    manual::write_program(Arguments::command(), directory)?;
    let settings = SettingsPage {
        program: "buildhost-farm",
        description: "The settings are a TOML file, by default /etc/buildhost/farm.toml. \
             `buildhost-farm check` checks it. After a change, restart the service; `systemctl reload \
             buildhost-farm` reads the token of clients again.",
        example: EXAMPLE,
    };
    settings.write(directory)
}

/// Returns the settings of the file and the command line.
fn settings(arguments: &Arguments) -> anyhow::Result<Settings> {
    let path = arguments.config.as_deref();
    let (shown, written) = match sys::trusted::read_text(path.unwrap_or(Path::new(SETTINGS))) {
        // An installed coordinator has the file, others need none.
        Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {
            (String::new(), Written::default())
        }
        read => {
            let path = path.unwrap_or(Path::new(SETTINGS));
            let shown = format!(" {}", path.display());
            let text = read.map_err(|source| faulty(&shown, source))?;
            let parsed = Written::parse(&text).map_err(|source| faulty(&shown, source))?;
            (shown, parsed)
        }
    };
    let checked = arguments.written().or(written).check();
    checked.map_err(|error| match error {
        SettingsError::NoDatabase => Refusal::Missing(serve::FIRST_STEPS.to_owned()).into(),
        faults @ SettingsError::Faulty(_) => faulty(&shown, faults),
    })
}

fn faulty(
    place: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> anyhow::Error {
    let (place, source) = (place.to_owned(), source.into());
    Refusal::Settings { place, source }.into()
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    let printed = stdout.write_all(text.as_bytes());
    printed.context("cannot print to standard output")
}

impl Arguments {
    /// Returns the settings of the command line.
    fn written(&self) -> Written {
        let written = Written {
            database: self.db.clone(),
            ..Written::default()
        };
        match &self.command {
            Command::Serve(serve) => Written {
                listen: serve.listen.clone(),
                url: serve.url.clone(),
                client_token: serve.client_token.clone(),
                connections_max: serve.connections_max,
                lease_seconds: serve.lease_seconds,
                keep_months: serve.keep_months,
                sources: WrittenSources::below(serve.sources.clone()),
                ..written
            },
            _ => written,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_valid() {
        Arguments::command().debug_assert();
    }
}
