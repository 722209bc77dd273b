//! The verbs that take revisions to other places: `push`, `pull`, `export`, `send`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use config::{MachineName, Revision};
use store::receive::stream::Stream;
use store::send::{FarSide, Form, common_parent};
use store::{Intent, Refusal, Source, StoreError, Uuid, Volume};

use super::{Common, Ending, Failure, Rehearsal, Voice};

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
        #[arg(value_name = "[USER@]HOST")]
        host: String,
        /// Make the machine's next revision of this working subvolume first
        #[arg(long, value_name = "SUBVOLUME")]
        from: Option<PathBuf>,
        /// Send everything, also what the other side seems to have
        #[arg(long)]
        full: bool,
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
        #[arg(value_name = "[USER@]HOST")]
        host: String,
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
        default_value = "machinectl"
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
    let volume = Volume::open(&common.volume)?;
    match verb {
        Verb::Push {
            name,
            host,
            from,
            full,
            far,
            rehearsal,
        } => {
            if let Some(from) = from
                && !rehearsal.dry_run
            {
                prepare(&volume, name, from.clone(), voice)?;
            }
            push(
                &volume,
                name,
                &far.side(host),
                *full,
                rehearsal.dry_run,
                voice,
            )
        }
        Verb::Pull {
            name,
            host,
            far,
            rehearsal,
        } => pull(&volume, name, &far.side(host), rehearsal.dry_run, voice),
        Verb::Export {
            name,
            revision,
            output,
        } => {
            let Some(form) = Form::of(output) else {
                let text = "the file's name must end in .btrfs, .btrfs.zst, .tar or .tar.zst";
                return Err(Failure::new(Ending::Usage, text));
            };
            let revision = volume.export(name, *revision, output, form)?;
            voice.say(format!(
                "{name}: revision {revision} is in {}",
                output.display()
            ));
            Ok(())
        }
        Verb::Send {
            name,
            revision,
            known,
        } => send(&volume, name, *revision, known),
    }
}

/// The next revision, with a record of its content, of a working subvolume.
fn prepare(
    volume: &Volume,
    name: &MachineName,
    from: PathBuf,
    voice: &Voice,
) -> Result<(), Failure> {
    let there = volume.look(name).is_ok_and(|view| view.has_link());
    let intent = if there { Intent::Upgrade } else { Intent::Add };
    voice.say(format!(
        "{name}: recording the content of {}",
        from.display()
    ));
    let source = Source::Work(from);
    let arrival = volume.bring_in(intent, name, source)?;
    voice.say(format!(
        "{name}: revision {} is current here",
        arrival.plan.revision()
    ));
    Ok(())
}

fn push(
    volume: &Volume,
    name: &MachineName,
    far: &FarSide,
    full: bool,
    rehearsed: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    let view = volume.look(name)?;
    let Some(revision) = view.current else {
        let text =
            format!("machine `{name}` is not in service here; `machinectl status {name}` says why");
        return Err(Failure::new(Ending::NotFound, text));
    };
    let there = far.look(name)?;
    let known = there
        .as_ref()
        .map(store::send::FarView::identities)
        .unwrap_or_default();
    let live = there.as_ref().is_some_and(|there| there.current.is_some());
    let same = view
        .current()
        .is_some_and(|it| known.contains(&it.subvolume.stream_uuid()));
    if same && there.as_ref().and_then(|there| there.current) == Some(revision) {
        voice.say(format!(
            "{name}: revision {revision} is current on {} already",
            far.host
        ));
        return Ok(());
    }
    let known = if full { Vec::new() } else { known };
    let parent = common_parent(&view, revision, &known);
    let others = there
        .as_ref()
        .is_some_and(|there| !there.revisions.is_empty());
    let how = how(parent, others && !full);
    if rehearsed {
        return voice.print(&format!("would send revision {revision} {how}\n"));
    }
    voice.say(format!("{name}: sending revision {revision} {how}"));
    let parting = volume.send(name, Some(revision), &known)?;
    let stream = Stream::open(parting.stream)
        .map_err(Refusal::from)
        .map_err(StoreError::from)?;
    let intent = if live { Intent::Upgrade } else { Intent::Add };
    let mut progress = Progress::new(voice);
    let sent = far.bring_in(intent, name, stream, &mut |bytes| progress.show(bytes));
    progress.end();
    match sent {
        Err(StoreError::Refused(Refusal::Stream(error))) => {
            parting.sender.finish().map_err(StoreError::from)?;
            return Err(StoreError::from(Refusal::Stream(error)).into());
        }
        sent => sent?,
    };
    voice.say(format!(
        "{name}: revision {revision} is current on {}",
        far.host
    ));
    Ok(())
}

