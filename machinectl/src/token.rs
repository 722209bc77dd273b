//! The commands about tokens, which give access to the agent over the network. The agent reloads
//! their file when it changes.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::task::Digest;
use config::tokens::{self, Scope, Token, TokenName};
use serde_json::json;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::{Output, Table};

/// The beginning of every secret, by which leaked secrets are recognized.
const PREFIX: &str = "buildhost_";

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
        file: TokenFile,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List the tokens
    List {
        #[command(flatten)]
        file: TokenFile,
    },
    /// Remove a token; the agent refuses it from then on
    Remove {
        /// The token
        name: TokenName,
        #[command(flatten)]
        file: TokenFile,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TokenFile {
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
        Command::List { file } => list(&file.read()?, output),
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
    file: &TokenFile,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let secret = secret().map_err(|error| failed(Path::new("/dev/urandom"), &error))?;
    let sha256 = sys::file::digest(secret.as_bytes())
        .map_err(|error| Failure::new(ExitStatus::Failure, error))?;
    let token = Token {
        name: name.clone(),
        scope,
        sha256,
    };
    file.change(dry_run, |tokens| {
        if tokens.iter().any(|other| other.name == *name) {
            let text = format!("token {name} exists already");
            return Err(Failure::new(ExitStatus::Exists, text));
        }
        tokens.push(token);
        Ok(())
    })?;
    if dry_run.enabled {
        return output.plan(format_args!("create token {name} with scope {scope}"));
    }
    output.status(format_args!(
        "created token {name} with scope {scope}; its secret, which is not shown again:"
    ));
    if output.is_json() {
        let scope = scope.to_string();
        return output
            .print_json(&json!({"name": name.as_str(), "scope": scope, "secret": secret}));
    }
    output.print(&format!("{secret}\n"))
}

fn remove(
    name: &TokenName,
    file: &TokenFile,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    file.change(dry_run, |tokens| {
        let before = tokens.len();
        tokens.retain(|token| token.name != *name);
        if tokens.len() < before {
            return Ok(());
        }
        let text = format!("there is no token {name}; `buildhost token list` shows all tokens");
        Err(Failure::new(ExitStatus::NotFound, text))
    })?;
    if dry_run.enabled {
        return output.plan(format_args!("remove token {name}"));
    }
    output.status(format_args!("removed token {name}"));
    Ok(())
}

fn list(tokens: &[Token], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        let tokens: Vec<_> = tokens
            .iter()
            .map(|token| json!({"name": token.name.as_str(), "scope": token.scope.to_string()}))
            .collect();
        return output.print_json(&tokens);
    }
    let mut table = Table::new(["TOKEN", "SCOPE"]);
    for token in tokens {
        table.add([token.name.to_string(), token.scope.to_string()]);
    }
    output.print_table(&table)
}

impl TokenFile {
    /// Reads the tokens. A missing file has none.
    fn read(&self) -> Result<Vec<Token>, Failure> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => tokens::parse(&text).map_err(|error| failed(&self.path, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed(&self.path, &error)),
        }
    }

    /// Changes the file atomically, under a lock on its directory. A dry run finds the same
    /// errors and writes nothing.
    fn change(
        &self,
        dry_run: DryRun,
        change: impl FnOnce(&mut Vec<Token>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if dry_run.enabled {
            return change(&mut self.read()?);
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
        let lock = File::open(directory).map_err(|error| failed(directory, &error))?;
        lock.lock().map_err(|error| failed(directory, &error))?;
        let mut tokens = self.read()?;
        change(&mut tokens)?;
        let text = tokens::print(&tokens);
        sys::file::replace(&self.path, text.as_bytes()).map_err(|error| failed(&self.path, &error))
    }
}

fn secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{PREFIX}{}", Digest::from(bytes)))
}

fn failed(path: &Path, error: &dyn Error) -> Failure {
    let text = format!("cannot use {}: {error}", path.display());
    Failure::new(ExitStatus::Failure, text)
}
