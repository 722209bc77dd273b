//! The commands about secrets, which builds get in the memory of their guests.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use client::Client;
use config::SecretName;
use config::builds::Submitter;
use config::secrets::{BYTES_MAX, NewSecret, Secret, SecretValue};
use zeroize::Zeroizing;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, Table, time};

const EXAMPLES: &str = "\
Examples:
  printf %s \"$PASSWORD\" | buildhost secret add upload-key --for alice --for token:nightly
  buildhost secret add signing-key --from-file key.pem --for alice
  buildhost build linux-gcc_6 hello-1.0.tar.gz --secret upload-key";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a secret; its value is read from the standard input or a file
    ///
    /// A build that names the secret finds its value in the file
    /// /run/buildhost/secrets/NAME of its guest, and `***` in its place in the log. The value is
    /// stored as it is, with a line end at its end.
    #[command(after_help = EXAMPLES)]
    Add(Add),
    /// List the secrets, without their values
    List,
    /// Delete a secret; builds that wait and need it end with an error
    Delete {
        /// The secret
        name: SecretName,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The name of the secret
    name: SecretName,
    /// Read the value from this file instead of the standard input
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// A submitter whose builds may have the secret: a user, or `token:NAME`; may be repeated
    ///
    /// Builds of root may have every secret.
    #[arg(long = "for", value_name = "SUBMITTER")]
    submitters: Vec<Submitter>,
    /// Replace the secret of the same name, and the submitters that may have it
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let client = options.client()?;
    match command {
        Command::Add(arguments) => add(&client, arguments, output),
        Command::List => list(&client.secrets()?, output),
        Command::Delete { name, dry_run } => delete(&client, name, *dry_run, output),
    }
}

fn add(client: &Client, arguments: &Add, output: &Output) -> Result<(), Failure> {
    let Add {
        name,
        from_file,
        submitters,
        replace,
        dry_run,
    } = arguments;
    let new = NewSecret {
        value: value(from_file.as_deref())?,
        submitters: submitters.clone(),
        replace: *replace,
    };
    if dry_run.enabled {
        let exists = client.secrets()?.iter().any(|secret| secret.name == *name);
        return match (exists, *replace) {
            (true, false) => {
                let text = format!("there is a secret {name} already; --replace replaces it");
                Err(Failure::new(ExitStatus::Exists, text))
            }
            (true, true) => output.plan(format_args!("replace secret {name}")),
            (false, _) => output.plan(format_args!("add secret {name}")),
        };
    }
    let added = client.add_secret(name, &new)?;
    if output.is_json() {
        return output.print_json(&added.value);
    }
    let verb = if added.is_new { "added" } else { "replaced" };
    let submitters = shown_submitters(&added.value);
    output.status(format_args!(
        "{verb} secret {name} for builds of {submitters}"
    ));
    Ok(())
}

/// Reads a value from a file or from the standard input.
fn value(path: Option<&Path>) -> Result<SecretValue, Failure> {
    let stdin = io::stdin();
    let (place, read) = match path {
        Some(path) => (
            path.display().to_string(),
            File::open(path).and_then(read_value),
        ),
        None if stdin.is_terminal() => {
            let text = "the value of a secret is read from the standard input, which is a \
                        terminal: pipe it in, or name its file with --from-file";
            return Err(Failure::new(ExitStatus::Usage, text));
        }
        None => ("the standard input".to_owned(), read_value(stdin.lock())),
    };
    let bytes = read.map_err(|error| {
        let text = format!("cannot read the value from {place}: {error}");
        Failure::new(ExitStatus::Failure, text)
    })?;
    SecretValue::new(bytes).map_err(|error| {
        let text = format!("{place} has no value for a secret: {error}");
        Failure::new(ExitStatus::Usage, text)
    })
}

/// Reads a value, and one byte more than a value may have.
fn read_value(reader: impl Read) -> io::Result<Vec<u8>> {
    // Its memory does not move, so no copy of the value stays behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX + 1));
    reader.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(std::mem::take(&mut *bytes))
}

fn list(secrets: &[Secret], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&secrets);
    }
    let mut table = Table::new(["SECRET", "FOR", "ADDED", "BY"]);
    for secret in secrets {
        table.add([
            secret.name.to_string(),
            shown_submitters(secret),
            time(secret.added),
            secret.by.to_string(),
        ]);
    }
    output.print_table(&table)
}

/// Returns the submitters whose builds may have a secret.
fn shown_submitters(secret: &Secret) -> String {
    let mut names: Vec<_> = secret.submitters.iter().map(Submitter::as_str).collect();
    if names.is_empty() {
        names.push("root");
    }
    names.join(" ")
}

fn delete(
    client: &Client,
    name: &SecretName,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        if client.secrets()?.iter().any(|secret| secret.name == *name) {
            return output.plan(format_args!("delete secret {name}"));
        }
        let text = format!("there is no secret {name}; `buildhost secret list` lists all secrets");
        return Err(Failure::new(ExitStatus::NotFound, text));
    }
    client.delete_secret(name)?;
    output.status(format_args!("deleted secret {name}"));
    Ok(())
}
