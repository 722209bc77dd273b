//! `buildhost-signer`: makes the keys of a host, and signs and verifies the provenance of builds.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use config::BuildId;
use config::task::Digest;
use jiff::Timestamp;
use signer::dsse::Envelope;
use signer::key::PublicKey;
use signer::key_log::KeyLog;
use signer::keys::KeyDirectory;
use signer::sign::{self, Job};
use signer::verify::{self, Verified};

/// The user of the signer, unless another one is chosen: a number that needs no entry in the list
/// of users, beside those of guests.
const USER: u32 = 1_899_999_999;

/// The signer of Buildhost: makes the keys of a build host, and signs and verifies the
/// provenance of its builds.
///
/// The agent starts `sign` for each build. It reads the record and the files of the build, turns
/// into a process of the user to whom the key belongs, and prints a DSSE envelope. The agent
/// itself never reads the key.
///
/// Exit status: 0 success, 1 failed or not verified, 2 invalid command line.
#[derive(Debug, Parser)]
#[command(name = "buildhost-signer", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the directory of the keys and the first key, and print the public key
    Init {
        #[command(flatten)]
        keys: Keys,
        /// The number of the user to whom the key belongs. Nothing else may run as this user
        #[arg(long, default_value_t = USER, value_parser = clap::value_parser!(u32).range(1..))]
        user: u32,
    },
    /// Replace the key by a new one, which the old one signs, and print the public key
    ///
    /// The old private key is destroyed. Its signatures stay valid for builds that have
    /// finished before.
    Rotate {
        #[command(flatten)]
        keys: Keys,
    },
    /// Revoke an earlier key: nothing that it has signed is accepted any more
    Revoke {
        /// The key, as `list` shows it
        key: String,
        /// The reason, for those who verify
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        keys: Keys,
    },
    /// List the keys, oldest first
    List {
        #[command(flatten)]
        keys: Keys,
    },
    /// Print a public key in PEM, for `openssl` and `cosign`
    Public {
        /// The key, as `list` shows it; by default the one that signs
        key: Option<String>,
        #[command(flatten)]
        keys: Keys,
    },
    /// Verify signed provenance, and that it names these files
    Verify {
        /// The envelope, provenance.intoto.jsonl
        envelope: PathBuf,
        /// The artifacts
        files: Vec<PathBuf>,
        /// The trusted public key, in PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The log of the host's keys, keys.json, if the trusted key is another one
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
    },
    /// Sign the provenance of a build, and print the envelope; the agent calls this
    #[command(hide = true)]
    Sign {
        build: BuildId,
        #[arg(long)]
        host: String,
        #[arg(long)]
        records: PathBuf,
        #[arg(long)]
        directory: PathBuf,
        #[command(flatten)]
        keys: Keys,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Manual { directory: PathBuf },
}

#[derive(Debug, Args)]
struct Keys {
    /// The directory of the keys, as in the agent's setting provenance.keys
    #[arg(
        id = "keys",
        long = "keys",
        value_name = "DIR",
        default_value = "/etc/buildhost/keys"
    )]
    path: PathBuf,
}

impl Keys {
    fn directory(&self) -> KeyDirectory {
        KeyDirectory::new(&self.path)
    }
}

type Failure = Box<dyn Error>;

#[expect(clippy::print_stderr, reason = "the only output of errors")]
fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = sys::error_report::chain(failure.as_ref());
            eprintln!("buildhost-signer: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init { keys, user } => {
            let public = keys.directory().create(user, Timestamp::now())?;
            print(&public.to_pem())
        }
        Command::Rotate { keys } => {
            let public = keys.directory().rotate(Timestamp::now())?;
            print(&public.to_pem())
        }
        Command::Revoke { key, reason, keys } => {
            Ok(keys.directory().revoke(&key, &reason, Timestamp::now())?)
        }
        Command::List { keys } => print(&list(&keys.directory().log()?)),
        Command::Public { key, keys } => print(&public(&keys.directory().log()?, key)?.to_pem()),
        Command::Verify {
            envelope,
            files,
            key,
            log,
        } => verify(&envelope, &files, &key, log.as_deref()),
        Command::Sign {
            build,
            host,
            records,
            directory,
            keys,
        } => {
            let envelope = sign::sign(&Job {
                build,
                host,
                records,
                directory,
                keys: keys.path,
            })?;
            print(&format!("{}\n", serde_json::to_string(&envelope)?))
        }
        Command::Manual { directory } => {
            Ok(clap_mangen::generate_to(Arguments::command(), directory)?)
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn list(log: &KeyLog) -> String {
    let line = |known: &signer::key_log::KnownKey| {
        let until = known.until.map(|until| format!(" until {until}"));
        let revoked = known.revoked.as_ref();
        let revoked = revoked.map(|reason| format!(", revoked: {reason}"));
        format!(
            "{} since {}{}{}\n",
            known.key.id(),
            known.from,
            until.unwrap_or_default(),
            revoked.unwrap_or_default()
        )
    };
    log.keys().iter().map(line).collect()
}

/// Returns a key of the log, by default the newest one.
fn public(log: &KeyLog, id: Option<String>) -> Result<PublicKey, Failure> {
    let keys = log.keys();
    let known = match &id {
        Some(id) => keys.iter().find(|known| known.key.id() == *id),
        None => keys.last(),
    };
    known
        .map(|known| known.key)
        .ok_or_else(|| format!("the log has no key {}", id.unwrap_or_default()).into())
}

fn verify(
    envelope: &Path,
    files: &[PathBuf],
    key: &Path,
    log: Option<&Path>,
) -> Result<(), Failure> {
    let envelope: Envelope = serde_json::from_str(&read(envelope)?)?;
    let key = PublicKey::from_pem(&read(key)?)
        .map_err(|error| format!("cannot use {}: {error}", key.display()))?;
    let log = log.map(|log| Ok::<_, Failure>(KeyLog::parse(&read(log)?)?));
    let verified = verify::verify(&envelope, &key, log.transpose()?.as_ref())?;
    for file in files {
        check(&verified, file)?;
    }
    print(&format!(
        "verified: built by {}, signed by the key {}\n",
        verified.builder, verified.keyid
    ))
}

/// Checks that verified provenance names a file with its hash.
fn check(verified: &Verified, path: &Path) -> Result<(), Failure> {
    let cannot_read = |error| format!("cannot read {}: {error}", path.display());
    let file = sys::trusted::open(path).map_err(cannot_read)?;
    let found: Digest = sys::file::digest(file).map_err(cannot_read)?;
    if verified.subjects.iter().any(|(_, sha256)| *sha256 == found) {
        return Ok(());
    }
    let text = format!(
        "{} has the hash {found}, which the provenance does not name",
        path.display()
    );
    Err(text.into())
}

fn read(path: &Path) -> Result<String, Failure> {
    sys::trusted::read_text(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
