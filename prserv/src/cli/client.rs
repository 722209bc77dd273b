//! The client of a command that asks a running server.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use prserv::client::{Client, RetryPolicy, Token};

use super::proxy;

/// The arguments that select how a server is asked.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// The file with the token to present to the server.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    proxy: proxy::Arguments,
}

impl Arguments {
    /// Returns a client of a server, `HOST:PORT` or `unix://PATH`.
    pub(crate) fn connect_to(&self, server: &str) -> anyhow::Result<Client> {
        let target = self.proxy.target(server)?;
        Ok(Client::new(target, RetryPolicy::default()).with_token(self.token()?))
    }

    fn token(&self) -> anyhow::Result<Option<Token>> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let token = fs::read_to_string(path)
            .with_context(|| format!("cannot read the token in {}", path.display()))?
            .parse()
            .with_context(|| format!("cannot use the token in {}", path.display()))?;
        Ok(Some(token))
    }
}
