//! The verbs about builds. They ask the agent; the store is not touched here.

mod fetch;
pub(crate) mod interactive;
mod list;
pub(crate) mod rebuild;
pub(super) mod submit;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use config::BuildId;
use config::builds::{Build, Cancellation, Readiness, State, Status};
use config::task::Outcome;

use crate::{Common, Ending, Failure, Rehearsal, Table, Voice};
use client::{Client, ClientError};
use list::Filter;
pub(super) use list::lines;
pub(super) use submit::Wanted;

/// How often a build that is followed is looked at.
pub(super) const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build sources on a machine; prints the number of the build
    ///
    /// The sources are handed to the agent, so they may change or go afterwards. If a
    /// build that does the same is under way already, its number is printed.
    Build {
        #[command(flatten)]
        wanted: Box<Wanted>,
        /// Show the log until the build is over, and fail if it did
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Show what the agent of this host does and can do
    Host,
    /// Show builds, by default the newest, or one build
    Builds {
        /// One build, with all that is known of it
        build: Option<BuildId>,
        #[command(flatten)]
        filter: Filter,
    },
    /// Show the log of a build
    Log {
        /// The build
        build: BuildId,
        /// Go on until the build is over, and fail if it did
        #[arg(short, long)]
        follow: bool,
    },
    /// Show what a build gave out, or fetch it
    Artifacts {
        /// The build
        build: BuildId,
        /// Fetch everything into this directory, and provenance.json with it
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Show where what a build gave out came from, as in-toto and SLSA write it
    Provenance {
        /// The build
        build: BuildId,
    },
    /// Cancel a build
    Cancel {
        /// The build
        build: BuildId,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let client = Client::new(&common.socket)?;
    match verb {
        Verb::Build {
            wanted,
            follow: wait,
            rehearsal,
        } => {
            if rehearsal.dry_run {
                return submit::rehearse(&client, wanted, voice);
            }
            let build = submit::submit(&client, wanted, voice)?;
            submitted(&client, &build, *wait, voice)
        }
        Verb::Host => host(&client.get("status")?, voice),
        Verb::Builds {
            build: Some(id), ..
        } => list::show(&get(&client, *id)?, voice),
        Verb::Builds {
            build: None,
            filter,
        } => list::list(&client, filter, voice),
        Verb::Log {
            build,
            follow: true,
        } => follow(&client, *build, voice),
        Verb::Log {
            build,
            follow: false,
        } => {
            client.copy(&format!("builds/{build}/log"), &mut io::stdout())?;
            Ok(())
        }
        Verb::Artifacts {
            build,
            output: None,
            ..
        } => artifacts(&get(&client, *build)?, voice),
        Verb::Artifacts {
            build,
            output: Some(directory),
            rehearsal,
        } => fetch::all(
            &client,
            &get(&client, *build)?,
            directory,
            rehearsal.dry_run,
            voice,
        ),
        Verb::Provenance { build } => {
            client.copy(&format!("builds/{build}/provenance"), &mut io::stdout())?;
            Ok(())
        }
        Verb::Cancel { build, rehearsal } => cancel(&client, *build, rehearsal.dry_run, voice),
    }
}

/// Tells the number of a new build, or follows it.
pub(super) fn submitted(
    client: &Client,
    build: &Build,
    wait: bool,
    voice: &Voice,
) -> Result<(), Failure> {
    if wait {
        return follow(client, build.id, voice);
    }
    voice.print(&format!("{}\n", build.id))
}

fn cancel(client: &Client, id: BuildId, rehearsed: bool, voice: &Voice) -> Result<(), Failure> {
    if rehearsed {
        let state = get(client, id)?.state;
        if state.cancellation() == Cancellation::TooLate {
            let text = format!("build {id} is {state}: too late to cancel it");
            return Err(Failure::new(Ending::Refused, text));
        }
        return voice.would(format!("cancel build {id}, which is {state}"));
    }
    let after: Build = client.post(&format!("builds/{id}/cancel"), &())?;
    voice.say(match after.state {
        State::Finished => format!("build {id} is cancelled"),
        _ => format!("build {id} is being cancelled"),
    });
    Ok(())
}

pub(super) fn get(client: &Client, id: BuildId) -> Result<Build, ClientError> {
    client.get(&format!("builds/{id}"))
}

/// Shows the log as it comes and, beside it, what the build waits for.
fn follow(client: &Client, id: BuildId, voice: &Voice) -> Result<(), Failure> {
    let mut said = String::new();
    let mut offset = 0;
    loop {
        // Asked first, so that what is written before the end is not missed.
        let build = get(client, id)?;
        if build.state != State::Finished && !build.message.is_empty() && build.message != said {
            voice.say(format!("build {id} waits {}", build.message));
            said.clone_from(&build.message);
        }
        offset += client.copy(
            &format!("builds/{id}/log?offset={offset}"),
            &mut io::stdout(),
        )?;
        let _ = io::stdout().flush();
        if let Some(outcome) = build.outcome {
            return conclude(&build, outcome, voice);
        }
        std::thread::sleep(FOLLOW_PAUSE);
    }
}

/// Says how a build ended, and fails when it did.
fn conclude(build: &Build, outcome: Outcome, voice: &Voice) -> Result<(), Failure> {
    for built in &build.packages {
        let package = &built.package;
        voice.say(format!(
            "build {}: {} {} {} for {}, in {}",
            build.id,
            package.name,
            package.version,
            built.revision,
            package.architecture,
            package.file
        ));
    }
    let words = match build.message.as_str() {
        "" => format!("build {} ended with {outcome}", build.id),
        message => format!("build {} ended with {outcome}: {message}", build.id),
    };
    if build.succeeded() {
        voice.say(words);
        return Ok(());
    }
    Err(Failure::new(Ending::Failed, words))
}

fn host(status: &Status, voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        return voice.print_json(&serde_json::json!(status));
    }
    voice.print(&format!(
        "{}: agent {}, {} guests run, {} builds wait\n",
        status.name, status.version, status.guests, status.queued
    ))?;
    for notice in &status.notices {
        voice.print(&format!("{notice}\n"))?;
    }
    let mut table = Table::new(&["MACHINE", "TOOLCHAIN", "IMAGE", "START", "WHY"]);
    for ready in &status.machines {
        let (machine, toolchain) = (ready.machine.to_string(), ready.toolchain.to_string());
        table.add([
            machine,
            toolchain,
            ready.image.to_string(),
            ready.start.to_string(),
            why(ready),
        ]);
    }
    voice.print_table(&table)
}

/// Why an image is as it is, and why builds start as they do.
fn why(ready: &Readiness) -> String {
    let evicted = match ready.evictions {
        0 => String::new(),
        1 => "a frozen guest was given up".to_owned(),
        count => format!("{count} frozen guests were given up"),
    };
    let all = [&ready.message, &ready.start_message, &evicted];
    let told = all.into_iter().filter(|text| !text.is_empty());
    told.map(String::as_str).collect::<Vec<_>>().join("; ")
}

fn artifacts(build: &Build, voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        return voice.print_json(&serde_json::json!(build.artifacts));
    }
    let mut table = Table::new(&["FILE", "BYTES", "SHA256"]);
    for artifact in &build.artifacts {
        table.add([
            artifact.name.to_string(),
            artifact.bytes.to_string(),
            artifact.sha256.to_string(),
        ]);
    }
    voice.print_table(&table)
}
