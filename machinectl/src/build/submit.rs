//! Submitting builds: the arguments of `build`, checked, with their sources uploaded.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use client::{Client, Created};
use config::builds::{Build, Priority, Request, Submitter, Target};
use config::task::{Breakpoint, Source};
use config::{BuildId, FileName, MachineName, SecretName, ToolchainName};
use farm_core::messages::{NewBuild, Subject};
use farm_core::{Requirements, Work};

use super::resources::ResourceOptions;
use crate::exit_code::{ExitStatus, Failure};
use crate::output::{Output, Progress};

/// The memory that a build of a farm needs at least, in MiB. Its guest has that of its machine, if that
/// is more.
const FARM_MEMORY_MIB: u64 = 512;
/// The toolchain of a build of a farm that names none.
const FARM_TOOLCHAIN: &str = "default";
/// The rule for builds of a farm.
const ONE_SCRIPT: &str =
    "a farm takes one script, which begins with `#!`; sources do not travel to its hosts yet";

/// The arguments of `build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArguments {
    /// The machine
    machine: MachineName,
    /// Source files; the build sees each under the last part of its path
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// The toolchain; by default the agent's default toolchain
    #[arg(long, value_name = "NAME")]
    toolchain: Option<ToolchainName>,
    /// The names of what is built, with blanks between; by default derived from the first source
    #[arg(long, value_name = "NAME")]
    target: Option<Target>,
    /// The priority; builds with a higher number start first
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,
    #[command(flatten)]
    resources: ResourceOptions,
    /// Start after these builds have succeeded; skip the build if one of them fails
    #[arg(long, value_name = "BUILD", value_delimiter = ',')]
    after: Vec<BuildId>,
    /// Give the build this secret; may be repeated. `secret add` adds secrets
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<SecretName>,
    /// Create a new build even if an equivalent one is unfinished
    #[arg(long, alias = "no-attach")]
    no_coalesce: bool,
    /// The submitter to record; administrators only
    #[arg(long, value_name = "NAME")]
    submitter: Option<Submitter>,
    /// Stop at a breakpoint with a shell on the console: before the build (`start`), or after a
    /// result with warnings or errors (`warning`, `error`)
    #[arg(long, value_name = "start|warning|error", value_parser = breakpoint)]
    interactive: Option<Breakpoint>,
    /// If the build fails, hold its guest and snapshot for debugging
    #[arg(long)]
    hold: bool,
}

impl BuildArguments {
    /// Returns the arguments of a build that stops at a breakpoint.
    pub(super) fn interactive(
        machine: MachineName,
        toolchain: Option<ToolchainName>,
        sources: Vec<PathBuf>,
        breakpoint: Breakpoint,
        resources: ResourceOptions,
    ) -> Self {
        Self {
            machine,
            sources,
            toolchain,
            target: None,
            priority: 0,
            resources,
            after: Vec::new(),
            secrets: Vec::new(),
            no_coalesce: true,
            submitter: None,
            interactive: Some(breakpoint),
            hold: false,
        }
    }

    /// Returns false if a new build is made even if an equivalent one is unfinished.
    pub(crate) fn coalesces(&self) -> bool {
        !self.no_coalesce
    }

