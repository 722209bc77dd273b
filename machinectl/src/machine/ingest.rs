//! The commands that bring revisions in: `add`, `upgrade`, `import`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::canary::Decider;
use config::{MachineName, Revision};
use store::ingest::import::Import;
use store::stream::{SendStream, TimeoutReader};
use store::{IngestPlan, Intent, Method, Note, Publication, Source, Volume};

use super::note::NoteOption;
use super::retention::Retention;
use super::revisions::record;
use super::trial::{self, TrialOption};
use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, Progress};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a machine from a `btrfs send` stream or a subvolume
    ///
    /// The sender must have named the subvolume NAME-NUMBER, as in
    /// `btrfs send NAME-1 | buildhost add NAME`. The stream may be compressed with zstd, xz, gzip
    /// or bzip2.
    Add(Request),
    /// Create a machine or its next revision from a disk image, directory or archive
    ///
    /// The content of a file determines its format, not its name. Disk images are raw, qcow2, VMDK,
    /// VDI, VHD or VHDX, and become the raw disk `disk.img`. An image must be a single file.
    /// Archives are tar archives. Both may be compressed with zstd, xz, gzip or bzip2.
    ///
    /// A directory or an archive holds `disk.img`, or a `manifest` that names its files; `export`
    /// writes such archives to `.tar` and `.tar.zst`. An archive is extracted with owners, devices,
    /// capabilities and extended attributes; ACLs are among them if it was made with `tar --xattrs
    /// --xattrs-include='*'`. `add` and `upgrade` receive what `export` writes to `.btrfs`.
    ///
    /// If the directory of the file has a file `SHA256SUMS` that lists it, its checksum is verified.
    /// The new revision gets a content manifest, so that it can be verified wherever it is pushed.
    Import(ImportRequest),
    /// Add a new revision to a machine, from a `btrfs send` stream or a subvolume
    ///
    /// Running builds keep their revision. The number of the new revision must be higher than
    /// that of the current one. An incremental stream can build on any revision of the machine.
    /// The stream may be compressed with zstd, xz, gzip or bzip2.
    Upgrade {
        #[command(flatten)]
        request: Request,
        #[command(flatten)]
        trial: TrialOption,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Request {
    /// The machine
    #[arg(value_name = "MACHINE")]
    name: MachineName,
    /// A file with a stream, `-` for standard input, or a subvolume
    #[arg(long, value_name = "FILE|-|SUBVOLUME")]
    from: Option<PathBuf>,
    /// Record the content if there is no content manifest, as `buildhost record` does
    #[arg(long)]
    record: bool,
    #[command(flatten)]
    note: NoteOption,
    #[command(flatten)]
    retention: Retention,
    #[command(flatten)]
    dry_run: DryRun,
}

#[derive(Debug, Args)]
pub(crate) struct ImportRequest {
    /// The machine
    #[arg(value_name = "MACHINE")]
    name: MachineName,
    /// A disk image, a directory or an archive
    source: PathBuf,
    /// The kernel that boots the disk
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The initial RAM disk of the kernel
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The machine's manifest; by default a minimal one
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    trial: TrialOption,
    #[command(flatten)]
    note: NoteOption,
    #[command(flatten)]
    retention: Retention,
    #[command(flatten)]
    dry_run: DryRun,
}

/// The options of one command, and its output.
pub(super) struct Ingest<'a> {
    pub(super) volume: &'a Volume,
    pub(super) name: &'a MachineName,
    pub(super) note: Note,
    /// True to record the content of a revision without a content manifest.
    pub(super) record: bool,
    pub(super) trial: TrialOption,
    pub(super) retention: Retention,
    pub(super) dry_run: DryRun,
    pub(super) output: &'a Output,
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let volume = Volume::open(&options.volume)?;
    let request = match command {
        Command::Add(request) | Command::Upgrade { request, .. } => request,
        Command::Import(request) => return import(request, &volume, output),
    };
    let (intent, trial) = match command {
        Command::Upgrade { trial, .. } => (Intent::Upgrade, *trial),
        Command::Add(_) | Command::Import(_) => (Intent::Add, TrialOption::default()),
    };
    let source = open(request.from.as_deref(), &volume)?;
    let from = request.from.as_ref().map(|it| it.display().to_string());
    let from = from.filter(|it| it != "-");
    let from = from.unwrap_or_else(|| "standard input".to_owned());
    let ingest = Ingest {
        volume: &volume,
        name: &request.name,
        note: request.note.note(from),
        record: request.record,
        trial,
        retention: request.retention,
        dry_run: request.dry_run,
        output,
    };
    ingest.run(intent, source, None).map(drop)
}

