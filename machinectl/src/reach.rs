//! The reach of each command: an agent, which may be that of another host, the files of this host,
//! or neither.

use client::{AgentUrl, Endpoint, HostAddress, NetworkEndpoint};

use crate::exit_code::{ExitStatus, Failure};

/// The reach of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The agent that `--host` names.
    Agent,
    /// The volume, the toolchains or the settings of a build host, beside its agent.
    Host,
    /// This host alone, whatever the agent is.
    Here,
}

/// The commands that work with a farm as well as with an agent, and those that need one.
const FARM: &[&str] = &[
    "artifacts",
    "build",
    "builds",
    "cancel",
    "drain",
    "explain",
    "hosts",
    "log",
    "machines",
    "project list",
    "project show",
    "promote",
    "provenance",
    "publish",
    "queue",
    "rollback",
    "schedule add",
    "schedule list",
    "schedule pause",
    "schedule remove",
    "schedule resume",
    "schedule run",
    "schedule show",
    "toaster buildslist",
    "undrain",
];

/// The commands that need a farm.
const FARM_ONLY: &[&str] = &[
    "hosts",
    "machines",
    "publish",
    "queue",
    "schedule pause",
    "schedule resume",
];

/// The commands that work with an agent.
const AGENT: &[&str] = &[
    "artifacts",
    "attach",
    "build",
    "builds",
    "builds delete",
    "cache delete",
    "cache list",
    "cache prune",
    "cache show",
    "cancel",
    "console",
    "controllers",
    "controllers forget",
    "drain",
    "enrol",
    "explain",
    "feed list",
    "feed rebuild",
    "feed show",
    "fork",
    "guest cp",
    "guest exec",
    "guest list",
    "guest start",
    "guest stop",
    "host",
    "host status",
    "hosts",
    "layer add",
    "layer list",
    "layer remove",
    "layer show",
    "layer sources",
    "log",
    "login",
    "machines",
    "notify list",
    "notify test",
    "project add",
    "project bisect",
    "project build",
    "project import",
    "project layer",
    "project list",
    "project remove",
    "project set",
    "project show",
    "provenance",
    "publish",
    "queue",
    "rebuild",
    "release",
    "release add",
    "release list",
    "release remove",
    "release show",
    "resume",
    "schedule add",
    "schedule list",
    "schedule pause",
    "schedule remove",
    "schedule resume",
    "schedule run",
    "schedule show",
    "secret add",
    "secret delete",
    "secret list",
    "slsa check",
    "toaster builddelete",
    "toaster buildimport",
    "toaster buildslist",
    "toaster loaddata",
    "toaster lsupdates",
    "toaster runbuilds",
    "top",
    "undrain",
    "web",
];

/// The commands that work with the files of a build host.
const HOST: &[&str] = &[
    "add",
    "bisect",
    "delete",
    "diff",
    "doctor",
    "export",
    "image make",
    "import",
    "init",
    "list",
    "pin",
    "promote",
    "prune",
    "pull",
    "record",
    "rollback",
    "send",
    "status",
    "toaster checksettings",
    "token add",
    "token list",
    "token remove",
    "toolchain add",
    "toolchain delete",
    "toolchain list",
    "unpin",
    "upgrade",
    "verify",
];

/// The commands that work on this host, or that name the other host themselves.
const HERE: &[&str] = &[
    "completions",
    "context add",
    "context list",
    "context remove",
    "context show",
    "context use",
    "manual",
    "provide",
    "push",
    "receive",
    "relay",
    "toaster checksocket",
    "toaster perf",
];

/// Returns the reach of the command with this path below the program; `None` for an unknown one.
fn find(path: &str) -> Option<Reach> {
    let toaster = format!("toaster {path}");
    let is_in = |paths: &[&str]| paths.contains(&path) || paths.contains(&toaster.as_str());
    if is_in(AGENT) {
        Some(Reach::Agent)
    } else if is_in(HOST) {
        Some(Reach::Host)
    } else if is_in(HERE) {
        Some(Reach::Here)
    } else {
        None
    }
}

