//! The verbs about guests that run: a person at a console.

mod terminal;

use clap::Subcommand;
use config::{BuildId, MachineName};

use super::client::{Client, ClientError};
use super::{Common, Failure, Voice};

pub(super) use terminal::Line;

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
