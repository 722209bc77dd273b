//! The verbs about the queue as a whole: what it waits for, and whether anything is
//! to start at all.

mod top;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Subcommand;
use config::BuildId;
use config::builds::{Build, State};
use config::queue::{Drain, Drained, Queue, WaitingBuild};
use jiff::Timestamp;

use crate::{Common, Ending, Failure, Rehearsal, Voice};
use client::Client;

/// How often a host that is being drained is looked at.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say in one sentence what the queue, or a build, waits for
    Why {
        /// The build
        build: Option<BuildId>,
    },
    /// Watch what runs, what waits and the machines, until `q` is pressed
    Top {
        /// Print it once
        #[arg(long)]
        once: bool,
    },
    /// Let no guest start any more, for maintenance
    ///
    /// Builds and bootstraps that run go on to their end; builds that wait, or are
    /// submitted, wait for `undrain`. A restart of the agent or of the host does not
    /// change that.
    Drain {
        /// Wait until nothing runs any more
        #[arg(long)]
        wait: bool,
        /// How long to wait, in seconds
        #[arg(
            long,
            value_name = "SECONDS",
            default_value_t = 7200,
            requires = "wait"
        )]
        timeout: u64,
        /// Why, for those who wait
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        reason: String,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Let guests start again
    Undrain {
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let client = Client::new(&common.socket)?;
    match verb {
        Verb::Why { build: Some(id) } => {
            let build: Build = client.get(&format!("builds/{id}"))?;
            tell(&of_build(&build, Timestamp::now()), voice)
        }
        Verb::Why { build: None } => tell(&of_queue(&client.get("queue")?), voice),
        Verb::Top { once } => top::run(&client, *once, voice),
        Verb::Drain {
            wait,
            timeout,
            reason,
            rehearsal,
        } => {
            if rehearsal.dry_run {
                return rehearse(&client.get("queue")?, *wait, voice);
            }
            let reason = reason.clone();
            let drained: Drained = client.post("drain", &Drain { reason })?;
            voice.say(drained.message());
            if *wait {
                wait_until_empty(&client, Duration::from_secs(*timeout), voice)
            } else {
                Ok(())
            }
        }
        Verb::Undrain { rehearsal } => {
            let before: Queue = client.get("queue")?;
            let Some(drained) = &before.drained else {
                voice.say("the host is not drained");
                return Ok(());
            };
            let words = drained.message();
            if rehearsal.dry_run {
                return voice.would(format!("let guests start again; {words}"));
            }
            let after: Queue = client.post("undrain", &())?;
            voice.say(format!(
                "{words}, until now; {} wait",
                counted(after.waiting.len(), "build")
            ));
            Ok(())
        }
    }
}

fn tell(words: &str, voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        return voice.print_json(&serde_json::json!({ "why": words }));
    }
    voice.print(&format!("{words}\n"))
}

/// What a build waits for, or why it waits for nothing.
fn of_build(build: &Build, now: Timestamp) -> String {
    let id = build.id;
    if let Some(outcome) = build.outcome {
        let mut words = format!("build {id} waits for nothing: it has ended with {outcome}");
        if !build.message.is_empty() {
            let _ = write!(words, ", because {}", build.message);
        }
        return words;
    }
    match build.state {
        State::Queued => waits(id, &build.message, build.not_before, now),
        State::Starting => format!("build {id} waits for the first word of its guest"),
        State::Running | State::Finished => {
            format!("build {id} waits for nothing: its guest runs")
        }
        State::Storing => format!("build {id} waits for nothing: its result is being stored"),
    }
}

fn waits(id: BuildId, message: &str, not_before: Option<Timestamp>, now: Timestamp) -> String {
    if message.is_empty() {
        return format!("build {id} waits for its turn, which is about to be decided");
    }
    let left = not_before.map(|time| time.duration_since(now).as_secs());
    let rests = left.filter(|left| *left > 0);
    let rests = rests
        .map(|left| format!(" {left} s more"))
        .unwrap_or_default();
    format!("build {id} waits{rests} {message}")
}

/// What the queue waits for: its next build.
fn of_queue(queue: &Queue) -> String {
    let count = counted(queue.waiting.len(), "build");
    if let Some(drained) = &queue.drained {
        return format!("{count} wait, because {}", drained.message());
    }
    let Some(WaitingBuild {
        build,
        message,
        not_before,
        ..
    }) = queue.waiting.first()
    else {
        return "no build waits".to_owned();
    };
    let next = waits(*build, message, *not_before, queue.at);
    if queue.waiting.len() == 1 {
        return next;
    }
    format!("{count} wait; the next of them: {next}")
}

fn counted(count: usize, word: &str) -> String {
    match count {
        0 => format!("no {word}s"),
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    }
}

fn rehearse(queue: &Queue, wait: bool, voice: &Voice) -> Result<(), Failure> {
    voice.would("let no guest start any more")?;
    for guest in queue.running.iter().filter(|_| wait) {
        let words = match guest.build {
            Some(id) if guest.is_debug_copy => {
                format!("wait for who is attached to a copy of build {id}")
            }
            Some(id) => format!("wait for build {id} on {}", guest.machine),
            None => format!("wait for the bootstrap of {}", guest.machine),
        };
        voice.would(words)?;
    }
    Ok(())
}

fn wait_until_empty(client: &Client, limit: Duration, voice: &Voice) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let mut said = None;
    loop {
        let queue: Queue = client.get("queue")?;
        let left = queue.running.len();
        if left == 0 {
            voice.say("no guest runs any more");
            return Ok(());
        }
        if queue.drained.is_none() {
            let words = "somebody has ended the drain of the host";
            return Err(Failure::new(Ending::Refused, words));
        }
        let words = match left {
            1 => "1 guest runs".to_owned(),
            _ => format!("{left} guests run"),
        };
        if Instant::now() >= deadline {
            let words = format!(
                "{words} still after {} s; the host stays drained",
                limit.as_secs()
            );
            return Err(Failure::new(Ending::InUse, words));
        }
        if said != Some(left) {
            voice.say(words);
            said = Some(left);
        }
        std::thread::sleep(DRAIN_PAUSE);
    }
}
