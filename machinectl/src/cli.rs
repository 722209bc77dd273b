//! The command tree, and the way from a command line to an exit status.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::exit_code::{self, ExitStatus, Failure};
use crate::options::{FARM_ID, GlobalOptions, HOST_ID};
use crate::output::{self, Output};
use crate::program::Program;
use crate::{
    build, cache, context, controllers, farm, feed, guest, help, host, layer, machine, manual,
    notify, project, reach, relay, schedule, secret, systemd, toaster, token, toolchain,
};

/// Manages machines, their images and toolchains, and the builds on a build host
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = exit_code::HELP)]
struct Cli {
    #[command(flatten)]
    options: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Machine(machine::Command),
    /// Add, list and delete toolchains
    #[command(subcommand)]
    Toolchain(toolchain::Command),
    #[command(flatten)]
    Build(build::Command),
    /// Start guests for other programs, run commands in them, copy files, stop them
    #[command(subcommand)]
    Guest(guest::Command),
    /// Add, list, show, run and remove schedules, which submit builds by the clock
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Add, list, show, change, build and remove projects of BitBake
    #[command(subcommand)]
    Project(project::Command),
    /// Add, list, show and remove layers, which projects have
    #[command(subcommand)]
    Layer(layer::Command),
    /// Add, list and delete secrets, which builds get in the memory of their guests
    #[command(subcommand)]
    Secret(secret::Command),
    /// List, show and prune caches, which builds of a machine and toolchain share
    #[command(subcommand)]
    Cache(cache::Command),
    #[command(flatten)]
    Controllers(controllers::Command),
    /// List, show and rebuild package feeds, from which clients with apt or opkg install
    #[command(subcommand)]
    Feed(feed::Command),
    /// List and try the rules for notifications about builds
    #[command(subcommand)]
    Notify(notify::Command),
    #[command(flatten)]
    Host(host::Command),
    #[command(flatten)]
    Farm(farm::Command),
    /// Add, list and remove tokens, which give access to the agent over the network
    #[command(subcommand)]
    Token(token::Command),
    /// Add, list, show, use and remove contexts, which name the agents of other hosts
    #[command(subcommand)]
    Context(context::Command),
    /// The management commands of Toaster
    #[command(subcommand)]
    Toaster(toaster::Command),
    /// The old spelling of `toaster …`; [`help`] hides it.
    #[command(flatten)]
    TopLevelToaster(toaster::Command),
    #[command(flatten)]
    Manual(manual::Command),
    #[command(flatten)]
    Relay(relay::Command),
}

/// A parsed command line.
struct Parsed {
    cli: Cli,
    /// The path of the command below the program.
    path: String,
    /// True if the command line itself names a host.
    has_host: bool,
}

impl Parsed {
    /// Checks that the command can do its work with the agent that was named, and runs it.
    fn run(&self, program: Program, output: &Output) -> Result<(), Failure> {
        let options = &self.cli.options;
        if options.json && !help::has_json(&self.path) {
            let text = format!("`{}` prints no JSON, so --json has no meaning", self.path);
            return Err(Failure::new(ExitStatus::Usage, text));
        }
        if reach::is_of_farm(&self.path) && options.has_farm()? {
            with_farm(&self.cli.command, options, output)?;
            return output.finish();
        }
        reach::check(&self.path, self.has_host, || options.endpoint())?;
        dispatch(&self.cli.command, program, options, output)?;
        output.finish()
    }
}

/// Runs the command line of the process.
pub(crate) fn run() -> ExitStatus {
    let program = Program::called();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match parse(program, &arguments) {
        Ok(parsed) => {
            let output = Output::new(program, &parsed.cli.options);
            match parsed.run(program, &output) {
                Ok(()) => ExitStatus::Success,
                Err(failure) => {
                    output.failure(&failure);
                    failure.status
                }
            }
        }
        Err(error) => {
            let is_unknown = error.kind() == ErrorKind::InvalidSubcommand;
            if is_unknown && program == Program::Machinectl {
                systemd::hand_over(&arguments[1..]);
            }
            if error.use_stderr() && arguments.iter().any(|argument| argument == "--json") {
                output::print_usage_error(&error.render().to_string());
                return ExitStatus::Usage;
            }
            print(&error)
        }
    }
}

