//! `builds`: a filtered table of builds.

use clap::Args;
use client::Client;
use config::builds::{Build, Cursor, ListQuery, Sort, State, Submitter};
use config::task::Outcome;
use config::{MachineName, ProjectName, ScheduleName, ToolchainName};
use farm_core::view::{BuildQuery, BuildState};
use jiff::Timestamp;

use super::show;
use crate::exit_code::{ExitStatus, Failure};
use crate::output::{Output, Table, joined, or_empty, past_time, time};

/// The options that select builds.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// The number of builds to show
    #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
    count: u32,
    /// Only builds on this machine
    #[arg(long, value_name = "NAME")]
    machine: Option<MachineName>,
    /// Only builds with this toolchain
    #[arg(long, value_name = "NAME")]
    toolchain: Option<ToolchainName>,
    /// Only builds with this outcome: success, warning, error, abort, abnormal, interrupt or skip
    #[arg(long, value_parser = outcome)]
    outcome: Option<Outcome>,
    /// Only builds in this state: queued, starting, running, storing or finished
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Only builds on this host of a farm
    #[arg(long, value_name = "NAME")]
    on_host: Option<String>,
    /// Only builds of this submitter
    #[arg(long, value_name = "NAME")]
    submitter: Option<Submitter>,
    /// Only builds of this project
    #[arg(long, value_name = "NAME")]
    project: Option<ProjectName>,
    /// Only builds of this schedule
    #[arg(long, value_name = "NAME")]
    schedule: Option<ScheduleName>,
    /// Only builds of this package, including failed ones
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// Only builds submitted since this time, such as 2026-11-21T08:00, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = past_time)]
    since: Option<Timestamp>,
    /// Only builds submitted before this time
    #[arg(long, value_name = "TIME", value_parser = past_time)]
    until: Option<Timestamp>,
    /// The order: submitted, finished or seconds. With `finished`, --since and --until apply to
    /// the end of a build
    #[arg(long, default_value_t, value_name = "KEY")]
    sort: Sort,
    /// Show the oldest or shortest builds first
    #[arg(long)]
    reverse: bool,
    /// Continue an earlier listing at the position that it printed
    #[arg(long, value_name = "POSITION")]
    from: Option<Cursor>,
}

impl Filter {
    fn query(&self) -> ListQuery {
        ListQuery {
            machine: self.machine.clone(),
            toolchain: self.toolchain.clone(),
            outcome: self.outcome,
            state: self.state,
            submitter: self.submitter.clone(),
            project: self.project.clone(),
            schedule: self.schedule.clone(),
            package: self.package.clone(),
            since: self.since,
            until: self.until,
            before: None,
            sort: self.sort,
            reverse: self.reverse,
            from: self.from.clone(),
            count: Some(self.count),
        }
    }
}

impl Filter {
    /// Returns the query of a farm.
    ///
    /// # Errors
    /// A farm has no such filter or order.
    pub(crate) fn of_farm(&self) -> Result<BuildQuery, Failure> {
        let unknown = [
            ("--toolchain", self.toolchain.is_some()),
            ("--schedule", self.schedule.is_some()),
            ("--since", self.since.is_some()),
            ("--until", self.until.is_some()),
            ("--sort", self.sort != Sort::default()),
            ("--reverse", self.reverse),
        ];
        if let Some((option, _)) = unknown.iter().find(|(_, is_set)| *is_set) {
            let text =
                format!("{option} has no meaning for a farm, which lists the newest builds first");
            return Err(Failure::new(ExitStatus::Usage, text));
        }
        let wrong = |error| Failure::new(ExitStatus::Usage, error);
        let package = self.package.as_deref().map(str::parse).transpose();
        let state = self.state.map(|it| match it {
            State::Queued => BuildState::Queued,
            State::Starting | State::Running | State::Storing => BuildState::Running,
            State::Finished => BuildState::Finished,
        });
        Ok(BuildQuery {
            state,
            machine: self.machine.clone(),
            package: package
                .map_err(|error: config::builds::LabelError| wrong(error.to_string()))?,
            project: self.project.clone(),
            submitter: self.submitter.clone(),
            host: self.on_host.clone(),
            outcome: self.outcome,
            before: self.from.as_ref().map(|it| it.id),
            count: Some(self.count),
        })
    }
}

fn outcome(name: &str) -> Result<Outcome, String> {
    name.parse().map_err(|_| {
        "expected one of success, warning, error, abort, abnormal, interrupt, skip".to_owned()
    })
}

fn state(name: &str) -> Result<State, String> {
    State::from_name(name).ok_or_else(|| {
        let names = State::ALL.map(|(_, name)| name);
        format!("expected one of {}", names.join(", "))
    })
}

/// Prints the selected builds, which may take several requests.
pub(super) fn run(client: &Client, filter: &Filter, output: &Output) -> Result<(), Failure> {
    if filter.on_host.is_some() {
        let text = "--on-host has a meaning for a farm only";
        return Err(Failure::new(ExitStatus::Usage, text));
    }
    let (builds, next) = select(client, filter)?;
    if let Some(position) = next {
        output.status(format_args!("more builds may follow: --from {position}"));
    }
    if output.is_json() {
        return output.print_json(&builds);
    }
    output.print_table(&table(&builds))
}

/// Returns the selected builds, and the position where a further listing continues.
fn select(client: &Client, filter: &Filter) -> Result<(Vec<Build>, Option<Cursor>), Failure> {
    let mut builds = Vec::new();
    let mut query = filter.query();
    loop {
        let page = client.builds(&query)?;
        let next = query.next(&page);
        builds.extend(page);
        let seen = u32::try_from(builds.len()).unwrap_or(u32::MAX);
        let left = filter.count.saturating_sub(seen);
        match next {
            None => return Ok((builds, None)),
            Some(next) if left == 0 => return Ok((builds, next.from)),
            Some(next) => {
                let count = Some(left);
                query = ListQuery { count, ..next };
            }
        }
    }
}

fn table(builds: &[Build]) -> Table {
    let mut table = Table::new([
        "BUILD",
        "MACHINE",
        "REV",
        "TOOLCHAIN",
        "STATE",
        "SUBMITTED",
        "START",
        "SECONDS",
        "RESULT",
    ]);
    for build in builds {
        table.add([
            build.id.to_string(),
            build.machine.to_string(),
            or_empty(build.revision),
            build.toolchain.to_string(),
            show::state(build),
            time(build.submitted),
            show::startup(build),
            or_empty(build.seconds().map(|seconds| format!("{seconds:.1}"))),
            result(build),
        ]);
    }
    table
}

/// Returns the packages that a build produced, or its message; first, why it is held.
fn result(build: &Build) -> String {
    let packages: Vec<_> = build
        .packages
        .iter()
        .map(|built| {
            let package = &built.package;
            format!("{}-{}-{}", package.name, package.version, built.revision)
        })
        .collect();
    let result = if packages.is_empty() {
        build.message.clone()
    } else {
        packages.join(" ")
    };
    joined([show::hold(build).as_str(), &result], "; ")
}
