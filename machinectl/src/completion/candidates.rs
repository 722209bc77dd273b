//! The values that exist: from the agent, the volume, and the files of the user.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap_complete::CompletionCandidate;
use client::HostAddress;
use config::builds::{ListQuery, State};
use config::layers::LayerQuery;
use config::{MachineName, printable, tokens};
use store::Volume;
use store::toolchains::Toolchains;

use super::{Kind, line, words};
use crate::cli;
use crate::context::Contexts;
use crate::exit_code::{ExitStatus, Failure};
use crate::options::GlobalOptions;
use crate::reach;

/// The time limit for the values. A shell waits for them.
const LIMIT: Duration = Duration::from_millis(800);
/// The number of builds that are offered, the newest first.
const BUILDS_MAX: u32 = 50;
/// The outcomes of builds.
const OUTCOMES: [&str; 7] = [
    "success",
    "warning",
    "error",
    "abort",
    "abnormal",
    "interrupt",
    "skip",
];

/// Returns the values of a kind; none if they are not known within the time limit.
pub(super) fn of(kind: Kind) -> Vec<CompletionCandidate> {
    let (sender, receiver) = mpsc::sync_channel(1);
    // The thread ends with the process, at the latest.
    thread::spawn(move || {
        let options = cli::options_of(&words::options(&line()));
        let found = options.and_then(|options| find(kind, &options).ok());
        let _ = sender.send(found.unwrap_or_default());
    });
    receiver.recv_timeout(LIMIT).unwrap_or_default()
}

fn find(kind: Kind, options: &GlobalOptions) -> Result<Vec<CompletionCandidate>, Failure> {
    Ok(match kind {
        Kind::Build => builds(options)?,
        Kind::Cache => plain(options.client()?.caches()?.iter().map(|it| &it.name)),
        Kind::Context => contexts(false)?,
        Kind::Host => contexts(true)?,
        Kind::Guest => {
            let builds = builds(options)?.into_iter();
            builds.chain(machines(options)?).collect()
        }
        Kind::Layer => {
            let layers = options.client()?.layers(&LayerQuery::default())?;
            plain(layers.iter().map(|it| &it.name))
        }
        Kind::Machine => machines(options)?,
        Kind::Outcome => plain(OUTCOMES),
        Kind::Project => plain(options.client()?.projects()?.iter().map(|it| &it.name)),
        Kind::Release => plain(options.client()?.releases()?.iter().map(|it| &it.name)),
        Kind::Revision => revisions(options)?,
        Kind::Schedule => plain(options.client()?.schedules()?.iter().map(|it| &it.name)),
        Kind::Secret => plain(options.client()?.secrets()?.iter().map(|it| &it.name)),
        Kind::State => plain(State::ALL.map(|(_, name)| name)),
        Kind::Token => token_names()?,
        Kind::Toolchain => toolchains(options)?,
    })
}

fn plain<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<CompletionCandidate> {
    let values = values.into_iter();
    values
        .map(|value| CompletionCandidate::new(value.to_string()))
        .collect()
}

/// Returns a value with a description, whose text may come from others.
fn described(value: &impl ToString, description: &str) -> CompletionCandidate {
    let help = printable(description).to_string();
    CompletionCandidate::new(value.to_string()).help(Some(help.into()))
}

fn builds(options: &GlobalOptions) -> Result<Vec<CompletionCandidate>, Failure> {
    let query = ListQuery {
        count: Some(BUILDS_MAX),
        ..ListQuery::default()
    };
    let builds = options.client()?.builds(&query)?;
    let candidates = builds.iter().enumerate().map(|(order, build)| {
        let state = match build.outcome {
            Some(outcome) => outcome.to_string(),
            None => build.state.to_string(),
        };
        let text = format!("{} on {}: {state}", build.target, build.machine);
        described(&build.id, &text).display_order(Some(order))
    });
    Ok(candidates.collect())
}

fn contexts(with_local: bool) -> Result<Vec<CompletionCandidate>, Failure> {
    let contexts = Contexts::read()?.contexts;
    let local = described(&HostAddress::LOCAL, "the agent of this host");
    let found = contexts
        .iter()
        .map(|(name, context)| described(name, &context.host.to_string()));
    Ok(found.chain(with_local.then_some(local)).collect())
}

/// Returns true if the volume and the toolchains are those of the agent in use.
fn is_local(options: &GlobalOptions) -> bool {
    options
        .endpoint()
        .is_ok_and(|endpoint| reach::require_local("", "", &endpoint).is_ok())
}

fn machines(options: &GlobalOptions) -> Result<Vec<CompletionCandidate>, Failure> {
    if is_local(options)
        && let Ok(volume) = Volume::open(&options.volume)
    {
        return Ok(plain(volume.machines()?));
    }
    let images = options.client()?.status()?.machines;
    let mut names: Vec<_> = images.into_iter().map(|image| image.machine).collect();
    names.sort();
    names.dedup();
    Ok(plain(names))
}

/// Returns the revisions of the machine that a word of the line names.
fn revisions(options: &GlobalOptions) -> Result<Vec<CompletionCandidate>, Failure> {
    let volume = Volume::open(&options.volume)?;
    let existing = volume.machines()?;
    let named = line().iter().find_map(|word| {
        let name: MachineName = word.to_str()?.parse().ok()?;
        existing.contains(&name).then_some(name)
    });
    let Some(machine) = named else {
        return Ok(Vec::new());
    };
    let revisions = volume.view(&machine)?.revisions;
    Ok(plain(revisions.iter().map(|it| it.revision)))
}

fn toolchains(options: &GlobalOptions) -> Result<Vec<CompletionCandidate>, Failure> {
    if is_local(options)
        && let Ok(toolchains) = Toolchains::open(&options.toolchains)
    {
        return Ok(plain(toolchains.list()?));
    }
    let images = options.client()?.status()?.machines;
    let mut names: Vec<_> = images.into_iter().map(|image| image.toolchain).collect();
    names.sort();
    names.dedup();
    Ok(plain(names))
}

fn token_names() -> Result<Vec<CompletionCandidate>, Failure> {
    let path = std::env::var_os("BUILDHOST_TOKENS").map(PathBuf::from);
    let path = path.unwrap_or_else(|| Path::new("/etc/buildhost/tokens").to_owned());
    let failed = |error: Box<dyn std::error::Error>| Failure::new(ExitStatus::Failure, error);
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.into()))?;
    let tokens = tokens::parse(&text).map_err(|error| failed(error.into()))?;
    let tokens = tokens.iter();
    Ok(tokens
        .map(|token| described(&token.name, &format!("scope {}", token.scope)))
        .collect())
}

#[cfg(test)]
mod tests {
    use config::task::Outcome;

    use super::*;

    #[test]
    fn the_outcomes_are_those_of_builds() {
        for outcome in OUTCOMES {
            assert!(outcome.parse::<Outcome>().is_ok(), "{outcome}");
        }
    }

    #[test]
    fn text_of_others_cannot_command_the_terminal() {
        let candidate = described(&7, "evil\u{1b}[2J");
        assert!(!candidate.get_help().unwrap().to_string().contains('\u{1b}'));
    }
}
