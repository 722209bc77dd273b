//! The enrolment of a host in a farm.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use config::ControllerName;
use config::controllers::{ControllerStatus, Enrolment};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;

/// The longest token that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 1024;

#[derive(Debug, Args)]
pub(crate) struct Enrol {
    /// The name of the farm, a section `[[controllers]]` with `kind = "farm"` of the settings
    name: ControllerName,
    /// The file with the token that `buildhost-farm invite` has printed; `-` for the standard input
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
    #[command(flatten)]
    dry_run: DryRun,
}

pub(super) fn run(
    arguments: &Enrol,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let Enrol {
        name,
        token,
        dry_run,
    } = arguments;
    let (client, token) = (options.client()?, read_token(token)?);
    if dry_run.enabled {
        return plan(&client.controllers()?, name, output);
    }
    let controller = client.enrol(name, &Enrolment { token })?;
    if output.is_json() {
        return output.print_json(&controller);
    }
    output.status(format!("enrolled in farm {name}, {}", controller.url));
    Ok(())
}

/// Prints what an enrolment would do. The token is not sent: it may be used once.
fn plan(
    controllers: &[ControllerStatus],
    name: &ControllerName,
    output: &Output,
) -> Result<(), Failure> {
    let is_farm = |it: &&ControllerStatus| it.name == *name && it.protocol == "farm";
    let Some(farm) = controllers.iter().find(is_farm) else {
        let text = format!(
            "the settings have no [[controllers]] with `name = \"{name}\"` and `kind = \"farm\"`; \
             add it and restart the agent"
        );
        return Err(Failure::new(ExitStatus::NotFound, text));
    };
    let url = &farm.url;
    output.plan(format_args!(
        "enrol this host in farm {name}, {url}, with a key of its own"
    ))
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let (place, opened): (_, io::Result<Box<dyn Read>>) = if path == Path::new("-") {
        let stdin: Box<dyn Read> = Box::new(io::stdin());
        ("the standard input".to_owned(), Ok(stdin))
    } else {
        let file = File::open(path).map(|file| -> Box<dyn Read> { Box::new(file) });
        (path.display().to_string(), file)
    };
    let mut text = String::new();
    let read = opened.and_then(|it| it.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
    let fault = |reason: String| Failure::new(ExitStatus::Usage, reason);
    read.map_err(|error| fault(format!("cannot read the token in {place}: {error}")))?;
    match text.trim() {
        "" => Err(fault(format!("{place} has no token"))),
        token => Ok(token.to_owned()),
    }
}
