//! `image make`: a machine from a Linux distribution.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use config::MachineName;
use config::machine::Kind;
use distribution::{Making, PackageName, Plan, Recipe, Request, Suite};
use jiff::Timestamp;
use store::ingest::import::Import;
use store::init::Size;
use store::{Source, Volume};

use super::ingest::{self, Ingest};
use super::note::NoteOption;
use super::retention::Retention;
use super::trial::TrialOption;
use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;

/// The default size of a virtual machine's disk.
const DISK_BYTES: u64 = 8 << 30;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a machine, or its next revision, from a Linux distribution
    ///
    /// Installs the distribution in a temporary directory, adds the guest's side of Buildhost, and
    /// imports the result. Debian is installed by mmdebstrap, with the packages that build packages
    /// unless --minimal is given. Everything that comes from the distribution runs as a user without
    /// rights on the host. Needs root and the Internet, or a mirror of the distribution.
    ///
    /// Another distribution is installed by a recipe, a program that fills a directory. See
    /// docs/machines.md.
    Make(Box<MakeRequest>),
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("distribution").required(true).args(["debian", "recipe"])))]
pub(crate) struct MakeRequest {
    /// The machine
    #[arg(value_name = "MACHINE")]
    name: MachineName,
    /// Install this release of Debian, such as bookworm or trixie
    #[arg(long, value_name = "SUITE")]
    debian: Option<Suite>,
    /// Install what this program puts into the directory that is its first argument
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// The kind of machine
    #[arg(long, default_value = "kvm")]
    kind: KindName,
    /// Further packages to install
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    include: Vec<PackageName>,
    /// Leave out the packages that build packages: compilers and debhelper
    #[arg(long)]
    minimal: bool,
    /// A mirror, or a line of a sources.list that begins with `deb `; by default the host's
    ///
    /// Can be repeated.
    #[arg(long, value_name = "URL")]
    mirror: Vec<String>,
    /// The size of the disk of a virtual machine, which only takes the space that is used; by
    /// default 8G
    #[arg(long)]
    size: Option<Size>,
    /// The memory of a guest
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    memory: Size,
    /// The number of processors of a guest
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    cpus: NonZeroU32,
    /// The worker for the guest, linked statically; by default the installed one
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// The directory for temporary files: about twice the size of the installation
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    work: PathBuf,
    #[command(flatten)]
    note: NoteOption,
    #[command(flatten)]
    trial: TrialOption,
    #[command(flatten)]
    retention: Retention,
    #[command(flatten)]
    dry_run: DryRun,
}

/// The values of `--kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindName {
    /// A virtual machine, run by QEMU
    Kvm,
    /// A container, run by systemd-nspawn
    Nspawn,
}

impl From<KindName> for Kind {
    fn from(kind: KindName) -> Self {
        match kind {
            KindName::Kvm => Self::Kvm,
            KindName::Nspawn => Self::Nspawn,
        }
    }
}

pub(super) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let Command::Make(make) = command;
    let volume = Volume::open(&options.volume)?;
    let request = request(make)?;
    let worker = distribution::find_worker(make.worker.as_deref())?;
    let id = format!(
        "{}-{}",
        make.name,
        Timestamp::now().strftime("%Y%m%dT%H%M%SZ")
    );
    let plan = distribution::plan(&request, &distribution::host_sources(), &id)?;
    if make.dry_run.enabled {
        return print_plan(&plan, make, &worker.path, output);
    }
    let making = Making::prepare(&request.recipe, &plan, &worker, &make.work)?;
    output.status(format_args!("{}: {}", make.name, plan.subject()));
    let machine = making.run(|line| report(line, output))?;
    let mut import = Import::of(&machine.path)?;
    import.manifest = Some(machine.manifest.clone());
    let ingest = Ingest {
        volume: &volume,
        name: &make.name,
        note: make.note.note(plan.subject().to_owned()),
        record: false,
        trial: make.trial,
        retention: make.retention,
        dry_run: make.dry_run,
        output,
    };
    let progress = ingest::progress(&import, output);
    let intent = volume.intent(&make.name);
    ingest.run(intent, Source::Import(import), progress)?;
    drop(machine);
    print_next_steps(make, output);
    Ok(())
}