fn import(request: &ImportRequest, volume: &Volume, output: &Output) -> Result<(), Failure> {
    let mut import = Import::of(&request.source)?;
    import.kernel.clone_from(&request.kernel);
    import.initrd.clone_from(&request.initrd);
    import.manifest.clone_from(&request.manifest);
    let ingest = Ingest {
        volume,
        name: &request.name,
        note: request.note.note(request.source.display().to_string()),
        record: false,
        trial: request.trial,
        retention: request.retention,
        dry_run: request.dry_run,
        output,
    };
    verify_checksum(&import, &request.source, output)?;
    let progress = progress(&import, output);
    let intent = volume.intent(&request.name);
    let revision = ingest.run(intent, Source::Import(import), progress)?;
    if !request.dry_run.enabled && volume.has_blank_disk(&request.name, revision) {
        output.warn(&BlankDisk(request.source.clone()));
    }
    Ok(())
}

/// A warning about a disk that no machine boots from.
#[derive(Debug, thiserror::Error)]
#[error("the disk in `{}` begins with zeros: it has no partition table and no file system", .0.display())]
struct BlankDisk(PathBuf);

/// Verifies a file by the checksums that are published with it, and reports the success.
fn verify_checksum(import: &Import, source: &Path, output: &Output) -> Result<(), Failure> {
    let line = progress(import, output);
    let is_verified = import.verify_checksum()?;
    drop(line);
    if is_verified {
        let source = source.display();
        output.status(format_args!(
            "`{source}` has the SHA-256 that `SHA256SUMS` beside it states"
        ));
    }
    Ok(())
}

/// Shows the progress of the import of a file.
pub(super) fn progress(import: &Import, output: &Output) -> Option<Progress> {
    let progress = import.progress()?;
    let bytes = move || (progress.bytes(), progress.total());
    Some(Progress::watch(output, bytes))
}