    /// Returns the request for a farm. Its work is a script, the only source.
    ///
    /// # Errors
    /// The source is no script, or an option has no meaning for a farm.
    pub(crate) fn of_farm(&self, key: String) -> Result<NewBuild, Failure> {
        let usage = |text: String| Failure::new(ExitStatus::Usage, text);
        let unknown = [
            ("--after", !self.after.is_empty()),
            ("--secret", !self.secrets.is_empty()),
            ("--interactive", self.interactive.is_some()),
            ("--hold", self.hold),
        ];
        if let Some((option, _)) = unknown.iter().find(|(_, is_set)| *is_set) {
            let text =
                format!("{option} has no meaning for a farm; ask the agent of a host with --host");
            return Err(usage(text));
        }
        let [path] = &self.sources[..] else {
            return Err(usage(ONE_SCRIPT.to_owned()));
        };
        let (name, script) = script(path)?;
        let toolchain = match &self.toolchain {
            Some(toolchain) => toolchain.clone(),
            None => parsed(FARM_TOOLCHAIN)?,
        };
        let target = match &self.target {
            Some(target) => target.clone(),
            None => parsed(name.as_str())?,
        };
        let resources = self.resources.resources()?;
        let counts = resources.counts.iter();
        Ok(NewBuild {
            key,
            submitter: self.submitter.clone(),
            priority: Priority(self.priority),
            requirements: Requirements {
                machine: self.machine.clone(),
                toolchain,
                cpus: resources.cpus.map_or(1, |it| it.get().into()),
                memory_mib: resources
                    .memory_mib
                    .map_or(FARM_MEMORY_MIB, |it| it.get().into()),
                resources: counts
                    .map(|(name, count)| (name.clone(), count.get().into()))
                    .collect(),
                work: Work {
                    script,
                    package: target.to_string(),
                },
            },
            subject: Subject {
                target: Some(target),
                project: None,
            },
        })
    }

    /// Returns the request for the agent, with the hashes of the sources.
    pub(crate) fn request(&self) -> Result<Request, Failure> {
        let sources = self.sources.iter().map(|path| source(path));
        Ok(Request {
            machine: self.machine.clone(),
            toolchain: self.toolchain.clone(),
            sources: sources.collect::<Result<_, _>>()?,
            interactive: self.interactive,
            hold: self.hold,
            commands: None,
            target: self.target.clone(),
            priority: Priority(self.priority),
            resources: self.resources.resources()?,
            after: self.after.clone(),
            secrets: self.secrets.clone(),
            submitter: self.submitter.clone(),
            coalesce: !self.no_coalesce,
            project: None,
            controller: None,
        })
    }
}

/// Reads the script that a farm runs.
fn script(path: &Path) -> Result<(FileName, String), Failure> {
    let refused = |text: String| Failure::new(ExitStatus::Refused, text);
    let (name, file) = open_source(path)?;
    let mut text = String::new();
    let most = Work::SCRIPT_BYTES_MAX as u64;
    let read = file.take(most + 1).read_to_string(&mut text);
    if read.is_err() || !text.starts_with("#!") {
        return Err(refused(format!(
            "{} is no script: {ONE_SCRIPT}",
            path.display()
        )));
    }
    if text.len() as u64 > most {
        let text = format!(
            "{} has more than {most} bytes; let it fetch what it needs",
            path.display()
        );
        return Err(refused(text));
    }
    Ok((name, text))
}

fn parsed<T: FromStr>(text: &str) -> Result<T, Failure>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|error| Failure::new(ExitStatus::Usage, error))
}

/// Parses a breakpoint that a request may name.
pub(super) fn breakpoint(text: &str) -> Result<Breakpoint, String> {
    match text.parse() {
        Ok(Breakpoint::Attach) | Err(_) => Err("expected `start`, `warning` or `error`".to_owned()),
        Ok(breakpoint) => Ok(breakpoint),
    }
}

/// Prints the plan of a build after the checks that are possible without submitting it.
pub(super) fn plan(
    client: &Client,
    arguments: &BuildArguments,
    output: &Output,
) -> Result<(), Failure> {
    let (machine, toolchain) = (&arguments.machine, arguments.toolchain.as_ref());
    let mut names = Vec::new();
    for path in &arguments.sources {
        names.push(open_source(path)?.0.to_string());
    }
    let is_known = client.status()?.machines.iter().any(|ready| {
        ready.machine == *machine && toolchain.is_none_or(|name| ready.toolchain == *name)
    });
    let with = match toolchain {
        Some(name) => format!(" with toolchain {name}"),
        None => String::new(),
    };
    if !is_known {
        let text = format!("the agent has no machine `{machine}`{with}");
        return Err(Failure::new(ExitStatus::NotFound, text));
    }
    let resources = arguments.resources.resources()?;
    let sized = if resources.is_empty() {
        String::new()
    } else {
        format!(", with {resources}")
    };
    output.plan(format_args!(
        "build {} on {machine}{with}{sized}",
        names.join(", ")
    ))
}

