//! The verbs about guests that run: a person at a console.

mod terminal;

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use config::builds::{Build, HoldKind, State};
use config::task::Breakpoint;
use config::{BuildId, MachineName, ToolchainName};

use super::submit::Wanted;
use super::{get, submit};
use crate::{Common, Ending, Failure, Rehearsal, Voice};
use client::{Client, ClientError};

/// How often we look whether a build has come to its breakpoint.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Connect the terminal with the serial console of a running guest
    ///
    /// One person types, any number watches. `^]` leaves; the guest runs on.
    Console {
        /// A build, or a machine that builds or is bootstrapped
        #[arg(value_name = "BUILD|MACHINE")]
        guest: Guest,
        /// Only watch
        #[arg(short, long)]
        read_only: bool,
    },
    /// Build with a breakpoint, and connect the terminal with the shell that waits there
    ///
    /// The build goes on when that shell ends, by `machinectl resume`, or when its time
    /// is over (builds.hold_seconds_max).
    Login {
        /// The machine
        machine: MachineName,
        /// Source files, as for `build`; none are needed to stop at the start
        #[arg(value_name = "SOURCE")]
        sources: Vec<PathBuf>,
        /// Where the build stops
        #[arg(long, value_name = "start|warning|error", value_parser = submit::breakpoint)]
        #[arg(default_value = "start")]
        at: Breakpoint,
        /// The toolchain; the agent's default when it is left out
        #[arg(long, value_name = "NAME")]
        toolchain: Option<ToolchainName>,
    },
    /// Let a build go on that waits at its breakpoint
    Resume {
        /// The build
        build: BuildId,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Boot a copy of what is held of a failed build, with a shell at the terminal
    ///
    /// The copy has a network of its own and finds the sources again; its disk is as
    /// the build left it. It goes when the shell ends, when `^]` leaves, or when its time
    /// is over (builds.hold_seconds_max), and with it all that was done in it. What is
    /// held stays as it is: attach as often as you like, to several copies at once, too.
    Attach {
        /// The build
        build: BuildId,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Let go of the guest and the snapshot that are held of a failed build
    Release {
        /// The build
        build: BuildId,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

/// Whose console.
#[derive(Debug, Clone)]
pub(crate) enum Guest {
    /// The guest of a build.
    Build(BuildId),
    /// The only guest of a machine.
    Machine(MachineName),
}

impl std::str::FromStr for Guest {
    type Err = config::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(id) => Ok(Self::Build(id)),
            Err(_) => text.parse().map(Self::Machine),
        }
    }
}

impl Guest {
    fn path(&self) -> String {
        match self {
            Self::Build(id) => format!("builds/{id}/console"),
            Self::Machine(name) => format!("machines/{name}/console"),
        }
    }
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let client = Client::new(&common.socket)?;
    match verb {
        Verb::Console { guest, read_only } => console(&client, guest, !read_only, voice),
        Verb::Attach { build, rehearsal } => attach(&client, *build, rehearsal, voice),
        Verb::Login {
            machine,
            sources,
            at,
            toolchain,
        } => {
            let (machine, toolchain) = (machine.clone(), toolchain.clone());
            let wanted = Wanted::interactive(machine, toolchain, sources.clone(), *at);
            let build = submit::submit(&client, &wanted, voice)?;
            login(&client, build.id, voice)
        }
        Verb::Resume { build, rehearsal } => {
            let words = format!("let build {build} go on");
            let waits = |held| matches!(held, HoldKind::Breakpoint);
            tell(&client, *build, "resume", rehearsal, (&words, waits), voice)
        }
        Verb::Release { build, rehearsal } => {
            let words = format!("let go of what is held of build {build}");
            let held = |held| matches!(held, HoldKind::Guest | HoldKind::Snapshot);
            tell(&client, *build, "release", rehearsal, (&words, held), voice)
        }
    }
}

/// Tells the agent a word about a build, or only whether it could be told.
fn tell(
    client: &Client,
    id: BuildId,
    verb: &str,
    rehearsal: &Rehearsal,
    (words, fits): (&str, impl Fn(HoldKind) -> bool),
    voice: &Voice,
) -> Result<(), Failure> {
    if rehearsal.dry_run {
        return rehearse(client, id, (words, fits), voice);
    }
    let _: Build = client.post(&format!("builds/{id}/{verb}"), &())?;
    voice.say(format!("done: {words}"));
    Ok(())
}

fn rehearse(
    client: &Client,
    id: BuildId,
    (words, fits): (&str, impl Fn(HoldKind) -> bool),
    voice: &Voice,
) -> Result<(), Failure> {
    let build = get(client, id)?;
    if build.interactive.held.is_some_and(|held| fits(held.kind)) {
        return voice.would(words);
    }
    let text = format!("cannot {words}: nothing waits");
    Err(Failure::new(Ending::Refused, text))
}

/// Boots a copy of what is held of a build, and connects with its console.
fn attach(
    client: &Client,
    id: BuildId,
    rehearsal: &Rehearsal,
    voice: &Voice,
) -> Result<(), Failure> {
    if rehearsal.dry_run {
        let words = format!("boot a copy of what is held of build {id}");
        let held = |held| matches!(held, HoldKind::Guest | HoldKind::Snapshot);
        return rehearse(client, id, (&words, held), voice);
    }
    let line = client.console(&format!("builds/{id}/attach"), true)?;
    voice.say(format!(
        "a copy of what is held of build {id} boots; `^]` leaves and ends it"
    ));
    terminal::connect(line).map_err(ClientError::Console)?;
    voice.say("the copy is gone");
    Ok(())
}

/// Waits until a build has come to its breakpoint, and connects with its console.
fn login(client: &Client, id: BuildId, voice: &Voice) -> Result<(), Failure> {
    let mut said = String::new();
    loop {
        let build = get(client, id)?;
        if let Some(outcome) = build.outcome {
            let text = format!(
                "build {id} has finished before its breakpoint: {outcome} {}",
                build.message
            );
            return Err(Failure::new(Ending::Refused, text.trim_end()));
        }
        if build.interactive.held.is_some() {
            console(client, &Guest::Build(id), true, voice)?;
            voice.say(format!(
                "`machinectl resume {id}` lets it go on, `machinectl log -f {id}` shows it"
            ));
            return Ok(());
        }
        if build.state == State::Queued && !build.message.is_empty() && build.message != said {
            voice.say(format!("build {id} waits: {}", build.message));
            said.clone_from(&build.message);
        }
        std::thread::sleep(PAUSE);
    }
}

fn console(client: &Client, guest: &Guest, types: bool, voice: &Voice) -> Result<(), Failure> {
    let line = client.console(&guest.path(), types)?;
    let hint = if types {
        ""
    } else {
        ", and nothing that is typed arrives"
    };
    voice.say(format!("connected; `^]` leaves{hint}"));
    let left = terminal::connect(line).map_err(ClientError::Console)?;
    voice.say(match left {
        terminal::Left::Guest => "the guest has ended",
        terminal::Left::Person => "left; the guest runs on",
    });
    Ok(())
}
