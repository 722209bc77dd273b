//! The commands about the tokens of clients.

use std::io::Write;

use anyhow::{Context, bail};
use clap::Subcommand;
use config::tokens::{Scope, TokenName};
use farm::secret;
use farm_store::Store;

/// A command about the tokens of clients.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a token and print its secret, which is not stored and cannot be printed again.
    Create {
        /// The name, which identifies the client in lists and logs.
        name: TokenName,
        /// The rights: read, submit (and cancel builds), or admin (also drain hosts and publish machines).
        #[arg(long, default_value = "submit")]
        scope: Scope,
    },
    /// List the tokens with their rights.
    List,
    /// Revoke a token. Its next request is refused by all coordinators.
    Revoke {
        /// The name.
        name: TokenName,
    },
}

pub(crate) async fn run(command: &Command, store: &Store) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    match command {
        Command::Create { name, scope } => {
            let token = secret::random().context("cannot make a token")?;
            if !store.add_token(name, *scope, secret::hash(&token)).await? {
                bail!(
                    "token {name} exists already; `buildhost-farm token revoke {name}` removes it"
                );
            }
            writeln!(stdout, "{token}").context("cannot print the token")?;
        }
        Command::List => {
            for token in store.tokens().await? {
                let (name, scope) = (token.name, token.scope);
                writeln!(stdout, "{name:<24} {scope:<8} {}", token.created)
                    .context("cannot print the tokens")?;
            }
        }
        Command::Revoke { name } => {
            if !store.revoke_token(name).await? {
                bail!("token {name} does not exist; `buildhost-farm token list` lists them");
            }
        }
    }
    Ok(())
}