/// Returns the command tree under a name of the program.
pub(crate) fn tree(program: Program) -> clap::Command {
    help::arrange(Cli::command().name(program.name()))
}

fn parse(program: Program, arguments: &[OsString]) -> Result<Parsed, clap::Error> {
    let mut tree = tree(program);
    let matches = tree.try_get_matches_from_mut(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut tree))?;
    let is_written = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    let (names_host, names_farm) = (is_written(HOST_ID), is_written(FARM_ID));
    if names_host && names_farm {
        let text = "--host and --farm exclude each other";
        return Err(tree.error(ErrorKind::ArgumentConflict, text));
    }
    // What is written precedes the environment.
    if names_host {
        cli.options.farm = None;
    }
    let has_host = names_host || names_farm;
    let path = path(&matches);
    Ok(Parsed {
        cli,
        path,
        has_host,
    })
}

/// Returns the global options of a command line, if it is one.
pub(crate) fn options_of(arguments: &[OsString]) -> Option<GlobalOptions> {
    let parsed = parse(Program::Buildhost, arguments).ok()?;
    Some(parsed.cli.options)
}

/// Returns the path of the command below the program.
pub(crate) fn path(mut matches: &ArgMatches) -> String {
    let mut path = Vec::new();
    while let Some((name, below)) = matches.subcommand() {
        path.push(name);
        matches = below;
    }
    path.join(" ")
}

/// Prints an error of the command line, or the help or version that was requested.
fn print(error: &clap::Error) -> ExitStatus {
    if error.print().is_err() {
        ExitStatus::Failure
    } else if error.use_stderr() {
        ExitStatus::Usage
    } else {
        ExitStatus::Success
    }
}

fn dispatch(
    command: &Command,
    program: Program,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        Command::Machine(command) => machine::run(command, options, output),
        Command::Toolchain(command) => toolchain::run(command, options, output),
        Command::Build(command) => build::run(command, options, output),
        Command::Guest(command) => guest::run(command, options, output),
        Command::Schedule(command) => schedule::run(command, options, output),
        Command::Project(command) => project::run(command, options, output),
        Command::Layer(command) => layer::run(command, options, output),
        Command::Secret(command) => secret::run(command, options, output),
        Command::Cache(command) => cache::run(command, options, output),
        Command::Controllers(command) => controllers::run(command, options, output),
        Command::Feed(command) => feed::run(command, options, output),
        Command::Notify(command) => notify::run(command, options, output),
        Command::Host(command) => host::run(command, options, output),
        Command::Farm(command) => farm::run(command, &farm::client(options)?, output),
        Command::Token(command) => token::run(command, output),
        Command::Context(command) => context::run(command, options, output),
        Command::Relay(relay::Command::Relay) => relay::run(options.socket()),
        Command::Toaster(command) | Command::TopLevelToaster(command) => {
            toaster::run(command, options, output)
        }
        Command::Manual(command) => manual::run(command, tree(program), output),
    }
}

