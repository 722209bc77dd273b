//! The proxy of a command's own connections.

use anyhow::Context;
use prserv::client::{Proxies, Target};

/// The arguments that select the proxy.
#[derive(Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// The HTTP proxy for outgoing connections, `http://[USER:PASSWORD@]HOST:PORT`, or `none`.
    /// The default comes from the environment: `https_proxy`, `all_proxy`, `no_proxy`.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

impl Arguments {
    /// Parses the `HOST:PORT` of a server and selects its proxy.
    pub(crate) fn target(&self, text: &str) -> anyhow::Result<Target> {
        let proxies = Proxies::chosen(self.proxy.as_deref());
        Ok(Target::parse(
            text,
            &proxies.context("the proxy is invalid")?,
        )?)
    }
}
