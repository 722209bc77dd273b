//! What a build is made of: checked, and handed in.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use config::builds::{Build, Priority, Readiness, Request, Status, Submitter, Target};
use config::task::{Breakpoint, Source};
use config::{BuildId, FileName, MachineName, ToolchainName};

use crate::{Ending, Failure, Voice};
use client::{Client, ClientError};

/// What is to be built, and how.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// The machine
    machine: MachineName,
    /// Source files; the build sees each under the last part of its path
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// The toolchain; the agent's default when it is left out
    #[arg(long, value_name = "NAME")]
    toolchain: Option<ToolchainName>,
    /// What people call what is built; by default what the first source is called
    #[arg(long, value_name = "NAME")]
    target: Option<Target>,
    /// Go before builds with a lower number, and after those with a higher one
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,
    /// Begin when these builds have ended well; skip it if one of them did not
    #[arg(long, value_name = "BUILD", value_delimiter = ',')]
    after: Vec<BuildId>,
    /// Build it even if a build that does the same is under way
    #[arg(long)]
    no_attach: bool,
    /// For whom; only administrators may say it
    #[arg(long, value_name = "NAME")]
    submitter: Option<Submitter>,
    #[command(flatten)]
    stops: Stops,
}

impl Wanted {
    /// What asks for it, when its sources have been handed in.
    pub(crate) fn request(&self) -> Result<Request, Failure> {
        let sources = self.sources.iter().map(|path| source(path));
        Ok(Request {
            machine: self.machine.clone(),
            toolchain: self.toolchain.clone(),
            sources: sources.collect::<Result<_, _>>()?,
            interactive: self.stops.interactive,
            hold: self.stops.hold,
            target: self.target.clone(),
            priority: Priority(self.priority),
            after: self.after.clone(),
            submitter: self.submitter.clone(),
            coalesce: !self.no_attach,
        })
    }

    /// A build for somebody who logs in.
    pub(crate) fn interactive(
        machine: MachineName,
        toolchain: Option<ToolchainName>,
        sources: Vec<PathBuf>,
        at: Breakpoint,
    ) -> Self {
        Self {
            machine,
            sources,
            toolchain,
            target: None,
            priority: 0,
            after: Vec::new(),
            no_attach: true,
            submitter: None,
            stops: Stops {
                interactive: Some(at),
                hold: false,
            },
        }
    }
}

/// Where a build waits for a person.
#[derive(Debug, Clone, Copy, Default, Args)]
struct Stops {
    /// Stop before the build (`start`), or after a result with warnings or errors
    /// (`warning`, `error`), with a shell at the console: see `machinectl console`
    #[arg(long, value_name = "start|warning|error", value_parser = breakpoint)]
    interactive: Option<Breakpoint>,
    /// When it fails, suspend its guest for somebody to look at, and keep its snapshot
    #[arg(long)]
    hold: bool,
}

/// A breakpoint that one may ask for.
pub(crate) fn breakpoint(text: &str) -> Result<Breakpoint, String> {
    match text.parse() {
        Ok(Breakpoint::Attach) | Err(_) => {
            Err("`start`, `warning` or `error` is expected".to_owned())
        }
        Ok(breakpoint) => Ok(breakpoint),
    }
}

/// Checks what a build would be made of, as far as one can without submitting it.
pub(crate) fn rehearse(client: &Client, wanted: &Wanted, voice: &Voice) -> Result<(), Failure> {
    let (machine, toolchain) = (&wanted.machine, wanted.toolchain.as_ref());
    let names = wanted
        .sources
        .iter()
        .map(|path| Ok(open_source(path)?.0.to_string()));
    let names = names.collect::<Result<Vec<_>, Failure>>()?.join(", ");
    let status: Status = client.get("status")?;
    let known = |ready: &Readiness| {
        ready.machine == *machine && toolchain.is_none_or(|wanted| ready.toolchain == *wanted)
    };
    let with = toolchain.map_or_else(String::new, |it| format!(" with toolchain {it}"));
    if !status.machines.iter().any(known) {
        let text = format!("the agent has no machine `{machine}`{with}");
        return Err(Failure::new(Ending::NotFound, text));
    }
    voice.would(format!("build {names} on {machine}{with}"))
}

/// Hands the sources of a build in and asks for it.
pub(crate) fn submit(client: &Client, wanted: &Wanted, voice: &Voice) -> Result<Build, Failure> {
    let request = wanted.request()?;
    hand_in(client, wanted, &request)?;
    ask(client, &request, voice)
}

/// Asks for the same build again, on a machine; its sources are with the agent still.
pub(crate) fn again(
    client: &Client,
    before: &Build,
    machine: MachineName,
    voice: &Voice,
) -> Result<Build, Failure> {
    let request = Request {
        machine,
        toolchain: Some(before.toolchain.clone()),
        sources: before.sources.clone(),
        interactive: None,
        hold: false,
        target: Some(before.target.clone()),
        priority: before.priority,
        after: Vec::new(),
        submitter: None,
        coalesce: false,
    };
    ask(client, &request, voice)
}

fn ask(client: &Client, request: &Request, voice: &Voice) -> Result<Build, Failure> {
    let (build, is_new): (Build, bool) = client.create("builds", request)?;
    if is_new {
        voice.say(format!(
            "build {0} is submitted; `machinectl log -f {0}` shows it",
            build.id
        ));
    } else {
        voice.say(format!(
            "build {}, which is {}, does the same, so there is no new one; `--no-attach` makes one",
            build.id, build.state
        ));
    }
    Ok(build)
}

/// Hands the sources of a build to the agent, which keeps them under their hashes.
pub(crate) fn hand_in(client: &Client, wanted: &Wanted, request: &Request) -> Result<(), Failure> {
    for (path, source) in wanted.sources.iter().zip(&request.sources) {
        let (_, file) = open_source(path)?;
        client.put_file(&format!("sources/{}", source.sha256), file)?;
    }
    Ok(())
}

/// A source and the name under which the build sees it.
fn open_source(path: &Path) -> Result<(FileName, File), Failure> {
    let fault = |source| ClientError::File {
        path: path.to_owned(),
        source,
    };
    let last = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let name: FileName = last.parse().map_err(|error| {
        Failure::new(
            Ending::Usage,
            format!("{} cannot be a source: {error}", path.display()),
        )
    })?;
    let file = File::open(path).map_err(fault)?;
    if !file.metadata().map_err(fault)?.is_file() {
        let words = format!(
            "{} is not a file; pack a directory with tar first",
            path.display()
        );
        return Err(Failure::new(Ending::Usage, words));
    }
    Ok((name, file))
}

/// A source with its hash.
fn source(path: &Path) -> Result<Source, Failure> {
    let (name, file) = open_source(path)?;
    let sha256 = sys::file::digest(&file).map_err(|source| ClientError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(Source { name, sha256 })
}
