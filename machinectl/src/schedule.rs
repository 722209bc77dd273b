//! The commands about schedules, which submit builds by the clock.

mod timing;

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};
use client::Client;
use config::builds::{Priority, Request, Resources};
use config::projects::BitbakeTarget;
use config::schedule::{NewSchedule, Run, RunResult, Schedule, ScheduledProject, Timing};
use config::{MachineName, ProjectName, ScheduleName};
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::build::{BuildArguments, finish_submission, upload_sources};
use crate::exit_code::{ExitStatus, Failure};
use crate::farm;
use crate::options::{DryRun, Follow, GlobalOptions};
use crate::output::{Output, Table, fields, or_empty, time};
use timing::When;

pub(crate) use timing::local;

const EXAMPLES: &str = "\
Examples:
  buildhost schedule add nightly --cron \"0 3 * * MON-FRI\" --zone Europe/Berlin -- linux-gcc_6 hello-1.0.tar.gz
  buildhost schedule add often --every 6h -- linux-gcc_6 hello-1.0.tar.gz --priority -5
  buildhost schedule add once --at 22:00 -- linux-gcc_6 hello-1.0.tar.gz --hold
  buildhost schedule add camera --cron \"0 3 * * *\" --project camera";

/// The toolchain of projects.
const TOOLCHAIN: &str = "bitbake";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a schedule
    ///
    /// The arguments after `--` are those of `build`. The sources are uploaded now and kept as
    /// long as the schedule exists. One run makes up for all times that pass while the agent is
    /// not running. While the build of an earlier run is unfinished, no new build is created,
    /// unless `--no-coalesce` is among the arguments. With `--project`, each run resolves the project
    /// again, so that its build has the newest commits of the branches.
    #[command(after_help = EXAMPLES)]
    Add(Box<Add>),
    /// List the schedules with their next run and the result of the last one
    List,
    /// Show everything about a schedule
    Show {
        /// The schedule
        name: ScheduleName,
    },
    /// Run a schedule now, in addition to its times, and print the number of the build
    Run {
        /// The schedule
        name: ScheduleName,
        #[command(flatten)]
        follow: Follow,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Pause a schedule of a farm: it runs by hand only
    Pause {
        /// The schedule
        name: ScheduleName,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// End the pause of a schedule of a farm; times that have passed do not run
    Resume {
        /// The schedule
        name: ScheduleName,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Remove a schedule; its builds stay
    Remove {
        /// The schedule
        name: ScheduleName,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The name of the schedule
    name: ScheduleName,
    #[command(flatten)]
    when: When,
    /// Replace the schedule of the same name
    #[arg(long)]
    replace: bool,
    /// Add the schedule even if its machine or toolchain does not exist yet
    #[arg(long)]
    unchecked: bool,
    #[command(flatten)]
    dry_run: DryRun,
    /// Build this project, with the commits that its branches have at each run; for a farm, the
    /// project that the builds belong to
    #[arg(long)]
    project: Option<ProjectName>,
    /// A target in place of those of the project; may be repeated
    #[arg(long = "target", value_name = "TARGET[:TASK]", requires = "project")]
    targets: Vec<BitbakeTarget>,
    /// The arguments of `build`
    #[arg(
        last = true,
        required_unless_present = "project",
        value_name = "BUILD ARGS"
    )]
    build: Vec<OsString>,
}

/// The arguments after `--`.
#[derive(Debug, Parser)]
#[command(name = "buildhost build", no_binary_name = true)]
struct BuildLine {
    #[command(flatten)]
    arguments: BuildArguments,
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let client = match command {
        Command::Pause { .. } | Command::Resume { .. } => farm::client(options)?,
        _ => options.client()?,
    };
    match command {
        Command::Add(add) => add.run(&client, output),
        Command::List => list(&client.schedules()?, output),
        Command::Show { name } => show(&client.schedule(name)?, output),
        Command::Run {
            name,
            follow,
            dry_run,
        } => run_now(&client, name, (*follow, *dry_run), output),
        Command::Remove { name, dry_run } => remove(&client, name, *dry_run, output),
        Command::Pause { .. } | Command::Resume { .. } => {
            farm::run_schedules(command, &client, output)
        }
    }
}

fn run_now(
    client: &Client,
    name: &ScheduleName,
    (follow, dry_run): (Follow, DryRun),
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        let machine = client.schedule(name)?.build.machine;
        return output.plan(format_args!("run schedule {name} on {machine}"));
    }
    let created = client.run_schedule(name)?;
    let build = created.value;
    if !created.is_new {
        output.status(format_args!(
            "build {}, which is {}, is equivalent, so no new build was created",
            build.id, build.state
        ));
    }
    finish_submission(client, &build, follow, output)
}

