//! Shows builds: many in a table, or one with all that is known of it.

use std::num::NonZeroUsize;

use clap::Args;
use config::builds::{Build, Cursor, HoldKind, ListQuery, Priority, Sort, State, Submitter};
use config::task::Outcome;
use config::{MachineName, ScheduleName, ToolchainName};
use jiff::{Timestamp, Zoned};

use crate::{Ending, Failure, Table, Voice};
use client::Client;

/// Which builds to show.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// How many to show
    #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
    count: u32,
    /// Only those on this machine
    #[arg(long, value_name = "NAME")]
    machine: Option<MachineName>,
    /// Only those with this toolchain
    #[arg(long, value_name = "NAME")]
    toolchain: Option<ToolchainName>,
    /// Only those that ended so: success, warning, error, abort, abnormal, …
    #[arg(long)]
    outcome: Option<Outcome>,
    /// Only those that are queued, starting, running, storing or finished
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Only those that this one asked for
    #[arg(long, value_name = "NAME")]
    submitter: Option<Submitter>,
    /// Only those that this schedule asked for
    #[arg(long, value_name = "NAME")]
    schedule: Option<ScheduleName>,
    /// Only those of this package, built or not
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// Only those asked for since then: a time, or how long ago: `2h`, `3days`
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only those asked for before then, likewise
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// By what to sort: submitted, finished or seconds; --since and --until go by
    /// `finished` when this does
    #[arg(long, default_value_t, value_name = "WHAT")]
    sort: Sort,
    /// Show the oldest or shortest first
    #[arg(long)]
    reverse: bool,
    /// Go on where an earlier listing ended
    #[arg(long, value_name = "PLACE")]
    from: Option<Cursor>,
}

