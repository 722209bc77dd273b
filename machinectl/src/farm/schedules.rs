//! The schedules and the projects of a farm.

use client::Client;
use config::schedule::RunResult;
use config::task::Digest;
use config::{ProjectName, ScheduleName};
use farm_core::schedules::{NewSchedule, Schedule};
use farm_core::view::{BuildView, ProjectView, ScheduleView};
use jiff::{Timestamp, Zoned};
use serde_json::json;

use super::submit::{conclude, follow, repeated};
use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, Follow};
use crate::output::{Output, Table, fields, or_empty, time};
use crate::project;
use crate::schedule::{self, Add, local, result, summary};

/// Runs a command about schedules with a farm.
pub(crate) fn run(
    command: &schedule::Command,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        schedule::Command::Add(add) => add_schedule(add, client, output),
        schedule::Command::List => list(&client.farm_schedules()?, output),
        schedule::Command::Show { name } => show(&client.farm_schedule(name)?, output),
        schedule::Command::Run {
            name,
            follow,
            dry_run,
        } => run_now(client, name, (*follow, *dry_run), output),
        schedule::Command::Remove { name, dry_run } => {
            if dry_run.enabled {
                client.farm_schedule(name)?;
                return output.plan(format_args!("remove schedule {name}"));
            }
            client.farm_remove_schedule(name)?;
            output.status(format_args!("removed schedule {name}"));
            Ok(())
        }
        schedule::Command::Pause { name, dry_run } => pause(client, name, true, *dry_run, output),
        schedule::Command::Resume { name, dry_run } => pause(client, name, false, *dry_run, output),
    }
}

/// Runs a command about projects with a farm.
pub(crate) fn run_projects(
    command: &project::Command,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        project::Command::List => projects(&client.farm_projects()?, output),
        project::Command::Show { name } => {
            let all = client.farm_projects()?;
            let found = all.into_iter().find(|it| it.name == *name);
            let found = found.ok_or_else(|| no_project(name))?;
            show_project(&found, output)
        }
        _ => {
            let text = "a farm knows the builds and schedules of a project, not its layers; name a host \
                        with --host";
            Err(Failure::new(ExitStatus::Refused, text))
        }
    }
}

fn add_schedule(add: &Add, client: &Client, output: &Output) -> Result<(), Failure> {
    let usage = |text: String| Failure::new(ExitStatus::Usage, text);
    let arguments = add.build_of_farm()?;
    // A schedule has no key of its own: the farm makes one for each run.
    let build = arguments.of_farm(String::new())?;
    let mut subject = build.subject.clone();
    subject.project = add.project().cloned().or(subject.project);
    let mut new = NewSchedule {
        name: add.name().clone(),
        timing: add.when().timing(&Zoned::now()).map_err(usage)?,
        coalesce: arguments.coalesces(),
        submitter: build.submitter.clone(),
        priority: build.priority,
        requirements: build.requirements.clone(),
        subject,
        replace: add.replaces(),
        // A coordinator checks it before any source is uploaded.
        dry_run: true,
    };
    let dry_run = add.dry_run().enabled;
    let mut added = client.farm_add_schedule(&new)?;
    if !dry_run {
        arguments.upload_to_farm(client, &build, output)?;
        new.dry_run = false;
        added = repeated(output, || client.farm_add_schedule(&new))?;
    }
    let shown = summary(
        (&added.value.schedule.name, &added.value.schedule.timing),
        added.value.next,
        Timestamp::now(),
    );
    if dry_run {
        return output.plan(format_args!("add schedule {shown}"));
    }
    let done = if added.is_new { "added" } else { "replaced" };
    let paused = if added.value.is_paused {
        "; it is paused"
    } else {
        ""
    };
    output.status(format_args!("{done} schedule {shown}{paused}"));
    if output.is_json() {
        return output.print_json(&added.value);
    }
    Ok(())
}

fn run_now(
    client: &Client,
    name: &ScheduleName,
    (follows, dry_run): (Follow, DryRun),
    output: &Output,
) -> Result<(), Failure> {
    if dry_run.enabled {
        let machine = client.farm_schedule(name)?.schedule.requirements.machine;
        return output.plan(format_args!("run schedule {name} on {machine}"));
    }
    let key = sys::random::bytes().map_err(|error| Failure::new(ExitStatus::Failure, error))?;
    let (build, result) = client.farm_run_schedule(name, &Digest::from(key).to_string())?;
    if result == RunResult::Coalesced {
        output.status(format_args!(
            "build {build} of an earlier run is unfinished, so no new build was created"
        ));
    }
    if follows.enabled {
        // Nobody reads the log any more, if there is no end.
        return match follow(client, build, output)? {
            Some(ended) => conclude(&ended, output),
            None => Ok(()),
        };
    }
    if output.is_json() {
        return output.print_json(&json!({ "build": build }));
    }
    output.print(&format!("{build}\n"))
}