/// Uploads the sources of a build and submits it.
pub(super) fn submit(
    client: &Client,
    arguments: &BuildArguments,
    output: &Output,
) -> Result<Build, Failure> {
    let request = upload(client, arguments, output)?;
    Ok(request_build(client, &request, output)?.value)
}

/// Uploads the sources of a build. Returns the request that submits it.
pub(super) fn upload(
    client: &Client,
    arguments: &BuildArguments,
    output: &Output,
) -> Result<Request, Failure> {
    let request = arguments.request()?;
    upload_sources(client, arguments, &request, output)?;
    Ok(request)
}

/// Submits a build again on a machine. The agent still has its sources.
pub(super) fn resubmit(
    client: &Client,
    build: &Build,
    machine: MachineName,
    output: &Output,
) -> Result<Build, Failure> {
    let request = Request {
        machine,
        toolchain: Some(build.toolchain.clone()),
        sources: build.sources.clone(),
        interactive: None,
        hold: false,
        commands: None,
        target: Some(build.target.clone()),
        priority: build.priority,
        resources: build.resources.clone(),
        after: Vec::new(),
        secrets: build.secrets.clone(),
        submitter: None,
        coalesce: false,
        project: None,
        controller: None,
    };
    Ok(request_build(client, &request, output)?.value)
}

/// Submits a build whose sources the agent has.
pub(super) fn request_build(
    client: &Client,
    request: &Request,
    output: &Output,
) -> Result<Created<Build>, Failure> {
    let created = client.submit(request)?;
    let build = &created.value;
    if created.is_new {
        output.status(format_args!(
            "submitted build {0}; `buildhost log -f {0}` follows it",
            build.id
        ));
    } else {
        output.status(format_args!(
            "build {}, which is {}, is equivalent; `--no-coalesce` creates a new build",
            build.id, build.state
        ));
    }
    Ok(created)
}

/// Uploads the sources of a build.
pub(crate) fn upload_sources(
    client: &Client,
    arguments: &BuildArguments,
    request: &Request,
    output: &Output,
) -> Result<(), Failure> {
    for (path, source) in arguments.sources.iter().zip(&request.sources) {
        let (_, file) = open_source(path)?;
        upload_source(client, source, file, output)?;
    }
    Ok(())
}

/// Uploads a source, with a progress line on a terminal.
pub(super) fn upload_source(
    client: &Client,
    source: &Source,
    file: File,
    output: &Output,
) -> Result<(), Failure> {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let progress = Progress::start(output, move || Some(size));
    let passed = Arc::clone(&progress.passed);
    client.upload_source(&source.sha256, file, passed)?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read the source {}", path.display())]
struct SourceError {
    path: PathBuf,
    source: io::Error,
}

fn failed(path: &Path, source: io::Error) -> Failure {
    let path = path.to_owned();
    Failure::new(ExitStatus::Failure, SourceError { path, source })
}

/// Opens a source. Returns it with the name under which the build sees it.
fn open_source(path: &Path) -> Result<(FileName, File), Failure> {
    let shown = path.display();
    let name: FileName = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .parse()
        .map_err(|error| {
            let text = format!("{shown} cannot be a source: {error}");
            Failure::new(ExitStatus::Usage, text)
        })?;
    let file = File::open(path).map_err(|error| failed(path, error))?;
    let metadata = file.metadata().map_err(|error| failed(path, error))?;
    if !metadata.is_file() {
        let text = format!("{shown} is not a file; pack a directory with tar first");
        return Err(Failure::new(ExitStatus::Usage, text));
    }
    Ok((name, file))
}

/// Returns a source with its hash.
fn source(path: &Path) -> Result<Source, Failure> {
    let (name, file) = open_source(path)?;
    let sha256 = sys::file::digest(&file).map_err(|error| failed(path, error))?;
    Ok(Source { name, sha256 })
}