impl Filter {
    fn listing(&self) -> ListQuery {
        ListQuery {
            machine: self.machine.clone(),
            toolchain: self.toolchain.clone(),
            outcome: self.outcome,
            state: self.state,
            submitter: self.submitter.clone(),
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

fn state(word: &str) -> Result<State, String> {
    State::from_name(word).ok_or_else(|| {
        let words = State::ALL.map(|(_, word)| word);
        format!("expected one of {}", words.join(", "))
    })
}

/// Reads a time, or a span that is counted back from now.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let now = Zoned::now();
    if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        let zoned = civil.to_zoned(now.time_zone().clone());
        return zoned.map(|it| it.timestamp()).map_err(|it| it.to_string());
    }
    let span = text.trim_end_matches(" ago").parse::<jiff::Span>();
    let past = span.and_then(|span| now.checked_sub(span.abs()));
    past.map(|it| it.timestamp()).map_err(|_| {
        "expected a time such as 2026-11-21T08:00, or how long ago, such as 2h".to_owned()
    })
}

/// Shows the builds that are asked for, a page of the agent's at a time.
pub(super) fn list(client: &Client, filter: &Filter, voice: &Voice) -> Result<(), Failure> {
    let mut builds = Vec::new();
    let mut next = Some(filter.listing());
    while let Some(listing) = next.take() {
        let query = serde_urlencoded::to_string(&listing)
            .map_err(|error| Failure::new(Ending::Failed, error))?;
        let page: Vec<Build> = client.get(&format!("builds?{query}"))?;
        let left = filter
            .count
            .saturating_sub(u32::try_from(builds.len() + page.len()).unwrap_or(u32::MAX));
        next = listing.next(&page).map(|next| ListQuery {
            count: Some(left),
            ..next
        });
        builds.extend(page);
        if left == 0 {
            break;
        }
    }
    if let Some(cursor) = next.and_then(|next| next.from) {
        voice.say(format!("there may be more: --from {cursor}"));
    }
    if voice.json() {
        return voice.print_json(&serde_json::json!(builds));
    }
    let mut table = Table::new(&[
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
    for build in &builds {
        let packages = build.packages.iter().map(|built| {
            format!(
                "{}-{}-{}",
                built.package.name, built.package.version, built.revision
            )
        });
        let packages: Vec<_> = packages.collect();
        table.add([
            build.id.to_string(),
            build.machine.to_string(),
            build
                .revision
                .map(|revision| revision.to_string())
                .unwrap_or_default(),
            build.toolchain.to_string(),
            word(build),
            build.submitted.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            start(build),
            seconds(build),
            result(build, &packages),
        ]);
    }
    voice.print_table(&table)
}

/// What came out, or why nothing did.
fn result(build: &Build, packages: &[String]) -> String {
    let told = if packages.is_empty() {
        build.message.clone()
    } else {
        packages.join(" ")
    };
    let all = [held(build), told].into_iter();
    let all: Vec<_> = all.filter(|text| !text.is_empty()).collect();
    all.join("; ")
}

/// What waits for a person, and for how long.
fn held(build: &Build) -> String {
    let Some(held) = build.interactive.held else {
        return String::new();
    };
    let what = match held.kind {
        HoldKind::Breakpoint => "waits at its breakpoint",
        HoldKind::Guest => "guest held",
        HoldKind::Snapshot => "snapshot held",
    };
    let until = held.until.strftime("%Y-%m-%d %H:%M:%S");
    match build.interactive.copies.map(NonZeroUsize::get) {
        None => format!("{what} until {until}"),
        Some(1) => format!("{what} until {until}, somebody is attached to a copy"),
        Some(copies) => format!("{what} until {until}, {copies} are attached to copies"),
    }
}

/// The outcome when there is one, else the state.
fn word(build: &Build) -> String {
    build
        .outcome
        .map_or_else(|| build.state.to_string(), |outcome| outcome.to_string())
}

fn seconds(build: &Build) -> String {
    let seconds = build.seconds();
    seconds.map(|it| format!("{it:.1}")).unwrap_or_default()
}

/// The usual priority goes without saying.
fn priority(build: &Build) -> String {
    if build.priority == Priority::default() {
        String::new()
    } else {
        build.priority.to_string()
    }
}

/// Each step with the seconds that it took.
fn phases(build: &Build) -> String {
    let ends = build.phases.iter().skip(1);
    let lasted = build.phases.iter().zip(ends).map(|(phase, next)| {
        let seconds = next.at.duration_since(phase.at).as_secs_f64();
        format!("{} {seconds:.2}", phase.state)
    });
    lasted.collect::<Vec<_>>().join(", ")
}

fn usage(build: &Build) -> String {
    let cpu = build.usage.cpu_milliseconds;
    let cpu = cpu.map(|it| format!("{}.{:03} s of CPU", it / 1000, it % 1000));
    let memory = build.usage.memory_bytes_max;
    let memory = memory.map(|it| format!("{} MiB of memory", it / (1024 * 1024)));
    let known = [cpu, memory].into_iter().flatten();
    known.collect::<Vec<_>>().join(", ")
}

/// How its guest started, and how long that took.
fn start(build: &Build) -> String {
    let start = build.startup();
    start
        .map(|(start, seconds)| format!("{start} {seconds:.2}"))
        .unwrap_or_default()
}

pub(super) fn show(build: &Build, voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        return voice.print_json(&serde_json::json!(build));
    }
    let time =
        |time: Option<jiff::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let sources = build
        .sources
        .iter()
        .map(|source| format!("{} ({})", source.name, source.sha256));
    let packages = build.packages.iter().map(|built| {
        let package = &built.package;
        format!(
            "{} {} {} {} ({})",
            package.name, package.version, built.revision, package.architecture, package.file
        )
    });
    let after: Vec<_> = build.after.iter().map(ToString::to_string).collect();
    let all = [
        ("build", build.id.to_string()),
        ("target", build.target.to_string()),
        ("state", word(build)),
        ("message", build.message.clone()),
        ("held", held(build)),
        ("submitter", build.submitter.to_string()),
        (
            "schedule",
            build
                .schedule
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        ),
        ("priority", priority(build)),
        ("after", after.join(" ")),
        ("machine", build.machine.to_string()),
        (
            "revision",
            build.revision.map(|r| r.to_string()).unwrap_or_default(),
        ),
        ("toolchain", build.toolchain.to_string()),
        (
            "guest",
            build.guest.map(|kind| kind.to_string()).unwrap_or_default(),
        ),
        ("sources", sources.collect::<Vec<_>>().join("\n")),
        ("submitted", build.submitted.to_string()),
        ("started", time(build.started)),
        ("start", start(build)),
        ("finished", time(build.finished)),
        ("attempts", build.attempts.to_string()),
        ("not before", time(build.not_before)),
        ("phases", phases(build)),
        ("usage", usage(build)),
        ("packages", packages.collect::<Vec<_>>().join("\n")),
    ];
    voice.print(&lines(&all))
}

/// What is known of something, a line for each thing that is.
pub(crate) fn lines(all: &[(&str, String)]) -> String {
    let line = |(name, value): &(&str, String)| {
        format!("{name:>10}  {}\n", value.replace('\n', "\n            "))
    };
    let told = all.iter().filter(|(_, value)| !value.is_empty());
    told.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = Timestamp::now();
        let ago = |text: &str| now.duration_since(time(text).unwrap()).as_secs();
        assert_eq!(
            time("2026-11-21T08:00:00Z").unwrap().as_second(),
            1_795_248_000
        );
        for (text, seconds) in [("2h", 7200), ("90 minutes ago", 5400), ("1h 1s", 3601)] {
            assert!((0..=1).contains(&(seconds - ago(text))), "{text}");
        }
        assert!(time("2026-11-21").is_ok() && time("2026-11-21T08:00").is_ok());
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn a_listing_survives_its_way_into_an_address() {
        let listing = ListQuery {
            submitter: Some("token:a b&c".replace(' ', "+").parse().unwrap()),
            outcome: Some(Outcome::Abort),
            since: Some(Timestamp::UNIX_EPOCH),
            from: Some("2.5,7".parse().unwrap()),
            reverse: true,
            count: Some(3),
            ..ListQuery::default()
        };
        let query = serde_urlencoded::to_string(&listing).unwrap();
        assert_eq!(
            serde_urlencoded::from_str::<ListQuery>(&query).unwrap(),
            listing
        );
    }
}