/// Returns true if a command, or one below it, works with an agent or describes one.
pub(crate) fn has_host(path: &str) -> bool {
    let is_below = |entry: &&str| {
        entry
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    !FARM_ONLY.contains(&path) && (find(path) == Some(Reach::Agent) || AGENT.iter().any(is_below))
}

/// Returns true if a command, or one below it, works with a farm.
pub(crate) fn shows_farm(path: &str) -> bool {
    let is_below = |entry: &&str| {
        entry
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    FARM.iter().any(is_below)
}

/// Returns true if a command works with a farm.
pub(crate) fn is_of_farm(path: &str) -> bool {
    FARM.contains(&path)
}

/// Refuses a command that cannot do its work with the agent that was named. `is_explicit` says that
/// the command line itself names a host.
pub(crate) fn check(
    path: &str,
    is_explicit: bool,
    endpoint: impl FnOnce() -> Result<Endpoint, Failure>,
) -> Result<(), Failure> {
    match find(path) {
        Some(Reach::Here) if is_explicit => {
            let text = format!("`{path}` does not speak to an agent, so --host has no meaning");
            Err(Failure::new(ExitStatus::Usage, text))
        }
        Some(Reach::Here) => Ok(()),
        Some(Reach::Agent) => match endpoint()? {
            Endpoint::Network(NetworkEndpoint {
                is_farm: true, url, ..
            }) => Err(refusal(path, &url)),
            _ => Ok(()),
        },
        Some(Reach::Host) | None => require_local(&format!("`{path}`"), path, &endpoint()?),
    }
}

/// Returns the refusal of a command that works with one agent for a farm.
fn refusal(path: &str, url: &AgentUrl) -> Failure {
    let text = format!(
        "`{path}` works with the agent of one host, and {url} is a farm; \
         name a host with --host, such as `buildhost --host ssh:HOST {path}`"
    );
    Failure::new(ExitStatus::Refused, text)
}

/// Refuses something that works with the files of this host if the agent is that of another one.
pub(crate) fn require_local(what: &str, path: &str, endpoint: &Endpoint) -> Result<(), Failure> {
    let host = match endpoint {
        Endpoint::Socket(_) => return Ok(()),
        Endpoint::Ssh(ssh) => ssh.host.to_string(),
        Endpoint::Network(network) => network.url.host().to_owned(),
    };
    let text = format!(
        "{what} works with the files of a build host, and the agent in use is at {place}; \
         run it there, as by `ssh {host} buildhost {path} …`, or on this host with `--host {local}`",
        place = endpoint.place(),
        local = HostAddress::LOCAL,
    );
    Err(Failure::new(ExitStatus::Refused, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::program::Program;

    /// Adds the paths of the commands that can be run to `found`.
    fn collect(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for child in command.get_subcommands() {
            if child.get_name() == "help" {
                continue;
            }
            let path = format!("{path} {}", child.get_name()).trim().to_owned();
            if !child.is_subcommand_required_set() {
                found.push(path.clone());
            }
            collect(child, &path, found);
        }
    }

    #[test]
    fn every_command_has_one_reach() {
        let mut tree = cli::tree(Program::Buildhost);
        tree.build();
        let mut paths = Vec::new();
        collect(&tree, "", &mut paths);
        for path in &paths {
            assert!(find(path).is_some(), "{path} has no reach");
        }
        let mut listed: Vec<&str> = [AGENT, HOST, HERE].concat();
        let number = listed.len();
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(listed.len(), number, "a command is listed twice");
        for path in listed {
            assert!(paths.iter().any(|it| it == path), "{path} does not exist");
        }
    }

    #[test]
    fn commands_about_files_name_the_way_to_the_other_host() {
        let remote = || {
            Ok(Endpoint::Ssh(client::SshEndpoint {
                ssh: "".parse().unwrap(),
                host: "root@build1".parse().unwrap(),
                program: "buildhost".to_owned(),
                socket: None,
            }))
        };
        for path in HOST {
            let failure = check(path, false, remote).unwrap_err();
            let text = failure.error.to_string();
            assert!(
                text.contains(&format!("`ssh root@build1 buildhost {path} …`")),
                "{text}"
            );
            let local = || Ok(Endpoint::Socket("/s".into()));
            assert!(check(path, false, local).is_ok());
        }
        for path in HERE {
            assert!(check(path, false, remote).is_ok(), "{path}");
            assert!(check(path, true, remote).is_err(), "{path}");
        }
        for path in AGENT {
            assert!(check(path, true, remote).is_ok(), "{path}");
        }
    }
}
