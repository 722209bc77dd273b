//! The agent that a command line speaks to: from `--host`, `--socket`, or a context.

use std::path::Path;

use client::{Client, Endpoint, HostAddress, NetworkEndpoint, SshEndpoint};
use sys::ssh::SshCommand;

use crate::context::{Context, Contexts};
use crate::exit_code::{ExitStatus, Failure};
use crate::options::{GlobalOptions, HostOption};
use crate::token_file::read_token;

/// The program on another host if nothing else is said.
const PROGRAM: &str = "buildhost";
/// The variable with the ssh command, which `push` and `pull` use as well.
const SSH_VARIABLE: &str = "BUILDHOST_SSH";

impl GlobalOptions {
    /// Returns the place of the agent that the options and the contexts name.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Failure> {
        endpoint(self)
    }

    /// Returns true if the options, or the context in use, name a farm.
    pub(crate) fn has_farm(&self) -> Result<bool, Failure> {
        Ok(matches!(chosen(self)?.host, HostAddress::Farm(_)))
    }

    /// Returns a client of that agent.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::of(self.endpoint()?)?)
    }
}

fn endpoint(options: &GlobalOptions) -> Result<Endpoint, Failure> {
    complete(chosen(options)?, options)
}

/// Returns the context that the options choose.
fn chosen(options: &GlobalOptions) -> Result<Context, Failure> {
    if let Some(farm) = &options.farm {
        return of_farm(farm);
    }
    let needs_contexts = match &options.host {
        Some(host) => matches!(host, HostOption::Context(_)),
        None => options.socket.is_none(),
    };
    let contexts = if needs_contexts {
        Contexts::read()?
    } else {
        Contexts::default()
    };
    choose(options.host.as_ref(), options.socket.as_deref(), &contexts)
}

/// Returns the context of `--farm`: an address, or the name of a context.
fn of_farm(farm: &HostOption) -> Result<Context, Failure> {
    match farm {
        HostOption::Address(HostAddress::Network(url) | HostAddress::Farm(url)) => {
            Ok(Context::of(HostAddress::Farm(url.clone())))
        }
        HostOption::Context(name) => {
            let context = Contexts::read()?.get(name)?.clone();
            if matches!(context.host, HostAddress::Farm(_)) {
                return Ok(context);
            }
            let text = format!("context {name} is that of a host: {}", context.host);
            Err(Failure::new(ExitStatus::Usage, text))
        }
        HostOption::Address(address) => {
            let text =
                format!("{address} is no farm; --farm expects https://HOST:PORT or a context");
            Err(Failure::new(ExitStatus::Usage, text))
        }
    }
}

/// Returns the context that applies; that of an address has nothing but the address.
fn choose(
    host: Option<&HostOption>,
    socket: Option<&Path>,
    contexts: &Contexts,
) -> Result<Context, Failure> {
    match host {
        Some(HostOption::Address(address)) => Ok(Context::of(address.clone())),
        Some(HostOption::Context(name)) => contexts.get(name).cloned(),
        None => match &contexts.current {
            Some(name) if socket.is_none() => contexts.get(name).cloned(),
            _ => Ok(Context::of(HostAddress::Local)),
        },
    }
}

/// Returns the endpoint of a context; the options take precedence over its fields.
fn complete(context: Context, options: &GlobalOptions) -> Result<Endpoint, Failure> {
    let socket = options.socket.clone().or(context.socket);
    match context.host {
        HostAddress::Local => Ok(Endpoint::Socket(
            socket.unwrap_or_else(|| options.socket().to_owned()),
        )),
        HostAddress::Ssh(host) => Ok(Endpoint::Ssh(SshEndpoint {
            ssh: ssh_command()?,
            host,
            program: context.program.unwrap_or_else(|| PROGRAM.to_owned()),
            socket,
        })),
        HostAddress::Network(ref url) | HostAddress::Farm(ref url) => {
            let url = url.clone();
            let file = options.token_file.clone().or(context.token_file);
            let token = file.map(|file| read_token(&file)).transpose()?;
            if token.is_some() && !url.is_private() {
                let text = format!(
                    "a token is not sent to {url} without TLS, because others could read it; use https://, or ssh:{}",
                    url.host()
                );
                return Err(Failure::new(ExitStatus::Refused, text));
            }
            Ok(Endpoint::Network(NetworkEndpoint {
                url,
                is_farm: matches!(context.host, HostAddress::Farm(_)),
                token,
                ca_file: options.ca_file.clone().or(context.ca_file),
            }))
        }
    }
}

fn ssh_command() -> Result<SshCommand, Failure> {
    let text = std::env::var(SSH_VARIABLE).unwrap_or_default();
    text.parse().map_err(|error| {
        let text = format!("{SSH_VARIABLE} cannot be used: {error}");
        Failure::new(ExitStatus::Usage, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts(current: Option<&str>) -> Contexts {
        let mut contexts = Contexts::default();
        let host = "https://build1:8000".parse().unwrap();
        let name = "farm".parse().unwrap();
        contexts.contexts.insert(name, Context::of(host));
        contexts.current = current.map(|name| name.parse().unwrap());
        contexts
    }

    #[test]
    fn an_option_precedes_a_socket_and_a_socket_the_current_context() {
        for (host, socket, current, expected) in [
            (None, None, None, "local"),
            (None, None, Some("farm"), "https://build1:8000"),
            (None, Some("/s"), Some("farm"), "local"),
            (Some("local"), None, Some("farm"), "local"),
            (Some("ssh:h"), Some("/s"), Some("farm"), "ssh:h"),
            (Some("farm"), Some("/s"), None, "https://build1:8000"),
        ] {
            let host: Option<HostOption> = host.map(|host| host.parse().unwrap());
            let contexts = contexts(current);
            let chosen = choose(host.as_ref(), socket.map(Path::new), &contexts).unwrap();
            assert_eq!(chosen.host.to_string(), expected);
        }
    }

    #[test]
    fn a_context_that_does_not_exist_is_named_with_those_that_do() {
        let host: HostOption = "lab".parse().unwrap();
        let failure = choose(Some(&host), None, &contexts(None)).unwrap_err();
        assert_eq!(
            failure.error.to_string(),
            "there is no context lab; there are: farm"
        );
        assert_eq!(failure.status, ExitStatus::NotFound);
    }
}
