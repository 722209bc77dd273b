//! The commands about the build host: its status, its queue, its health, its volume.

mod doctor;
mod drain;
mod init;
mod slsa;
mod status;
mod top;
mod web;

use clap::Subcommand;

use crate::exit_code::Failure;
use crate::options::GlobalOptions;
use crate::output::Output;

pub(crate) use drain::Command as DrainCommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the activity, capacity and problems of the host
    Host {
        // Without a command, `host` is the old spelling of `host status`.
        #[command(subcommand)]
        command: Option<HostCommand>,
    },
    /// Watch guests, queue and machines until `q` is pressed
    Top {
        /// Print the view once
        #[arg(long)]
        once: bool,
    },
    /// Print a link that signs a browser in to the web page
    ///
    /// The link is valid once, within a minute. The browser has the rights of the user of this
    /// command: root may do everything, the members of the setting http.group may submit. The page
    /// is at the address of the setting http.listen; others sign in there with a token.
    Web {
        /// Open the link in the browser of this desktop
        #[arg(long)]
        open: bool,
    },
    #[command(flatten)]
    Drain(drain::Command),
    #[command(flatten)]
    Doctor(doctor::Command),
    /// Compare the host with the SLSA build track
    #[command(subcommand)]
    Slsa(slsa::Command),
    #[command(flatten)]
    Init(init::Command),
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Show the activity, capacity and problems of the host
    Status,
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let client = || options.client();
    match command {
        Command::Host {
            command: Some(HostCommand::Status) | None,
        } => status::run(&client()?.status()?, output),
        Command::Top { once } => top::run(&client()?, *once, output),
        Command::Web { open } => web::run(&client()?, *open, output),
        Command::Drain(command) => drain::run(command, &client()?, output),
        Command::Doctor(command) => doctor::run(command, options, output),
        Command::Slsa(slsa::Command::Check) => slsa::check(&client()?.slsa()?, output),
        Command::Init(command) => init::run(command, output),
    }
}
