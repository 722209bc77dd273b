//! The verbs about schedules: builds that the agent asks for by the clock.

mod timing;

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};
use config::ScheduleName;
use config::builds::Build;
use config::schedule::{NewSchedule, Run, RunResult, Schedule};
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::build::{Wanted, submit, submitted};
use crate::{Common, Ending, Failure, Rehearsal, Table, Voice};
use client::{Client, ClientError};
use timing::When;

const EXAMPLES: &str = "\
Examples:
  machinectl schedule add nightly --cron \"0 3 * * MON-FRI\" --zone Europe/Berlin -- linux-gcc_6 hello-1.0.tar.gz
  machinectl schedule add often --every 6h -- linux-gcc_6 hello-1.0.tar.gz --priority -5
  machinectl schedule add once --at 22:00 -- linux-gcc_6 hello-1.0.tar.gz --hold";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Ask for a build once at a time, or again and again
    ///
    /// What is built is said after `--` as one says it to `build`. The sources are handed
    /// to the agent now, and kept as long as the schedule is there. Times that pass while
    /// the agent does not run are made up for by one run. While a build of an earlier
    /// run waits or runs, there is no other one, unless `--no-attach` says so.
    #[command(after_help = EXAMPLES)]
    Add(Box<Add>),
    /// Show all schedules, when each runs next, and what became of it last
    List,
    /// Show one schedule, with all that is known of it
    Show {
        /// The schedule
        name: ScheduleName,
    },
    /// Remove a schedule; builds that it has asked for go on
    Remove {
        /// The schedule
        name: ScheduleName,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
    /// Run a schedule now, besides its own times; prints the number of the build
    Run {
        /// The schedule
        name: ScheduleName,
        /// Show the log until the build is over, and fail if it did
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// What it is called
    name: ScheduleName,
    #[command(flatten)]
    when: When,
    /// Put it in the place of the one of its name
    #[arg(long)]
    replace: bool,
    /// Add it even if its machine or toolchain is not there yet
    #[arg(long)]
    unchecked: bool,
    #[command(flatten)]
    rehearsal: Rehearsal,
    /// What to build and how, as `build` understands it
    #[arg(last = true, required = true, value_name = "BUILD ARGS")]
    build: Vec<OsString>,
}

/// What stands after `--`.
#[derive(Debug, Parser)]
#[command(name = "machinectl build", no_binary_name = true)]
struct Line {
    #[command(flatten)]
    wanted: Wanted,
}

pub(crate) fn run(verb: &Verb, common: &Common, voice: &Voice) -> Result<(), Failure> {
    let client = Client::new(&common.socket)?;
    match verb {
        Verb::Add(add) => add.run(&client, voice),
        Verb::List => list(&client.get::<Vec<Schedule>>("schedules")?, voice),
        Verb::Show { name } => show(&get(&client, name)?, voice),
        Verb::Remove { name, rehearsal } => {
            if rehearsal.dry_run {
                get(&client, name)?;
                return voice.would(format!("remove schedule {name}"));
            }
            client.delete(&format!("schedules/{name}"))?;
            voice.say(format!("schedule {name} is removed"));
            Ok(())
        }
        Verb::Run {
            name,
            follow,
            rehearsal,
        } => {
            if rehearsal.dry_run {
                let build = get(&client, name)?.build;
                return voice.would(format!(
                    "build what schedule {name} builds on {}",
                    build.machine
                ));
            }
            let path = format!("schedules/{name}/run");
            let (build, is_new): (Build, bool) = client.create(&path, &())?;
            if !is_new {
                let (id, state) = (build.id, build.state);
                voice.say(format!(
                    "build {id}, which is {state}, is as good as a new one"
                ));
            }
            submitted(&client, &build, *follow, voice)
        }
    }
}

fn get(client: &Client, name: &ScheduleName) -> Result<Schedule, ClientError> {
    client.get(&format!("schedules/{name}"))
}

impl Add {
    /// Lets the agent look at everything before any source is handed in.
    fn run(&self, client: &Client, voice: &Voice) -> Result<(), Failure> {
        let name = &self.name;
        let line = Line::try_parse_from(&self.build);
        let wanted = line
            .map_err(|error| Failure::new(Ending::Usage, error))?
            .wanted;
        let timing = self.when.timing(&Zoned::now());
        let timing = timing.map_err(|words| Failure::new(Ending::Usage, words))?;
        if !self.replace && get(client, name).is_ok() {
            let words = format!("there is a schedule {name} already; `--replace` replaces it");
            return Err(Failure::new(Ending::Exists, words));
        }
        let mut new = NewSchedule {
            name: name.clone(),
            timing,
            build: wanted.request()?,
            replace: self.replace,
            unchecked: self.unchecked,
            dry_run: true,
        };
        let (rehearsed, _): (Schedule, _) = client.create("schedules", &new)?;
        if self.rehearsal.dry_run {
            let words = in_words(&rehearsed, Timestamp::now());
            return voice.would(format!("add schedule {words}"));
        }
        submit::hand_in(client, &wanted, &new.build)?;
        new.dry_run = false;
        let (schedule, is_new): (Schedule, _) = client.create("schedules", &new)?;
        let done = if is_new { "added" } else { "replaced" };
        let words = in_words(&schedule, Timestamp::now());
        voice.say(format!("schedule {words}; it is {done}"));
        if voice.json() {
            return voice.print_json(&serde_json::json!(schedule));
        }
        Ok(())
    }
}

/// What was understood.
fn in_words(schedule: &Schedule, now: Timestamp) -> String {
    let (name, timing) = (&schedule.name, &schedule.timing);
    let Some(next) = schedule.next else {
        return format!("{name}: {timing}, never again");
    };
    let left = SignedDuration::from_secs(next.duration_since(now).as_secs());
    let next = timing::local(timing, next);
    format!("{name}: {timing}, next at {next}, in {left:#}")
}

fn list(all: &[Schedule], voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        return voice.print_json(&serde_json::json!(all));
    }
    let time = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut table = Table::new(&["SCHEDULE", "WHEN", "MACHINE", "NEXT", "LAST", "RESULT"]);
    for schedule in all {
        table.add([
            schedule.name.to_string(),
            schedule.timing.to_string(),
            schedule.build.machine.to_string(),
            schedule.next.map(time).unwrap_or_default(),
            schedule
                .last
                .as_ref()
                .map(|run| time(run.at))
                .unwrap_or_default(),
            schedule.last.as_ref().map(result).unwrap_or_default(),
        ]);
    }
    voice.print_table(&table)
}

