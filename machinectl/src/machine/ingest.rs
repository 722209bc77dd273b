//! The verbs that bring images in: `add` and `upgrade`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::MachineName;
use store::ingest::IngestRefusal;
use store::ingest::import::Import;
use store::stream::Stream;
use store::stream::input::{Patient, Sender};
use store::{Arrival, Intent, Plan, RefusalKind, Source, StoreError, Volume};

use super::revisions::Retention;
use crate::{Common, Ending, Failure, Rehearsal, Voice};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a new machine from an image
    ///
    /// A stream must be named NAME-NUMBER by its sender, as in
    /// `btrfs send NAME-1 | machinectl add NAME`.
    Add(Request),
    /// Bring a new revision of a machine in
    ///
    /// Builds that run go on with the old one. A revision must have a higher number
    /// than the current one; incremental streams build on any revision that is here.
    Upgrade(Request),
    /// Make a machine, or its next revision, of what is no subvolume
    ///
    /// A record of the content goes with it, so that it can be checked wherever it
    /// is pushed to.
    Import {
        /// The machine
        name: MachineName,
        /// A disk image, raw or qcow2; a directory; or an archive, as `NAME.tar.zst`
        source: PathBuf,
        /// A kernel to boot the disk with
        #[arg(long, value_name = "FILE")]
        kernel: Option<PathBuf>,
        /// The initial RAM disk for that
        #[arg(long, value_name = "FILE", requires = "kernel")]
        initrd: Option<PathBuf>,
        /// What the machine says of itself, instead of a plain one
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
        #[command(flatten)]
        retention: Retention,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Request {
    /// The machine
    name: MachineName,
    /// A file with a `btrfs send` stream, `-` for standard input, or a subvolume
    #[arg(long, value_name = "FILE|-|SUBVOLUME")]
    from: Option<PathBuf>,
    #[command(flatten)]
    retention: Retention,
    #[command(flatten)]
    rehearsal: Rehearsal,
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let volume = Volume::open(&common.volume)?;
    let (intent, request) = match verb {
        Verb::Add(request) => (Intent::Add, request),
        Verb::Upgrade(request) => (Intent::Upgrade, request),
        Verb::Import {
            name,
            source,
            kernel,
            initrd,
            manifest,
            retention,
            rehearsal,
        } => {
            let mut import = Import::of(source)?;
            import.kernel.clone_from(kernel);
            import.initrd.clone_from(initrd);
            import.manifest.clone_from(manifest);
            let arrival = import_machine(&volume, name, import, rehearsal.dry_run)?;
            return end(
                &volume,
                name,
                &arrival,
                *retention,
                rehearsal.dry_run,
                voice,
            );
        }
    };
    let (sender, source) = open(request.from.as_deref(), &volume)?;
    let arrival = if request.rehearsal.dry_run {
        let plan = volume.plan_arrival(intent, &request.name, &source)?;
        let before = volume
            .look(&request.name)
            .ok()
            .and_then(|view| view.current);
        Arrival { plan, before }
    } else {
        let result = volume.bring_in(intent, &request.name, source);
        settle(sender, result)?
    };
    let (name, rehearsed) = (&request.name, request.rehearsal.dry_run);
    end(&volume, name, &arrival, request.retention, rehearsed, voice)
}

/// Tells what came in, and prunes.
fn end(
    volume: &Volume,
    name: &MachineName,
    arrival: &Arrival,
    retention: Retention,
    rehearsed: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    tell(name, arrival, rehearsed, voice)?;
    if rehearsed {
        return retention.rehearse(volume, name, arrival.plan.revision(), voice);
    }
    retention.apply(volume, name, voice);
    Ok(())
}

fn import_machine(
    volume: &Volume,
    name: &MachineName,
    import: Import,
    rehearsed: bool,
) -> Result<Arrival, Failure> {
    let there = volume.look(name).is_ok_and(|view| view.has_link());
    let intent = if there { Intent::Upgrade } else { Intent::Add };
    let source = Source::Import(import);
    if rehearsed {
        let plan = volume.plan_arrival(intent, name, &source)?;
        let before = volume.look(name).ok().and_then(|view| view.current);
        return Ok(Arrival { plan, before });
    }
    Ok(volume.bring_in(intent, name, source)?)
}

/// When the sender has failed, that is why the stream is cut.
fn settle(
    sender: Option<Sender>,
    result: Result<Arrival, StoreError>,
) -> Result<Arrival, StoreError> {
    match (sender, result) {
        (Some(sender), Err(error)) if error.kind() == Some(RefusalKind::BadStream) => {
            sender.finish()?;
            Err(error)
        }
        (_, result) => result,
    }
}

fn open(from: Option<&Path>, volume: &Volume) -> Result<(Option<Sender>, Source), Failure> {
    let stream = |input| Ok::<_, StoreError>(Source::Stream(Stream::open(input)?));
    match from {
        Some(path) if path != Path::new("-") => {
            if !path.is_dir() {
                return Ok((None, stream(Patient::open(path)?)?));
            }
            match volume.holds(path)? {
                None => Err(StoreError::from(IngestRefusal::NotSubvolume(path.to_owned())).into()),
                Some(true) => Ok((None, Source::Subvolume(path.to_owned()))),
                Some(false) => {
                    let (sender, input) = Sender::start(path, None)?;
                    match Stream::open(input) {
                        Ok(stream) => Ok((Some(sender), Source::Stream(stream))),
                        Err(error) => {
                            sender.finish().map_err(StoreError::from)?;
                            Err(StoreError::from(error).into())
                        }
                    }
                }
            }
        }
        None if std::io::stdin().is_terminal() => Err(Failure::new(
            Ending::Usage,
            "no image; give one by `--from`, or put `btrfs send NAME-NUMBER |` before this",
        )),
        _ => Ok((None, stream(Patient::pipe(std::io::stdin())?)?)),
    }
}

fn tell(
    name: &MachineName,
    arrival: &Arrival,
    rehearsed: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    let revision = arrival.plan.revision();
    let how = match arrival.plan {
        Plan::Make(_) => "new",
        Plan::MakeAnew(_) => "new, in place of a half that was left there",
        Plan::Adopt(_) => "there already, only its link was missing",
    };
    let before = arrival
        .before
        .map_or_else(String::new, |before| format!(", it was {before}"));
    if rehearsed && !voice.json() {
        voice.would(format!(
            "make revision {revision} of {name} current{before} ({how})"
        ))?;
    } else if !rehearsed {
        voice.say(format!(
            "{name}: revision {revision} is current{before} ({how})"
        ));
    }
    if voice.json() {
        let before = arrival.before.map(|before| before.0);
        let json = serde_json::json!({
            "machine": name, "current": revision.0, "before": before, "dry_run": rehearsed,
        });
        voice.print_json(&json)?;
    }
    Ok(())
}