/// Returns the request of a command line.
fn request(make: &MakeRequest) -> Result<Request, Failure> {
    if make.kind == KindName::Nspawn && make.size.is_some() {
        let text = "a container has no disk of its own; leave out --size, or use --kind kvm";
        return Err(Failure::new(ExitStatus::Usage, text));
    }
    let recipe = match (&make.debian, &make.recipe) {
        (Some(suite), _) => Recipe::Debian(suite.clone()),
        (None, Some(file)) => Recipe::File(canonical(file)?),
        (None, None) => return Err(Failure::new(ExitStatus::Usage, "no distribution")),
    };
    Ok(Request {
        recipe,
        kind: make.kind.into(),
        include: make.include.clone(),
        minimal: make.minimal,
        mirrors: make.mirror.clone(),
        disk_bytes: make.size.map_or(DISK_BYTES, Size::bytes),
        memory_bytes: make.memory.bytes(),
        cpus: make.cpus.get(),
    })
}

fn canonical(file: &Path) -> Result<PathBuf, Failure> {
    file.canonicalize().map_err(|error| {
        let text = format!("cannot open the recipe `{}`: {error}", file.display());
        Failure::new(ExitStatus::Refused, text)
    })
}

/// The texts in mmdebstrap's lines about its own processes, and about the code of its hooks.
const INTERNAL: [&str; 2] = ["-hook ", "main() received signal"];

/// Prints a line of the recipe if it is about progress. mmdebstrap marks such lines.
fn report(line: &str, output: &Output) {
    let progress = line.strip_prefix("I: ");
    let is_internal = |text: &str| INTERNAL.iter().any(|it| text.contains(it));
    if let Some(text) = progress.filter(|text| !is_internal(text)) {
        output.status(format_args!("  {}", config::text::printable(text)));
    }
}

fn print_plan(
    plan: &Plan,
    make: &MakeRequest,
    worker: &Path,
    output: &Output,
) -> Result<(), Failure> {
    let (name, work) = (&make.name, make.work.display());
    output.plan(format_args!("run {} in {work}", plan.subject()))?;
    for source in plan.sources() {
        output.plan(format_args!("take packages from `{source}`"))?;
    }
    output.plan(format_args!("add the worker {}", worker.display()))?;
    output.plan(format_args!(
        "import the result as the next revision of {name}"
    ))
}

fn print_next_steps(make: &MakeRequest, output: &Output) {
    let name = &make.name;
    let (toolchain, sources) = if make.debian.is_some() && !make.minimal {
        (
            "debian",
            "SOURCE.dsc SOURCE.orig.tar.gz SOURCE.debian.tar.xz",
        )
    } else {
        ("shell", "build.sh")
    };
    let program = std::env::current_exe().unwrap_or_default();
    let installed = program.with_file_name("toolchains").join(toolchain);
    let add = if installed.is_dir() {
        format!("buildhost toolchain add default {}", installed.display())
    } else {
        format!(
            "scripts/make-toolchain DIR --kind {toolchain} && buildhost toolchain add default DIR"
        )
    };
    for line in [
        "next: add a toolchain, unless there is one, and build:".to_owned(),
        format!("  {add}"),
        format!("  buildhost build {name} {sources} --follow"),
    ] {
        output.status(line);
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        request: MakeRequest,
    }

    fn parse(line: &str) -> Result<MakeRequest, String> {
        let words = std::iter::once("make").chain(line.split_whitespace());
        let matches = Line::command().try_get_matches_from(words);
        let parsed = matches.and_then(|matches| Line::from_arg_matches(&matches));
        parsed
            .map(|line| line.request)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_make_a_virtual_machine_that_builds_packages() {
        let make =
            parse("deb --debian bookworm --include cmake,ninja-build --include git").unwrap();
        let request = request(&make).unwrap();
        assert_eq!(request.recipe, Recipe::Debian("bookworm".parse().unwrap()));
        assert_eq!((request.kind, request.minimal), (Kind::Kvm, false));
        assert_eq!(request.include.len(), 3);
        assert_eq!(
            (request.disk_bytes, request.memory_bytes),
            (8 << 30, 1 << 30)
        );
    }

    #[test]
    fn one_distribution_is_needed() {
        parse("deb").unwrap_err();
        parse("deb --debian bookworm --recipe /bin/true").unwrap_err();
        let error = parse("deb --debian --include").unwrap_err();
        assert!(error.contains("--debian"), "{error}");
    }

    #[test]
    fn a_container_has_no_disk_size() {
        let make = parse("deb --debian bookworm --kind nspawn --size 4G").unwrap();
        let failure = request(&make).unwrap_err();
        assert_eq!(failure.status, ExitStatus::Usage);
    }
}
