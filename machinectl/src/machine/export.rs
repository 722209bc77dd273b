//! The commands that write a revision as a stream or an archive: `export`, `send`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use config::{MachineName, Revision};
use store::send::ExportFormat;
use store::{Uuid, Volume};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a revision to a file
    Export {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The revision; by default the current one
        revision: Option<Revision>,
        /// The file; its suffix selects the format: `.btrfs` for a stream or `.tar` for an archive,
        /// compressed if `.zst` follows
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Write a revision to standard output as a `btrfs send` stream
    Send {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The revision; by default the current one
        revision: Option<Revision>,
        /// The UUID of a revision that the receiver has, on which the stream may build
        #[arg(long, value_name = "UUID")]
        known: Vec<Uuid>,
        /// Print only the approximate size of the stream in bytes
        #[arg(long)]
        measure: bool,
    },
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let volume = Volume::open(&options.volume)?;
    match command {
        Command::Export {
            name,
            revision,
            output: file,
            dry_run,
        } => export(&volume, name, *revision, file, *dry_run, output),
        Command::Send {
            name,
            revision,
            known,
            measure: true,
        } => {
            let bytes = volume.estimate_size(name, *revision, known)?;
            output.print(&format!("{bytes}\n"))
        }
        Command::Send {
            name,
            revision,
            known,
            measure: false,
        } => send(&volume, name, *revision, known),
    }
}

fn export(
    volume: &Volume,
    name: &MachineName,
    revision: Option<Revision>,
    file: &Path,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let Some(format) = ExportFormat::of(file) else {
        let text = "the file's name must end in .btrfs, .btrfs.zst, .tar or .tar.zst";
        return Err(Failure::new(ExitStatus::Usage, text));
    };
    if dry_run.enabled {
        let revision = volume.resolve_revision(name, revision)?;
        let file = file.display();
        return output.plan(format_args!(
            "write revision {revision} of {name} to {file}"
        ));
    }
    let revision = volume.export(name, revision, file, format)?;
    let file = file.display();
    output.status(format_args!("{name}: wrote revision {revision} to {file}"));
    Ok(())
}

fn send(
    volume: &Volume,
    name: &MachineName,
    revision: Option<Revision>,
    known: &[Uuid],
) -> Result<(), Failure> {
    if std::io::stdout().is_terminal() {
        return Err(Failure::new(
            ExitStatus::Usage,
            "refusing to write a stream to a terminal; append `| COMMAND` or `> FILE`",
        ));
    }
    let outgoing = volume.send(name, revision, known)?;
    outgoing.copy_to(std::io::stdout().lock())?;
    Ok(())
}
