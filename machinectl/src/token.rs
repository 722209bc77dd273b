//! The verbs over tokens, which let their bearers use the agent over the network. The
//! agent reads their file anew when it changes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::tokens::{self, Scope, Token, TokenError, TokenName};
use serde_json::json;

use crate::{Ending, Failure, Rehearsal, Table, Voice};

/// What every secret begins with, so that one that leaks is recognized.
const PREFIX: &str = "buildhost_";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a token and print its secret, which is kept nowhere
    Add {
        /// What its bearer is called in logs and records
        name: TokenName,
        /// What it allows: read, submit (and read), or admin (everything)
        #[arg(long, default_value_t = Scope::Read)]
        scope: Scope,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Show all tokens
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Remove a token: its bearer is refused from now on
    Remove {
        /// The token
        name: TokenName,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The file of tokens: the agent's setting http.token_file
    #[arg(long, value_name = "FILE", env = "BUILDHOST_TOKENS")]
    #[arg(default_value = "/etc/buildhost/tokens")]
    tokens: PathBuf,
}

pub(crate) fn run(verb: &Verb, voice: &Voice) -> Result<(), Failure> {
    match verb {
        Verb::Add {
            name,
            scope,
            place,
            rehearsal,
        } => {
            let secret = secret().map_err(|error| fault(Path::new("/dev/urandom"), &error))?;
            let sha256 = sys::file::digest(secret.as_bytes());
            let token = Token {
                name: name.clone(),
                scope: *scope,
                sha256: sha256.map_err(|error| Failure::new(Ending::Failed, error))?,
            };
            change(&place.tokens, rehearsal, |tokens| {
                if tokens.iter().any(|other| other.name == *name) {
                    let words = format!("there is a token {name} already");
                    return Err(Failure::new(Ending::Exists, words));
                }
                tokens.push(token);
                Ok(())
            })?;
            if rehearsal.dry_run {
                return voice.would(format!("make token {name}, which may {scope}"));
            }
            voice.say(format!(
                "token {name} may {scope}; its secret is told only now:"
            ));
            voice.print(&format!("{secret}\n"))
        }
        Verb::List { place } => list(&read(&place.tokens)?, voice),
        Verb::Remove {
            name,
            place,
            rehearsal,
        } => {
            change(&place.tokens, rehearsal, |tokens| {
                let before = tokens.len();
                tokens.retain(|token| token.name != *name);
                if tokens.len() < before {
                    return Ok(());
                }
                let words = format!("there is no token {name}; `machinectl token list` shows all");
                Err(Failure::new(Ending::NotFound, words))
            })?;
            if rehearsal.dry_run {
                return voice.would(format!("remove token {name}"));
            }
            voice.say(format!("token {name} is removed"));
            Ok(())
        }
    }
}

fn list(tokens: &[Token], voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        let told = tokens
            .iter()
            .map(|token| json!({"name": token.name.as_str(), "scope": token.scope.to_string()}));
        return voice.print_json(&told.collect());
    }
    let mut table = Table::new(&["TOKEN", "SCOPE"]);
    for token in tokens {
        table.add([token.name.to_string(), token.scope.to_string()]);
    }
    voice.print_table(&table)
}

/// No file means no tokens.
fn read(path: &Path) -> Result<Vec<Token>, Failure> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|error| fault(path, &error))?,
    };
    tokens::parse(&text).map_err(|error: TokenError| fault(path, &error))
}

/// Changes the file as one; who else changes it waits. A rehearsal finds the same faults
/// and writes nothing.
fn change(
    path: &Path,
    rehearsal: &Rehearsal,
    change: impl FnOnce(&mut Vec<Token>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if rehearsal.dry_run {
        return change(&mut read(path)?);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let made = std::fs::create_dir_all(directory);
    made.map_err(|error| fault(directory, &error))?;
    let lock = File::open(directory).map_err(|error| fault(directory, &error))?;
    lock.lock().map_err(|error| fault(directory, &error))?;
    let mut tokens = read(path)?;
    change(&mut tokens)?;
    let text = tokens::print(&tokens);
    sys::file::replace(path, text.as_bytes()).map_err(|error| fault(path, &error))
}

fn secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{PREFIX}{}", config::task::Digest::from(bytes)))
}

fn fault(path: &Path, error: &dyn std::error::Error) -> Failure {
    let words = format!("cannot use {}: {error}", path.display());
    Failure::new(Ending::Failed, words)
}
