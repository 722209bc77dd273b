//! The verbs that take revisions to other places: `push`, `pull`, `export`, `send`.

mod progress;

mod transfer;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::{MachineName, Revision};
use store::send::{FarSide, Form};
use store::stream::Stream;
use store::{StoreError, Uuid, Volume};

use transfer::Trip;

use super::revisions::Retention;
use crate::{Common, Ending, Failure, Rehearsal, Voice};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Send a machine's current revision to another host, where it becomes current
    ///
    /// Only what differs from the newest revision that both have is sent. The other
    /// side checks the content and is as it was if anything goes wrong.
    Push {
        /// The machine
        name: MachineName,
        /// The other host
        #[arg(value_name = "[USER@]HOST", value_parser = host)]
        host: String,
        /// Make the machine's next revision of this working subvolume first
        #[arg(long, value_name = "SUBVOLUME")]
        from: Option<PathBuf>,
        /// Send everything, also what the other side seems to have
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        retention: Retention,
        #[command(flatten)]
        far: Far,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Fetch a machine's current revision from another host and make it current here
    Pull {
        /// The machine
        name: MachineName,
        /// The other host
        #[arg(value_name = "[USER@]HOST", value_parser = host)]
        host: String,
        #[command(flatten)]
        retention: Retention,
        #[command(flatten)]
        far: Far,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Write a revision to a file
    Export {
        /// The machine
        name: MachineName,
        /// The revision; without it the current one
        revision: Option<Revision>,
        /// The file: `.btrfs` for a stream or `.tar` for an archive, each also `.zst`
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Write a revision to standard output as a `btrfs send` stream
    Send {
        /// The machine
        name: MachineName,
        /// The revision; without it the current one
        revision: Option<Revision>,
        /// An identity that the receiver has; the stream may build on it
        #[arg(long, value_name = "UUID")]
        known: Vec<Uuid>,
        /// Only print about how many bytes the stream will have
        #[arg(long)]
        measure: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Far {
    /// The volume on the other host; without it the default there
    #[arg(id = "far_volume", long = "far-volume", value_name = "DIR")]
    volume: Option<PathBuf>,
    /// The program to call on the other host
    #[arg(
        long = "far-program",
        value_name = "PROGRAM",
        default_value = "buildhost"
    )]
    program: String,
    /// The ssh to use, with its options
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "ssh",
        env = "BUILDHOST_SSH"
    )]
    ssh: String,
}

/// A host's name, as far as it matters to us: ssh knows the rest.
fn host(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.starts_with('-') || text.contains(char::is_whitespace) {
        return Err("write HOST or USER@HOST");
    }
    Ok(text.to_owned())
}

impl Far {
    fn side(&self, host: &str) -> FarSide {
        FarSide {
            ssh: self.ssh.clone(),
            host: host.to_owned(),
            program: self.program.clone(),
            volume: self.volume.clone(),
        }
    }
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let volume = &Volume::open(&common.volume)?;
    let trip = |name, far, retention| Trip {
        volume,
        name,
        far,
        retention,
        voice,
    };
    match verb {
        Verb::Push {
            name,
            host,
            from,
            full,
            retention,
            far,
            rehearsal,
        } => {
            let far = far.side(host);
            trip(name, &far, *retention).push(from.as_deref(), *full, rehearsal.dry_run)
        }
        Verb::Pull {
            name,
            host,
            retention,
            far,
            rehearsal,
        } => {
            let far = far.side(host);
            trip(name, &far, *retention).pull(rehearsal.dry_run)
        }
        Verb::Export {
            name,
            revision,
            output,
            rehearsal,
        } => export(volume, name, *revision, output, rehearsal.dry_run, voice),
        Verb::Send {
            name,
            revision,
            known,
            measure,
        } => {
            if *measure {
                let bytes = volume.measure(name, *revision, known)?;
                return voice.print(&format!("{bytes}\n"));
            }
            send(volume, name, *revision, known)
        }
    }
}

fn export(
    volume: &Volume,
    name: &MachineName,
    revision: Option<Revision>,
    output: &Path,
    rehearsed: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    let Some(form) = Form::of(output) else {
        let text = "the file's name must end in .btrfs, .btrfs.zst, .tar or .tar.zst";
        return Err(Failure::new(Ending::Usage, text));
    };
    let to = output.display();
    if rehearsed {
        let revision = volume.plan_send(name, revision)?;
        return voice.would(format!("write revision {revision} of {name} to {to}"));
    }
    let revision = volume.export(name, revision, output, form)?;
    voice.say(format!("{name}: revision {revision} is in {to}"));
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
            Ending::Usage,
            "a stream is nothing for a terminal; put `| ...` or `> FILE` after this",
        ));
    }
    let parting = volume.send(name, revision, known)?;
    let stream = match Stream::open(parting.stream) {
        Ok(stream) => stream,
        Err(error) => {
            // Why the sender failed says more.
            parting.sender.finish().map_err(StoreError::from)?;
            return Err(StoreError::from(error).into());
        }
    };
    if let Err(error) = stream.pour(std::io::stdout().lock()) {
        parting.sender.finish().map_err(StoreError::from)?;
        return Err(StoreError::from(error).into());
    }
    Ok(())
}