/// What became of a run.
fn result(run: &Run) -> String {
    let build = run.build.map(|id| id.to_string()).unwrap_or_default();
    match run.result {
        RunResult::Submitted => format!("build {build}"),
        RunResult::Coalesced => format!("no new build: {}", run.message),
        RunResult::Failed => format!("failed: {}", run.message),
    }
}

fn show(schedule: &Schedule, voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        return voice.print_json(&serde_json::json!(schedule));
    }
    let build = &schedule.build;
    let time = |time: Timestamp| timing::local(&schedule.timing, time).to_string();
    let sources = build.sources.iter();
    let sources = sources.map(|source| format!("{} ({})", source.name, source.sha256));
    let last = schedule.last.as_ref();
    let due = last.map(|run| run.due.map_or_else(|| "by hand".to_owned(), time));
    let lines = [
        ("schedule", schedule.name.to_string()),
        ("when", schedule.timing.to_string()),
        ("next", schedule.next.map(time).unwrap_or_default()),
        ("last", last.map(|run| time(run.at)).unwrap_or_default()),
        ("due", due.unwrap_or_default()),
        ("result", last.map(result).unwrap_or_default()),
        ("machine", build.machine.to_string()),
        (
            "toolchain",
            build
                .toolchain
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        ),
        ("sources", sources.collect::<Vec<_>>().join("\n")),
        ("submitter", schedule.submitter.to_string()),
        ("added", time(schedule.added)),
    ];
    voice.print(&crate::build::lines(&lines))
}