fn remove(
    client: &Client,
    name: &ScheduleName,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        client.schedule(name)?;
        return output.plan(format_args!("remove schedule {name}"));
    }
    client.remove_schedule(name)?;
    output.status(format_args!("removed schedule {name}"));
    Ok(())
}

/// The subject of the builds of a schedule.
enum Subject {
    /// A build with these arguments.
    Build(Box<BuildArguments>),
    /// A project, on a machine of the host.
    Project(ScheduledProject, MachineName),
}

impl Subject {
    fn request(&self) -> Result<Request, Failure> {
        match self {
            Self::Build(arguments) => arguments.request(),
            Self::Project(_, machine) => Ok(Request {
                machine: machine.clone(),
                toolchain: TOOLCHAIN.parse().ok(),
                sources: Vec::new(),
                interactive: None,
                hold: false,
                commands: None,
                target: None,
                priority: Priority::default(),
                resources: Resources::default(),
                after: Vec::new(),
                secrets: Vec::new(),
                submitter: None,
                coalesce: true,
                project: None,
                controller: None,
            }),
        }
    }

    fn project(&self) -> Option<ScheduledProject> {
        match self {
            Self::Build(_) => None,
            Self::Project(project, _) => Some(project.clone()),
        }
    }
}

impl Add {
    /// Returns the subject of the builds, which the arguments name.
    fn subject(&self, client: &Client) -> Result<Subject, Failure> {
        let Some(name) = self.project_of_host()? else {
            return Ok(Subject::Build(Box::new(self.build_line()?)));
        };
        let machine = client.project(name)?.host_machine.ok_or_else(|| {
            let text = format!(
                "the project {name} names no machine of this host; \
                 `buildhost project set {name} --host-machine MACHINE` sets it"
            );
            Failure::new(ExitStatus::Usage, text)
        })?;
        let project = ScheduledProject {
            name: name.clone(),
            targets: self.targets.clone(),
            at: Vec::new(),
        };
        Ok(Subject::Project(project, machine))
    }

    /// Returns the project whose layers a host builds.
    fn project_of_host(&self) -> Result<Option<&ProjectName>, Failure> {
        if self.project.is_some() && !self.build.is_empty() {
            let text = "the schedule of a project on a host takes no arguments after `--`";
            return Err(Failure::new(ExitStatus::Usage, text));
        }
        Ok(self.project.as_ref())
    }

    /// Returns the build of a schedule of a farm.
    pub(crate) fn build_of_farm(&self) -> Result<BuildArguments, Failure> {
        if self.build.is_empty() || !self.targets.is_empty() || self.unchecked {
            let text = "a schedule of a farm submits the build after `--`; --target and --unchecked have no \
                        meaning there";
            return Err(Failure::new(ExitStatus::Usage, text));
        }
        self.build_line()
    }

    fn build_line(&self) -> Result<BuildArguments, Failure> {
        let line = BuildLine::try_parse_from(&self.build);
        let line = line.map_err(|error| Failure::new(ExitStatus::Usage, error))?;
        Ok(line.arguments)
    }

    pub(crate) fn name(&self) -> &ScheduleName {
        &self.name
    }

    pub(crate) fn when(&self) -> &When {
        &self.when
    }

    pub(crate) fn project(&self) -> Option<&ProjectName> {
        self.project.as_ref()
    }

    pub(crate) fn replaces(&self) -> bool {
        self.replace
    }

    pub(crate) fn dry_run(&self) -> DryRun {
        self.dry_run
    }