fn how(parent: Option<Revision>, has_others: bool) -> String {
    match parent {
        Some(parent) => format!("as what differs from revision {parent}"),
        None if has_others => {
            "in full, because no revision there is the same as one here".to_owned()
        }
        None => "in full".to_owned(),
    }
}

fn pull(
    volume: &Volume,
    name: &MachineName,
    far: &FarSide,
    rehearsed: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    let there = far.look(name)?;
    let Some(revision) = there.as_ref().and_then(|there| there.current) else {
        let text = format!("machine `{name}` is not in service on {}", far.host);
        return Err(Failure::new(Ending::NotFound, text));
    };
    let here = volume.look(name).ok();
    if let Some(current) = here.as_ref().and_then(|view| view.current)
        && revision <= current
    {
        voice.say(format!(
            "{name}: revision {current} is current here, {revision} there"
        ));
        return Ok(());
    }
    if rehearsed {
        return voice.print(&format!("would fetch revision {revision}\n"));
    }
    let (running, input) = far.send(name, Some(revision), &volume.identities(name))?;
    let stream = match Stream::open(input) {
        Ok(stream) => stream,
        Err(error) => {
            far.sent(running)?;
            return Err(StoreError::from(Refusal::Stream(error)).into());
        }
    };
    let how = if stream.header().parent.is_some() {
        "as what differs"
    } else {
        "in full"
    };
    voice.say(format!("{name}: fetching revision {revision} {how}"));
    let live = here.is_some_and(|view| view.has_link());
    let intent = if live { Intent::Upgrade } else { Intent::Add };
    match volume.bring_in(intent, name, Source::Stream(stream)) {
        Err(StoreError::Refused(Refusal::Stream(error))) => {
            // Why the other side stopped says more.
            far.sent(running)?;
            return Err(StoreError::from(Refusal::Stream(error)).into());
        }
        arrival => arrival?,
    };
    voice.say(format!("{name}: revision {revision} is current"));
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
    let stream = Stream::open(parting.stream)
        .map_err(Refusal::from)
        .map_err(StoreError::from)?;
    if let Err(error) = stream.pour(std::io::stdout().lock()) {
        parting.sender.finish().map_err(StoreError::from)?;
        return Err(StoreError::from(Refusal::Stream(error)).into());
    }
    Ok(())
}

/// How much has passed, on a terminal.
struct Progress {
    shown: bool,
    begun: Instant,
    last: Instant,
    bytes: u64,
}

impl Progress {
    fn new(voice: &Voice) -> Self {
        let now = Instant::now();
        let shown = !voice.quiet() && std::io::stderr().is_terminal();
        Self {
            shown,
            begun: now,
            last: now,
            bytes: 0,
        }
    }

    fn show(&mut self, bytes: u64) {
        self.bytes = bytes;
        if self.shown && self.last.elapsed() > Duration::from_millis(200) {
            self.last = Instant::now();
            let seconds = u64::try_from(self.begun.elapsed().as_millis())
                .unwrap_or(1)
                .max(1);
            let rate = (bytes.saturating_mul(1000) / seconds) >> 20;
            let _ = write!(std::io::stderr(), "\r  {} MiB, {rate} MiB/s ", bytes >> 20);
        }
    }

    fn end(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
