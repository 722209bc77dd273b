//! Submitting builds: the arguments of `build`, checked, with their sources uploaded.

mod of_farm;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use client::{Client, ClientError, Created};
use config::builds::{Build, Priority, Request, Submitter, Target};
use config::task::{Breakpoint, Source};
use config::{BuildId, FileName, MachineName, SecretName, ToolchainName};

pub(crate) use of_farm::may_be_repeated;

use super::resources::ResourceOptions;
use crate::exit_code::{ExitStatus, Failure};
use crate::output::{Output, Progress};

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
    /// Run the only source in place of the toolchain's `build`: a script that begins with `#!` and has 64
    /// KiB at most. Only a farm has this option
    #[arg(long)]
    script: bool,
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
            script: false,
        }
    }

    /// Returns false if a new build is made even if an equivalent one is unfinished.
    pub(crate) fn coalesces(&self) -> bool {
        !self.no_coalesce
    }

    /// Returns the request for the agent, with the hashes of the sources.
    pub(crate) fn request(&self) -> Result<Request, Failure> {
        if self.script {
            let text = "--script needs a farm; the build of a toolchain can be a script, \
                        such as that of the toolchain `shell`";
            return Err(Failure::new(ExitStatus::Usage, text));
        }
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
) -> Result<(), ClientError> {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let progress = Progress::start(output, move || Some(size));
    let passed = Arc::clone(&progress.passed);
    client.upload_source(&source.sha256, file, passed)
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