impl Ingest<'_> {
    /// Creates a revision, and shows the progress meanwhile. Returns the revision.
    pub(super) fn run(
        &self,
        intent: Intent,
        source: Source,
        progress: Option<Progress>,
    ) -> Result<Revision, Failure> {
        let plan = if self.dry_run.enabled {
            self.volume.plan_ingest(intent, self.name, &source)?
        } else {
            let publication = Publication {
                note: Some(&self.note),
                trial: self.trial.terms().map(Decider::Host),
            };
            self.volume
                .ingest_with(intent, self.name, source, publication)?
        };
        drop(progress);
        let revision = plan.revision;
        if self.dry_run.enabled {
            self.print_plan(&plan)?;
            self.retention.plan(
                self.volume,
                self.name,
                self.next_current(&plan),
                self.output,
            )?;
            return Ok(revision);
        }
        self.report_current(&plan);
        let has_manifest = self.volume.has_content_manifest(self.name, revision);
        let recorded = if has_manifest {
            Ok(false)
        } else {
            self.handle_missing_manifest(revision)
        };
        let is_recorded = recorded.as_ref().is_ok_and(|it| *it);
        self.print_json(&plan, Some(has_manifest), Some(is_recorded))?;
        self.retention.apply(self.volume, self.name, self.output);
        recorded.map(|_| revision)
    }

    /// Reports that a revision has no content manifest, and records its content if that is wanted.
    /// Returns true if it was recorded.
    fn handle_missing_manifest(&self, revision: Revision) -> Result<bool, Failure> {
        let (name, output) = (self.name, self.output);
        report_no_manifest(name, revision, "here", !self.record, output);
        if self.record {
            let recorded = self.volume.record(name, revision)?;
            record::report(name, revision, &recorded, output);
        }
        Ok(self.record)
    }

    fn report_current(&self, plan: &IngestPlan) {
        let (name, revision) = (self.name, plan.revision);
        let trial = self.trial.begins(plan.before);
        let published = trial::published(revision, trial);
        let circumstances = circumstances(plan, trial.is_some());
        self.output
            .status(format_args!("{name}: {published}{circumstances}"));
    }

    /// Prints the plan of a dry run.
    fn print_plan(&self, plan: &IngestPlan) -> Result<(), Failure> {
        if self.output.is_json() {
            return self.print_json(plan, None, None);
        }
        let (name, revision) = (self.name, plan.revision);
        let trial = self.trial.begins(plan.before);
        let circumstances = circumstances(plan, trial.is_some());
        match trial {
            Some(terms) => self.output.plan(format_args!(
                "put revision {revision} of {name} on trial ({terms}){circumstances}"
            ))?,
            None => self.output.plan(format_args!(
                "make revision {revision} of {name} current{circumstances}"
            ))?,
        }
        if self.record {
            record::plan(name, revision, self.output)?;
        }
        Ok(())
    }

    /// Returns the revision that is current after the ingest.
    fn next_current(&self, plan: &IngestPlan) -> Revision {
        let before = plan.before.filter(|_| self.trial.terms().is_some());
        before.unwrap_or(plan.revision)
    }

    /// Prints the result as JSON if that is wanted.
    fn print_json(
        &self,
        plan: &IngestPlan,
        has_manifest: Option<bool>,
        is_recorded: Option<bool>,
    ) -> Result<(), Failure> {
        if !self.output.is_json() {
            return Ok(());
        }
        let before = plan.before.map(|before| before.0);
        self.output.print_json(&serde_json::json!({
            "machine": self.name, "current": self.next_current(plan).0, "before": before,
            "revision": plan.revision.0, "trial": self.trial.begins(plan.before),
            "dry_run": self.dry_run.enabled,
            "content_manifest": has_manifest, "content_recorded": is_recorded,
        }))
    }
}

/// Returns the circumstances of an ingest, as the end of a sentence.
fn circumstances(plan: &IngestPlan, is_on_trial: bool) -> String {
    let instead = match plan.before {
        Some(before) if is_on_trial => format!("; revision {before} stays current until its end"),
        Some(before) => format!(" instead of {before}"),
        None => String::new(),
    };
    let note = match plan.method {
        Method::Create => "",
        Method::Recreate => "; replaces an incomplete revision of the same number",
        Method::Adopt if is_on_trial => "; it is complete already",
        Method::Adopt => "; it is complete already, only its link is missing",
    };
    format!("{instead}{note}")
}

/// Reports that the content of a revision was not verified at its new place, and the remedy unless
/// that follows.
pub(super) fn report_no_manifest(
    name: &MachineName,
    revision: Revision,
    place: &str,
    has_remedy: bool,
    output: &Output,
) {
    let remedy = if has_remedy {
        format!("; `buildhost record {name} {revision}` records it")
    } else {
        String::new()
    };
    output.status(format_args!(
        "{name}: revision {revision} has no content manifest, so its content is not verified {place}{remedy}"
    ));
}

/// Opens the source of a revision.
fn open(from: Option<&Path>, volume: &Volume) -> Result<Source, Failure> {
    let stream = |input| Ok(Source::Stream(SendStream::open(input)?));
    match from {
        Some(path) if path != Path::new("-") => {
            if !path.is_dir() {
                return stream(TimeoutReader::open(path)?);
            }
            Ok(volume.subvolume_source(path)?)
        }
        None if std::io::stdin().is_terminal() => Err(Failure::new(
            ExitStatus::Usage,
            "no image; name one with `--from`, or put `btrfs send NAME-NUMBER |` before the command",
        )),
        _ => stream(TimeoutReader::pipe(std::io::stdin())?),
    }
}
