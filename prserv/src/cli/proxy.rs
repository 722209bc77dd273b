//! Which proxy our own connections take.

use std::env;

use anyhow::Context;
use prserv::client::{Proxies, Target};

/// The proxy's argument.
#[derive(Debug, Default, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// The HTTP proxy for our own connections, `http://[USER:PASSWORD@]HOST:PORT`, or `none`.
    /// Without it the environment decides: `https_proxy`, `all_proxy`, `no_proxy`.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

impl Arguments {
    /// A server by its `HOST:PORT`, and the proxy on the way to it.
    pub(crate) fn target(&self, text: &str) -> anyhow::Result<Target> {
        let proxies = match &self.proxy {
            Some(proxy) => Proxies::fixed(proxy),
            None => Proxies::from_environment(|name| env::var(name).ok()),
        };
        Ok(Target::parse(text, &proxies.context("the proxy")?)?)
    }
}