    /// Adds the schedule. The agent checks it before any source is uploaded.
    fn run(&self, client: &Client, output: &Output) -> Result<(), Failure> {
        let name = &self.name;
        let subject = self.subject(client)?;
        let timing = self
            .when
            .timing(&Zoned::now())
            .map_err(|text| Failure::new(ExitStatus::Usage, text))?;
        if !self.replace && client.schedule(name).is_ok() {
            let text = format!("schedule {name} exists already; `--replace` replaces it");
            return Err(Failure::new(ExitStatus::Exists, text));
        }
        let mut new = NewSchedule {
            name: name.clone(),
            timing,
            build: subject.request()?,
            project: subject.project(),
            replace: self.replace,
            unchecked: self.unchecked,
            dry_run: true,
        };
        let checked = client.add_schedule(&new)?.value;
        if self.dry_run.enabled {
            let text = summary_of(&checked);
            return output.plan(format_args!("add schedule {text}"));
        }
        if let Subject::Build(arguments) = &subject {
            upload_sources(client, arguments, &new.build, output)?;
        }
        new.dry_run = false;
        let created = client.add_schedule(&new)?;
        let done = if created.is_new { "added" } else { "replaced" };
        let text = summary_of(&created.value);
        output.status(format_args!("{done} schedule {text}"));
        if output.is_json() {
            return output.print_json(&created.value);
        }
        Ok(())
    }
}

fn summary_of(schedule: &Schedule) -> String {
    let names = (&schedule.name, &schedule.timing);
    summary(names, schedule.next, Timestamp::now())
}

/// Returns a schedule's name, timing and next run.
pub(crate) fn summary(
    (name, timing): (&ScheduleName, &Timing),
    next: Option<Timestamp>,
    now: Timestamp,
) -> String {
    let Some(next) = next else {
        return format!("{name}: {timing}, no further run");
    };
    let left = SignedDuration::from_secs(next.duration_since(now).as_secs());
    let next = local(timing, next);
    format!("{name}: {timing}, next at {next}, in {left:#}")
}

fn list(schedules: &[Schedule], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&schedules);
    }
    let mut table = Table::new(["SCHEDULE", "WHEN", "MACHINE", "NEXT", "LAST", "RESULT"]);
    for schedule in schedules {
        let last = schedule.last.as_ref();
        table.add([
            schedule.name.to_string(),
            schedule.timing.to_string(),
            schedule.build.machine.to_string(),
            or_empty(schedule.next.map(time)),
            or_empty(last.map(|run| time(run.at))),
            or_empty(last.map(result)),
        ]);
    }
    output.print_table(&table)
}

/// Returns the result of a run.
pub(crate) fn result(run: &Run) -> String {
    match run.result {
        RunResult::Submitted => format!("build {}", or_empty(run.build)),
        RunResult::Coalesced => format!("no new build: {}", run.message),
        RunResult::Failed => format!("failed: {}", run.message),
    }
}

fn show(schedule: &Schedule, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(schedule);
    }
    let build = &schedule.build;
    let local = |time: Timestamp| local(&schedule.timing, time).to_string();
    let sources: Vec<_> = build
        .sources
        .iter()
        .map(|source| format!("{} ({})", source.name, source.sha256))
        .collect();
    let last = schedule.last.as_ref();
    let due = last.map(|run| match run.due {
        Some(due) => local(due),
        None => "by hand".to_owned(),
    });
    output.print(&fields(&[
        ("schedule", schedule.name.to_string()),
        ("when", schedule.timing.to_string()),
        ("next", or_empty(schedule.next.map(local))),
        ("last", or_empty(last.map(|run| local(run.at)))),
        ("due", or_empty(due)),
        ("result", or_empty(last.map(result))),
        ("machine", build.machine.to_string()),
        ("toolchain", or_empty(build.toolchain.as_ref())),
        (
            "project",
            or_empty(schedule.project.as_ref().map(|it| &it.name)),
        ),
        ("sources", sources.join("\n")),
        ("submitter", schedule.submitter.to_string()),
        ("added", local(schedule.added)),
    ]))
}
