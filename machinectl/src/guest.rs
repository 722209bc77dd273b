//! The commands about driven guests, which other programs use: `guest start`, `exec`, `cp`, `stop`.

mod copy;
mod exec;
mod pack;
mod path;
mod start;
mod unpack;

use clap::Subcommand;
use client::Client;
use config::BuildId;
use config::builds::{Build, ListQuery, State};
use config::exec::{CommandEnd, CommandRecord};

use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, Table, time};

const EXAMPLES: &str = "\
Examples:
  number=$(buildhost guest start linux-gcc_14 --idle 10m)
  buildhost guest exec $number -- sh -s < script.sh
  buildhost guest cp hello.tar.gz $number:/root/
  buildhost guest exec $number --cwd /root -- tar xf hello.tar.gz
  buildhost guest cp $number:/root/hello ./hello
  buildhost guest stop $number";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a throw-away guest that waits for commands, and print its number
    ///
    /// The guest is a build: it waits in the queue, has the limits of its machine, and `builds`,
    /// `explain`, `log` and `cancel` apply to it. The command waits until the guest runs.
    #[command(after_help = EXAMPLES)]
    Start(Box<start::Start>),
    /// Run a command in a guest, with its input, outputs and exit code
    ///
    /// The command gets the standard input, and its two outputs are separate. Its outputs also go to
    /// the log of the build, with secrets masked. If this program ends or is interrupted, the command
    /// is ended: SIGTERM, and SIGKILL after 5 s. Up to 16 commands run in a guest at the same time.
    ///
    /// The exit code is that of the command, 128 and the number of the signal that has ended it, 126
    /// if it cannot be run, 127 if it does not exist, 125 if it was not started at all (the message
    /// says why), and 255 if its guest or the agent has ended before it.
    Exec(exec::Exec),
    /// Copy a file or a directory into a guest, or out of it
    ///
    /// A target that is a directory gets the file or directory with its name; otherwise the target is
    /// the new name. The guest needs `tar`. What comes out of a guest is written nowhere but to the
    /// target: links are copied as links and never followed, devices are left out.
    Cp(copy::Copy),
    /// End a guest; its build succeeds
    ///
    /// Commands that run are ended. Files in the directory $BUILDHOST_OUT of the guest become
    /// artifacts of the build.
    Stop {
        /// The number of the guest
        #[arg(value_name = "GUEST")]
        guest: BuildId,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List the guests that wait or run, or the commands of one
    List {
        /// List the commands of this guest
        #[arg(value_name = "GUEST")]
        guest: Option<BuildId>,
    },
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let client = || options.client();
    match command {
        Command::Start(arguments) => start::run(&client()?, arguments, output),
        Command::Exec(arguments) => exec::run(options, arguments),
        Command::Cp(arguments) => copy::run(&client()?, arguments, output),
        Command::Stop { guest, dry_run } => stop(&client()?, *guest, *dry_run, output),
        Command::List { guest: None } => list(&guests(&client()?)?, output),
        Command::List { guest: Some(guest) } => commands(&client()?.commands(*guest)?, output),
    }
}

fn stop(client: &Client, id: BuildId, dry_run: DryRun, output: &Output) -> Result<(), Failure> {
    if dry_run.enabled {
        let state = client.build(id)?.state;
        return output.plan(format_args!(
            "stop the guest of build {id}, which is {state}"
        ));
    }
    client.stop(id)?;
    crate::build::wait_for_outcome(client, id, output)
}

/// Returns the guests that wait or run, the newest first.
fn guests(client: &Client) -> Result<Vec<Build>, Failure> {
    let mut guests = Vec::new();
    for state in [
        State::Queued,
        State::Starting,
        State::Running,
        State::Storing,
    ] {
        let mut page = Some(ListQuery {
            state: Some(state),
            ..ListQuery::default()
        });
        while let Some(query) = page {
            let builds = client.builds(&query)?;
            page = query.next(&builds);
            let driven = builds.into_iter();
            guests.extend(driven.filter(|it| it.interactive.commands.is_some()));
        }
    }
    guests.sort_by_key(|guest| std::cmp::Reverse(guest.id));
    guests.dedup_by_key(|guest| guest.id);
    Ok(guests)
}

fn list(guests: &[Build], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&guests);
    }
    let mut table = Table::new(["GUEST", "STATE", "MACHINE", "NAME", "SUBMITTER", "STARTED"]);
    for guest in guests {
        table.add([
            guest.id.to_string(),
            guest.state.to_string(),
            guest.machine.to_string(),
            guest.target.to_string(),
            guest.submitter.to_string(),
            guest.started.map(time).unwrap_or_default(),
        ]);
    }
    output.print_table(&table)
}

fn commands(commands: &[CommandRecord], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&commands);
    }
    let mut table = Table::new([
        "COMMAND",
        "STARTED",
        "SECONDS",
        "END",
        "SUBMITTER",
        "PROGRAM",
    ]);
    for command in commands {
        let seconds = command
            .ended
            .map(|ended| ended.duration_since(command.started));
        table.add([
            command.number.to_string(),
            time(command.started),
            seconds.map_or_else(String::new, |it| format!("{:.1}", it.as_secs_f64())),
            command.end.map_or_else(|| "runs".to_owned(), shown),
            command.submitter.to_string(),
            command.command.join(" "),
        ]);
    }
    output.print_table(&table)
}

fn shown(end: CommandEnd) -> String {
    end.to_string()
}
