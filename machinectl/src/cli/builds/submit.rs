//! What a build is made of: checked, and handed in.

use std::fs::File;
use std::io::Seek;
use std::path::{Path, PathBuf};

use config::builds::{Build, Priority, Readiness, Request, Status};
use config::task::Source;
use config::{FileName, MachineName, ToolchainName};

use super::super::client::{Client, ClientError};
use super::super::{Ending, Failure, Voice};

/// Checks what a build would be made of, as far as one can without submitting it.
pub(super) fn rehearse(
    client: &Client,
    machine: &MachineName,
    toolchain: Option<&ToolchainName>,
    sources: &[PathBuf],
    voice: &Voice,
) -> Result<(), Failure> {
    let names = sources
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
pub(super) fn submit(
    client: &Client,
    machine: &MachineName,
    toolchain: Option<ToolchainName>,
    sources: &[PathBuf],
) -> Result<Build, Failure> {
    let sources = sources.iter().map(|path| hand_in(client, path));
    let request = Request {
        machine: machine.clone(),
        toolchain,
        sources: sources.collect::<Result<_, _>>()?,
        target: None,
        priority: Priority::default(),
        after: Vec::new(),
    };
    Ok(client.post("builds", &request)?)
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

/// Hands a source to the agent, which keeps it under its hash.
fn hand_in(client: &Client, path: &Path) -> Result<Source, Failure> {
    let fault = |source| ClientError::File {
        path: path.to_owned(),
        source,
    };
    let (name, mut file) = open_source(path)?;
    let sha256 = store::file::digest(&file).map_err(fault)?;
    file.rewind().map_err(fault)?;
    client.put_file(&format!("sources/{sha256}"), file)?;
    Ok(Source { name, sha256 })
}
