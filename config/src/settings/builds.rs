//! The settings of bootstraps and builds, and of what is kept of them.

use std::time::Duration;

use super::reader::Reader;
use super::{MIB, small};
use crate::limits::Limits;

/// How machines are bootstrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// How long a guest may take whose machine says nothing, nor `guests.limits` of it.
    pub limits: Limits,
    /// How often one that failed is tried again before it waits for a change.
    pub retries_max: u32,
}

/// How builds are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builds {
    /// The toolchain of a build that names none.
    pub toolchain: String,
    /// How long a guest may take whose machine says nothing, nor `guests.limits` of it.
    pub limits: Limits,
    /// How often a build is started again when the host failed it.
    pub retries_max: u32,
    /// How long it rests before that; twice as long each time.
    pub retry_delay: Duration,
    /// How long it rests at the most.
    pub retry_delay_max: Duration,
    /// After so long without a start, what waits counts as one priority higher; never
    /// if `None`.
    pub priority_aging: Option<Duration>,
    /// So long smaller builds may pass one for which there is no room.
    pub backfill_limit: Duration,
    /// Whether the guests of builds that fail are held, wished or not.
    pub hold_always: bool,
    /// How long a guest waits for a person.
    pub hold_limit: Duration,
    /// Of how many builds something is held at once; of any number if `None`.
    pub held_max: Option<usize>,
    /// The size of a source.
    pub sources_bytes_max: u64,
    /// The size of all artifacts of a build together.
    pub artifacts_bytes_max: u64,
    /// The size of a log.
    pub log_bytes_max: u64,
}

/// How long ended builds are kept; what is `None` has no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// How many there are.
    pub builds_max: Option<usize>,
    /// How long ago they ended.
    pub age_max: Option<Duration>,
    /// What they and all sources take together.
    pub bytes_max: Option<u64>,
}

pub(super) fn bootstrap(reader: &mut Reader<'_>) -> Bootstrap {
    Bootstrap {
        limits: Limits {
            start: reader.seconds("bootstrap.start_seconds_max", 300),
            idle: reader.seconds("bootstrap.silence_seconds_max", 900),
            total: reader.seconds("bootstrap.total_seconds_max", 3600),
        },
        retries_max: small(reader.number("bootstrap.retries_max", 2, 0..=100)),
    }
}

pub(super) fn builds(reader: &mut Reader<'_>) -> Builds {
    let aging = reader.number("builds.aging_minutes", 10, 0..=1_000_000);
    Builds {
        toolchain: reader.text("builds.toolchain", "default", |text| {
            let parsed = text.parse::<crate::ToolchainName>();
            parsed
                .map(|_| ())
                .map_err(|_| "the name of a toolchain is expected")
        }),
        limits: Limits {
            start: reader.seconds("builds.start_seconds_max", 240),
            idle: reader.seconds("builds.silence_seconds_max", 1800),
            total: reader.seconds("builds.total_seconds_max", 5400),
        },
        retries_max: small(reader.number("builds.retries_max", 2, 0..=100)),
        retry_delay: reader.seconds("builds.retry_seconds", 5),
        retry_delay_max: reader.seconds("builds.retry_seconds_max", 600),
        priority_aging: (aging > 0).then(|| Duration::from_mins(aging)),
        backfill_limit: Duration::from_mins(reader.number(
            "builds.patience_minutes",
            10,
            0..=1_000_000,
        )),
        hold_always: reader.choice("builds.hold", &[("wished", false), ("always", true)]),
        hold_limit: reader.seconds("builds.hold_seconds_max", 14400),
        held_max: usize::try_from(reader.number("builds.held_max", 10, 0..=1_000_000))
            .ok()
            .filter(|most| *most > 0),
        sources_bytes_max: MIB * reader.number("builds.sources_mib_max", 2048, 1..=1 << 30),
        artifacts_bytes_max: MIB * reader.number("builds.artifacts_mib_max", 2048, 1..=1 << 30),
        log_bytes_max: MIB * reader.number("builds.log_mib_max", 64, 1..=1 << 20),
    }
}

pub(super) fn records(reader: &mut Reader<'_>) -> Records {
    let builds = reader.number("records.builds_max", 10_000, 0..=100_000_000);
    let days = reader.number("records.days_max", 0, 0..=100_000);
    let mib = reader.number("records.mib_max", 0, 0..=1 << 30);
    let some = |number: u64| (number > 0).then_some(number);
    Records {
        builds_max: some(builds).and_then(|builds| usize::try_from(builds).ok()),
        age_max: some(days).map(|days| Duration::from_hours(24 * days)),
        bytes_max: some(mib).map(|mib| MIB * mib),
    }
}