/// Runs a command with the farm that the options name.
fn with_farm(command: &Command, options: &GlobalOptions, output: &Output) -> Result<(), Failure> {
    let client = farm::client(options)?;
    match command {
        Command::Farm(command) => farm::run(command, &client, output),
        Command::Build(command) => farm::run_builds(command, &client, output),
        Command::Machine(machine::Command::Revisions(command)) => {
            farm::end_trial(command, &client, output)
        }
        Command::Schedule(command) => farm::run_schedules(command, &client, output),
        Command::Project(command) => farm::run_projects(command, &client, output),
        Command::Toaster(toaster::Command::Buildslist) => farm::list_for_toaster(&client, output),
        Command::Host(host::Command::Drain(command)) => farm::drain(command, &client, output),
        _ => Err(Failure::new(
            ExitStatus::Usage,
            "a farm has no such command",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Old spellings with their present form. Scripts use them.
    const OLD_SPELLINGS: &[(&str, &str)] = &[
        ("why", "explain"),
        ("why 7", "explain 7"),
        ("build m s --no-attach", "build m s --no-coalesce"),
        (
            "push m h --far-volume /v --far-program p",
            "push m h --remote-volume /v --remote-program p",
        ),
        (
            "pull m h --far-volume /v --far-program p",
            "pull m h --remote-volume /v --remote-program p",
        ),
    ];

    /// Old spellings whose present form is parsed into another variant.
    const MOVED: &[(&str, &str)] = &[
        ("host", "host status"),
        ("host --json", "host status --json"),
        ("buildslist", "toaster buildslist"),
        ("builddelete 1 2", "toaster builddelete 1 2"),
        ("builddelete 1 --dry-run", "toaster builddelete 1 --dry-run"),
        ("perf --url u", "toaster perf --url u"),
        (
            "checksettings --config f",
            "toaster checksettings --config f",
        ),
        ("runbuilds", "toaster runbuilds"),
        ("checksocket", "toaster checksocket"),
    ];

    fn parsed(line: &str) -> Cli {
        let words = format!("buildhost {line}");
        let arguments: Vec<_> = words.split(' ').map(OsString::from).collect();
        parse(Program::Buildhost, &arguments)
            .unwrap_or_else(|error| panic!("{line}: {error}"))
            .cli
    }

    #[test]
    fn the_command_line_is_consistent() {
        tree(Program::Buildhost).debug_assert();
    }

    #[test]
    fn old_spellings_are_parsed_like_their_present_form() {
        for (old, new) in OLD_SPELLINGS {
            assert_eq!(format!("{:?}", parsed(old)), format!("{:?}", parsed(new)));
        }
        for (old, new) in MOVED {
            let (old, new) = (parsed(old), parsed(new));
            assert_eq!(format!("{:?}", old.options), format!("{:?}", new.options));
            match (&old.command, &new.command) {
                (Command::TopLevelToaster(old), Command::Toaster(new)) => {
                    assert_eq!(format!("{old:?}"), format!("{new:?}"));
                }
                (Command::Host(host::Command::Host { command: None }), Command::Host(new)) => {
                    assert!(matches!(new, host::Command::Host { command: Some(_) }));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn global_options_are_accepted_everywhere() {
        for line in [
            "--volume /v list",
            "list --volume /v",
            "--volume /v toolchain list",
            "toolchain --volume /v list",
            "toolchain list --volume /v",
            "schedule list --volume /v",
            "host --volume /v",
            "host status --volume /v",
            "--volume /v builds delete 7",
            "perf --volume /v",
            "completions bash --volume /v",
        ] {
            assert_eq!(parsed(line).options.volume.to_str(), Some("/v"), "{line}");
            let all = format!("{line} --toolchains /t --socket /s --json -q --no-legend");
            assert!(parsed(&all).options.json, "{all}");
        }
    }

    #[test]
    fn builds_are_listed_shown_or_deleted() {
        for (line, expected) in [
            ("builds", (false, false)),
            ("builds --machine m", (false, false)),
            ("builds 7", (true, false)),
            ("builds delete 7 8", (false, true)),
        ] {
            let cli = parsed(line);
            let Command::Build(build::Command::Builds { command, build, .. }) = cli.command else {
                panic!("{line}");
            };
            assert_eq!((build.is_some(), command.is_some()), expected, "{line}");
        }
        let line = ["buildhost", "builds", "7", "delete", "8"].map(OsString::from);
        assert!(parse(Program::Buildhost, &line).is_err());
    }
}
