//! Completion in shells: the values of arguments, as far as they can be known quickly.
//!
//! The scripts of [`crate::manual`] call the program with a variable in its environment, and the
//! words of the line. Errors are silent: the shell has no place for them.

mod candidates;
mod words;

use std::any::TypeId;
use std::ffi::OsString;

use clap::Arg;
use clap_complete::CompleteEnv;
use clap_complete::engine::ArgValueCandidates;
use client::ConsoleTarget;
use config::builds::State;
use config::task::Outcome;
use config::tokens::TokenName;
use config::{
    BuildId, CacheName, ContextName, LayerName, MachineName, ProjectName, ReleaseName, Revision,
    ScheduleName, SecretName, ToolchainName,
};

use crate::cli;
use crate::options::{COMPLETION_VARIABLE, HostOption};
use crate::program::Program;

/// A kind of values that can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Build,
    Cache,
    Context,
    /// A value of `--host`.
    Host,
    /// A build or a machine with a console.
    Guest,
    Layer,
    Machine,
    Outcome,
    Project,
    Release,
    Revision,
    Schedule,
    Secret,
    State,
    Token,
    Toolchain,
}

/// Answers a shell that completes a command line. Returns false if this is no such call.
pub(crate) fn answer(program: Program) -> bool {
    let tree = move || with_candidates(cli::tree(program), "");
    let directory = std::env::current_dir().ok();
    CompleteEnv::with_factory(tree)
        .var(COMPLETION_VARIABLE)
        .try_complete(std::env::args_os(), directory.as_deref())
        .unwrap_or(true)
}

/// Adds the values to the arguments of a command and of those below it.
fn with_candidates(command: clap::Command, name: &str) -> clap::Command {
    // The name of something that does not exist yet cannot be completed.
    let is_new = matches!(name, "add" | "import" | "make");
    let command = command.mut_args(|arg| match kind(&arg) {
        Some(kind) if !(is_new && arg.get_id() == "name") => {
            arg.add(ArgValueCandidates::new(move || candidates::of(kind)))
        }
        _ => arg,
    });
    command.mut_subcommands(|below| {
        let name = below.get_name().to_owned();
        with_candidates(below, &name)
    })
}

/// Returns the kind of an argument's values, by their type.
fn kind(arg: &Arg) -> Option<Kind> {
    let id = arg.get_value_parser().type_id();
    let kinds = [
        (TypeId::of::<BuildId>(), Kind::Build),
        (TypeId::of::<CacheName>(), Kind::Cache),
        (TypeId::of::<ContextName>(), Kind::Context),
        (TypeId::of::<HostOption>(), Kind::Host),
        (TypeId::of::<ConsoleTarget>(), Kind::Guest),
        (TypeId::of::<LayerName>(), Kind::Layer),
        (TypeId::of::<MachineName>(), Kind::Machine),
        (TypeId::of::<Outcome>(), Kind::Outcome),
        (TypeId::of::<ProjectName>(), Kind::Project),
        (TypeId::of::<ReleaseName>(), Kind::Release),
        (TypeId::of::<Revision>(), Kind::Revision),
        (TypeId::of::<ScheduleName>(), Kind::Schedule),
        (TypeId::of::<SecretName>(), Kind::Secret),
        (TypeId::of::<State>(), Kind::State),
        (TypeId::of::<TokenName>(), Kind::Token),
        (TypeId::of::<ToolchainName>(), Kind::Toolchain),
    ];
    let found = kinds.into_iter().find(|(known, _)| id == *known);
    found.map(|(_, kind)| kind)
}

/// Returns the words of the line that is completed.
fn line() -> Vec<OsString> {
    let words = std::env::args_os().skip_while(|word| word != "--");
    words.skip(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(path: &str, id: &str) -> Option<Kind> {
        let mut command = &cli::tree(Program::Buildhost);
        for name in path.split(' ').filter(|name| !name.is_empty()) {
            command = command.find_subcommand(name).unwrap();
        }
        let mut arguments = command.get_arguments();
        kind(arguments.find(|arg| arg.get_id() == id).unwrap())
    }

    #[test]
    fn the_type_of_an_argument_decides_about_its_values() {
        for (path, id, expected) in [
            ("", "agent_host", Some(Kind::Host)),
            ("", "token_file", None),
            ("build", "machine", Some(Kind::Machine)),
            ("build", "after", Some(Kind::Build)),
            ("build", "secrets", Some(Kind::Secret)),
            ("builds", "outcome", Some(Kind::Outcome)),
            ("builds", "state", Some(Kind::State)),
            ("builds", "project", Some(Kind::Project)),
            ("builds delete", "builds", Some(Kind::Build)),
            ("console", "guest", Some(Kind::Guest)),
            ("context use", "name", Some(Kind::Context)),
            ("cache show", "name", Some(Kind::Cache)),
            ("layer show", "name", Some(Kind::Layer)),
            ("pin", "revision", Some(Kind::Revision)),
            ("release show", "name", Some(Kind::Release)),
            ("schedule run", "name", Some(Kind::Schedule)),
            ("token remove", "name", Some(Kind::Token)),
            ("toolchain delete", "name", Some(Kind::Toolchain)),
        ] {
            assert_eq!(kind_of(path, id), expected, "{path} {id}");
        }
    }
}
