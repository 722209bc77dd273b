//! The settings of bootstraps and builds, and of the retention of their records.

use std::time::Duration;

use super::reader::Reader;
use crate::limits::Limits;

/// The settings of bootstraps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The time limits of a guest for which neither `guests.limits` nor the machine's
    /// manifest sets others.
    pub limits: Limits,
    /// The time in which a guest must shut down after its result, unless `guests.limits` or
    /// the machine's manifest sets another one.
    pub shutdown_limit: Duration,
    /// The number of retries of a failed bootstrap, until the machine or the toolchain
    /// changes.
    pub retries_max: u32,
}

/// The settings of builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builds {
    /// The toolchain of a build that names none.
    pub toolchain: String,
    /// The time limits of a guest for which neither `guests.limits` nor the machine's
    /// manifest sets others.
    pub limits: Limits,
    /// The number of retries after host failures.
    pub retries_max: u32,
    /// The delay of the first retry; doubled for each one after it.
    pub retry_delay: Duration,
    /// The longest delay of a retry.
    pub retry_delay_max: Duration,
    /// The time without a start after which a submitter's builds gain one level of
    /// priority; never if `None`.
    pub priority_aging: Option<Duration>,
    /// The time during which smaller builds may overtake one that does not fit.
    pub backfill_limit: Duration,
    /// Holds the guest of every failed build, requested or not.
    pub hold_always: bool,
    /// The longest time that a guest is held or waits at a breakpoint.
    pub hold_limit: Duration,
    /// The largest number of builds with a hold; unlimited if `None`.
    pub held_max: Option<usize>,
    /// The largest size of one source.
    pub sources_bytes_max: u64,
    /// The largest total size of a build's artifacts.
    pub artifacts_bytes_max: u64,
    /// The largest size of a log.
    pub log_bytes_max: u64,
}

/// The retention of finished builds. A limit that is `None` does not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// The largest number of finished builds.
    pub builds_max: Option<usize>,
    /// The longest time since the end of a build.
    pub age_max: Option<Duration>,
    /// The largest total size of finished builds and all sources.
    pub bytes_max: Option<u64>,
}

pub(super) fn bootstrap(reader: &mut Reader<'_>) -> Bootstrap {
    Bootstrap {
        limits: Limits {
            start: reader.seconds("bootstrap.start_seconds_max", 300),
            idle: reader.seconds("bootstrap.silence_seconds_max", 900),
            total: reader.seconds("bootstrap.total_seconds_max", 3600),
        },
        shutdown_limit: reader.seconds("bootstrap.shutdown_seconds_max", 120),
        retries_max: reader.small_number("bootstrap.retries_max", 2, 0..=100),
    }
}

pub(super) fn builds(reader: &mut Reader<'_>) -> Builds {
    Builds {
        toolchain: reader.text("builds.toolchain", "default", |text| {
            text.parse::<crate::ToolchainName>()
                .map(|_| ())
                .map_err(|_| "the name of a toolchain is expected")
        }),
        limits: Limits {
            start: reader.seconds("builds.start_seconds_max", 240),
            idle: reader.seconds("builds.silence_seconds_max", 1800),
            total: reader.seconds("builds.total_seconds_max", 5400),
        },
        retries_max: reader.small_number("builds.retries_max", 2, 0..=100),
        retry_delay: reader.seconds("builds.retry_seconds", 5),
        retry_delay_max: reader.seconds("builds.retry_seconds_max", 600),
        priority_aging: Some(reader.minutes("builds.aging_minutes", 10))
            .filter(|aging| !aging.is_zero()),
        backfill_limit: reader.minutes("builds.patience_minutes", 10),
        hold_always: reader.choice("builds.hold", &[("wished", false), ("always", true)]),
        hold_limit: reader.seconds("builds.hold_seconds_max", 14400),
        held_max: reader.optional_count("builds.held_max", 10, 1_000_000),
        sources_bytes_max: reader.mebibytes("builds.sources_mib_max", 2048, 1..=1 << 30),
        artifacts_bytes_max: reader.mebibytes("builds.artifacts_mib_max", 2048, 1..=1 << 30),
        log_bytes_max: reader.mebibytes("builds.log_mib_max", 64, 1..=1 << 20),
    }
}

pub(super) fn records(reader: &mut Reader<'_>) -> Records {
    let days = reader.number("records.days_max", 0, 0..=100_000);
    Records {
        builds_max: reader.optional_count("records.builds_max", 10_000, 100_000_000),
        age_max: (days > 0).then(|| Duration::from_hours(24 * days)),
        bytes_max: reader.optional_mebibytes("records.mib_max"),
    }
}
