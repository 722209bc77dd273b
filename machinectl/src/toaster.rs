//! Toaster's commands, under their names and with their words, for the scripts that
//! know them. docs/toaster.md tells where they differ, and why.

mod check;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Subcommand;
use config::BuildId;
use config::builds::{Build, ListQuery};

use crate::{Common, Ending, Failure, Rehearsal, Voice};
use client::Client;

/// How long a page may take to begin.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
/// The pages that `perf` tries.
const PAGES: [&str; 6] = [
    "/health",
    "/toastergui/api/builds",
    "/toastergui/api/building",
    "/toastergui/api/build/1",
    "/toastergui/mostrecentbuilds",
    "/metrics",
];

#[derive(Debug, Subcommand)]
#[command(next_help_heading = "Toaster's commands")]
pub(crate) enum Verb {
    /// Toaster's list of builds: number, machine, toolchain and what is built
    Buildslist,
    /// Delete builds, wholly: records, logs and artifacts
    Builddelete {
        /// The builds
        #[arg(required = true, value_name = "BUILD")]
        builds: Vec<BuildId>,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Measure how long the public pages take
    Perf {
        /// Where the agent listens: its setting http.listen
        #[arg(long, default_value = "http://localhost:8000")]
        url: String,
    },
    /// Check the agent's settings, and what they name
    Checksettings {
        /// The settings
        #[arg(long, value_name = "FILE", default_value = "/etc/buildhost/agent.toml")]
        config: PathBuf,
    },
    /// Stand for Toaster's runner of builds: the agent runs them
    Runbuilds,
    /// Check that a server could listen somewhere
    Checksocket {
        /// Where
        #[arg(value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8000")]
        address: String,
    },
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    match verb {
        Verb::Buildslist => list(&Client::new(&common.socket)?, voice),
        Verb::Builddelete { builds, rehearsal } => {
            let client = Client::new(&common.socket)?;
            each(builds, voice, |id| {
                if rehearsal.dry_run {
                    would_delete(&client, id, voice)
                } else {
                    Ok(client.delete(&format!("builds/{id}"))?)
                }
            })
        }
        Verb::Perf { url } => measure(url.trim_end_matches('/'), voice),
        Verb::Checksettings { config } => check::settings(config, voice),
        Verb::Runbuilds => watch::run(&common.socket, voice),
        Verb::Checksocket { address } => check::socket(address, voice),
    }
}

fn list(client: &Client, voice: &Voice) -> Result<(), Failure> {
    let mut wanted = Some(ListQuery {
        reverse: true,
        ..ListQuery::default()
    });
    while let Some(listing) = wanted {
        let query = serde_urlencoded::to_string(&listing)
            .map_err(|error| Failure::new(Ending::Failed, error))?;
        let builds: Vec<Build> = client.get(&format!("builds?{query}"))?;
        let line =
            |it: &Build| format!("{}: {} {} {}\n", it.id, it.machine, it.toolchain, it.target);
        voice.print(&builds.iter().map(line).collect::<String>())?;
        wanted = listing.next(&builds);
    }
    Ok(())
}

/// Goes on after a build that is not there, or cannot be deleted now.
fn each(
    builds: &[BuildId],
    voice: &Voice,
    delete: impl Fn(BuildId) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut refused = false;
    for id in builds {
        match delete(*id) {
            Ok(()) => {}
            Err(failure) if failure.ending == Ending::NotFound => {
                voice.print(&format!("build {id} does not exist, skipping...\n"))?;
            }
            Err(failure) if failure.ending == Ending::Refused => {
                voice.error(failure.error.as_ref());
                refused = true;
            }
            Err(failure) => return Err(failure),
        }
    }
    if refused {
        let words = "not every build could be deleted";
        return Err(Failure::new(Ending::Refused, words));
    }
    Ok(())
}

fn would_delete(client: &Client, id: BuildId, voice: &Voice) -> Result<(), Failure> {
    let build: Build = client.get(&format!("builds/{id}"))?;
    let words = match build.outcome {
        Some(_) if build.interactive.held.is_some() => {
            format!("build {id} is held for a person; `machinectl release {id}` first")
        }
        Some(_) => return voice.would(format!("delete build {id}")),
        None => format!("build {id} is {}; cancel it first", build.state),
    };
    Err(Failure::new(Ending::Refused, words))
}

fn measure(url: &str, voice: &Voice) -> Result<(), Failure> {
    let client = reqwest::blocking::Client::builder()
        .timeout(ANSWER_LIMIT)
        .build()
        .map_err(|error| Failure::new(Ending::Failed, error))?;
    let mut worst = None;
    for page in PAGES {
        let began = Instant::now();
        let answer = client.get(format!("{url}{page}")).send();
        let answer = answer.and_then(|answer| {
            let status = answer.status();
            answer.bytes().map(|_| status)
        });
        let lasted = began.elapsed();
        let status = match answer {
            Ok(status) => status.as_u16(),
            Err(error) => {
                voice.error(&error);
                0
            }
        };
        if status == 0 || status >= 400 {
            worst = Some(format!("{url}{page} gives no page"));
        }
        let (minutes, seconds) = (lasted.as_secs() / 60, lasted.as_secs() % 60);
        voice.print(&format!(
            "Trying '{url}{page}', {status}, 0:{minutes:02}:{seconds:02}.{:06}\n",
            lasted.subsec_micros()
        ))?;
    }
    match worst {
        None => Ok(()),
        Some(words) => Err(Failure::new(Ending::Failed, words)),
    }
}
