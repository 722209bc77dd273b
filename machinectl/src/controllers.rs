//! The commands about controllers.

mod enrol;
mod forget;
mod listing;

use clap::Subcommand;

use crate::exit_code::Failure;
use crate::options::GlobalOptions;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the controllers, which hand out tasks, and why one is not asked now
    #[command(args_conflicts_with_subcommands = true)]
    Controllers {
        #[command(subcommand)]
        command: Option<ControllersCommand>,
    },
    /// Enrol this host in a farm, from which it takes builds then
    ///
    /// The agent makes a key for the farm, and exchanges the token for the right to use it. A repetition
    /// with the same token does no harm.
    Enrol(enrol::Enrol),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ControllersCommand {
    /// Give up the builds and results of a controller that was removed from the settings
    ///
    /// Its builds that wait or run are ended, and the results that it does not have are never reported.
    /// The builds stay, and may be deleted then.
    Forget(forget::Forget),
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        Command::Controllers { command: None } => {
            listing::print(&options.client()?.controllers()?, output)
        }
        Command::Controllers {
            command: Some(ControllersCommand::Forget(arguments)),
        } => forget::run(arguments, options, output),
        Command::Enrol(arguments) => enrol::run(arguments, options, output),
    }
}