fn pause(
    client: &Client,
    name: &ScheduleName,
    is_paused: bool,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let before = client.farm_schedule(name)?;
    if before.is_paused == is_paused {
        let state = if is_paused {
            "paused already"
        } else {
            "not paused"
        };
        output.status(format_args!("schedule {name} is {state}"));
        return Ok(());
    }
    let verb = if is_paused { "pause" } else { "resume" };
    if dry_run.enabled {
        return output.plan(format_args!("{verb} schedule {name}"));
    }
    client.farm_pause_schedule(name, is_paused)?;
    output.status(format_args!("{verb}d schedule {name}"));
    Ok(())
}

fn next(schedule: &ScheduleView) -> String {
    if schedule.is_paused {
        return "paused".to_owned();
    }
    or_empty(schedule.next.map(time))
}

fn list(schedules: &[ScheduleView], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&schedules);
    }
    let mut table = Table::new(["SCHEDULE", "WHEN", "MACHINE", "NEXT", "LAST", "RESULT"]);
    for it in schedules {
        let last = it.last.as_ref();
        table.add([
            it.schedule.name.to_string(),
            it.schedule.timing.to_string(),
            it.schedule.requirements.machine.to_string(),
            next(it),
            or_empty(last.map(|run| time(run.at))),
            or_empty(last.map(result)),
        ]);
    }
    output.print_table(&table)
}

fn show(it: &ScheduleView, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(it);
    }
    let schedule = &it.schedule;
    let local = |at: Timestamp| local(&schedule.timing, at).to_string();
    let last = it.last.as_ref();
    let due = last.map(|run| match run.due {
        Some(due) => local(due),
        None => "by hand".to_owned(),
    });
    let next = if it.is_paused {
        "paused".to_owned()
    } else {
        or_empty(it.next.map(local))
    };
    output.print(&fields(&[
        ("schedule", schedule.name.to_string()),
        ("when", schedule.timing.to_string()),
        ("next", next),
        ("last", or_empty(last.map(|run| local(run.at)))),
        ("due", or_empty(due)),
        ("result", or_empty(last.map(result))),
        ("sources", sources(schedule)),
        ("machine", schedule.requirements.machine.to_string()),
        ("toolchain", schedule.requirements.toolchain.to_string()),
        ("target", or_empty(schedule.subject.target.as_ref())),
        ("project", or_empty(schedule.subject.project.as_ref())),
        ("submitter", schedule.submitter.to_string()),
        ("added", local(it.added)),
    ]))
}

/// Returns the names of the sources that each run has.
fn sources(schedule: &Schedule) -> String {
    let sources = schedule.requirements.work.sources.iter();
    let names: Vec<_> = sources.map(|it| it.name.to_string()).collect();
    names.join("\n")
}

fn projects(projects: &[ProjectView], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&projects);
    }
    let mut table = Table::new([
        "PROJECT",
        "UNFINISHED",
        "LAST BUILD",
        "RESULT",
        "LAST SUCCESS",
        "SCHEDULES",
    ]);
    for it in projects {
        let outcome = it.last.as_ref().and_then(|it| it.outcome);
        table.add([
            it.name.to_string(),
            it.unfinished.to_string(),
            or_empty(it.last.as_ref().map(|it| it.build)),
            or_empty(outcome),
            or_empty(it.good().and_then(|it| it.finished).map(time)),
            schedules_of(it),
        ]);
    }
    output.print_table(&table)
}

fn show_project(it: &ProjectView, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(it);
    }
    let build = |build: &BuildView| {
        let outcome = or_empty(build.outcome);
        let at = or_empty(build.finished.map(time));
        format!(
            "build {} of {}: {outcome} at {at}",
            build.build,
            build.title()
        )
    };
    output.print(&fields(&[
        ("project", it.name.to_string()),
        ("unfinished", it.unfinished.to_string()),
        ("last", or_empty(it.last.as_ref().map(build))),
        ("last success", or_empty(it.good().map(build))),
        ("schedules", schedules_of(it)),
    ]))
}

fn schedules_of(project: &ProjectView) -> String {
    let names: Vec<_> = project.schedules.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn no_project(name: &ProjectName) -> Failure {
    let text = format!("the farm has no build and no schedule of a project {name}");
    Failure::new(ExitStatus::NotFound, text)
}
