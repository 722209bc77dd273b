//! The commands about tokens, which give access to the agent over the network. The agent reloads
//! their file when it changes.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use config::tokens::{CreatedToken, NewToken, Scope, Token, TokenName, TokenStatus};
use jiff::Timestamp;
use token_file::{Mode, TokenFile, TokenFileError};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::{Output, Table, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a token and print its secret, which is not stored
    Add {
        /// The name of the token in logs and records
        name: TokenName,
        /// The rights of the token: read, submit (includes read) or admin (includes both)
        #[arg(long, default_value_t = Scope::Read)]
        scope: Scope,
        #[command(flatten)]
        file: FileOption,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List the tokens
    List {
        #[command(flatten)]
        file: FileOption,
    },
    /// Remove a token; the agent refuses it from then on
    Remove {
        /// The token
        name: TokenName,
        #[command(flatten)]
        file: FileOption,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FileOption {
    /// The file of the tokens, as in the agent's setting http.token_file
    #[arg(
        id = "tokens",
        long = "tokens",
        value_name = "FILE",
        env = "BUILDHOST_TOKENS",
        hide_env_values = true
    )]
    #[arg(default_value = "/etc/buildhost/tokens")]
    path: PathBuf,
}

pub(crate) fn run(command: &Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Add {
            name,
            scope,
            file,
            dry_run,
        } => add(name, *scope, file, *dry_run, output),
        Command::List { file } => list(&file.open().read()?, output),
        Command::Remove {
            name,
            file,
            dry_run,
        } => remove(name, file, *dry_run, output),
    }
}

fn add(
    name: &TokenName,
    scope: Scope,
    file: &FileOption,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let name = name.clone();
    let new = NewToken { name, scope };
    let created = file.open().add(new, Timestamp::now(), mode(dry_run))?;
    let CreatedToken { name, .. } = &created;
    if dry_run.enabled {
        return output.plan(format_args!("create token {name} with scope {scope}"));
    }
    output.status(format_args!(
        "created token {name} with scope {scope}; its secret, which is not shown again:"
    ));
    if output.is_json() {
        return output.print_json(&created);
    }
    output.print(&format!("{}\n", created.secret.as_str()))
}

fn remove(
    name: &TokenName,
    file: &FileOption,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    file.open().remove(name, mode(dry_run))?;
    if dry_run.enabled {
        return output.plan(format_args!("remove token {name}"));
    }
    output.status(format_args!("removed token {name}"));
    Ok(())
}

fn list(tokens: &[Token], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        let tokens = tokens.iter().map(|token| TokenStatus {
            name: token.name.clone(),
            scope: token.scope,
            created: token.created,
            last_used: None,
        });
        return output.print_json(&tokens.collect::<Vec<_>>());
    }
    let mut table = Table::new(["TOKEN", "SCOPE", "CREATED"]);
    for token in tokens {
        let created = token.created.map(time).unwrap_or_default();
        table.add([token.name.to_string(), token.scope.to_string(), created]);
    }
    output.print_table(&table)
}

impl FileOption {
    fn open(&self) -> TokenFile {
        TokenFile::new(self.path.clone())
    }
}

fn mode(dry_run: DryRun) -> Mode {
    if dry_run.enabled {
        Mode::DryRun
    } else {
        Mode::Change
    }
}

impl From<TokenFileError> for Failure {
    fn from(error: TokenFileError) -> Self {
        let status = match error {
            TokenFileError::Missing(_) => ExitStatus::NotFound,
            TokenFileError::Exists(_) => ExitStatus::Exists,
            TokenFileError::Full => ExitStatus::Refused,
            TokenFileError::Content { .. } | TokenFileError::File { .. } => ExitStatus::Failure,
        };
        Failure::new(status, error)
    }
}
