//! The settings of the host agent: a TOML file, checked as a whole.
//!
//! Every key has a default, given in [`Settings::parse`] and nowhere else;
//! [`EXAMPLE`] writes them all out with their meaning.

mod http;
mod reader;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use http::{Http, Tls};
use ipnet::IpNet;
use reader::Reader;

use crate::egress::Reach;

const MIB: u64 = 1024 * 1024;

/// A settings file with every key at its default, and what each one means.
pub const EXAMPLE: &str = include_str!("settings/example.toml");

/// The settings of an agent. Whoever holds one need not check it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of this host; the network namespaces of its guests begin with it.
    pub name: String,
    /// Where things lie.
    pub paths: Paths,
    /// Which old revisions of machines go.
    pub machines: Machines,
    /// How guests are run.
    pub guests: Guests,
    /// How machines are bootstrapped.
    pub bootstrap: Bootstrap,
    /// How builds are run.
    pub builds: Builds,
    /// How long ended builds are kept.
    pub records: Records,
    /// The PR service.
    pub pr: Pr,
    /// What is answered over HTTP.
    pub http: Http,
    /// What is logged.
    pub log: Log,
}

/// Where things lie. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The volumes with machine directories, in order of preference.
    pub volumes: Vec<PathBuf>,
    /// The directory with a directory for each toolchain.
    pub toolchains: PathBuf,
    /// What outlives a reboot: records, logs, artifacts.
    pub state: PathBuf,
    /// What does not: sockets, process numbers, the mark of the first start.
    pub run: PathBuf,
    /// The room that volumes and the state directory must have for a guest to start.
    pub reserve_bytes: u64,
}

/// Which old revisions of machines the agent deletes. Never the current one, a
/// pinned one, or one that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machines {
    /// How many of the newest revisions of each machine stay; `None` when all do.
    pub keep_revisions: Option<usize>,
    /// Younger ones stay, however many there are.
    pub keep_age: Duration,
    /// Nothing goes while a volume has so much room; `None` when that does not matter.
    pub enough_free_bytes: Option<u64>,
}

/// Which accelerator QEMU uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceleration {
    /// KVM where it really works, else TCG.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

/// How guests are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guests {
    /// The user that guests run as; it owns nothing but their snapshots.
    pub user: String,
    /// The accelerator.
    pub acceleration: Acceleration,
    /// How many guests run at once, at the most; as many as there is room for if `None`.
    pub parallel_max: Option<usize>,
    /// How many of them run on one machine whose manifest does not say it.
    pub per_machine_max: Option<usize>,
    /// How often processors may be given away: 100 is once.
    pub cpu_percent: u64,
    /// The memory of all guests together; that of the host less its reserve if `None`.
    pub memory_bytes: Option<u64>,
    /// The memory that is the host's own.
    pub memory_reserve_bytes: u64,
    /// What the snapshot of a machine grows by whose manifest does not say it.
    pub disk_growth_bytes: u64,
    /// Whether guests are kept frozen at their start, for builds to wake.
    pub frozen: bool,
    /// Whether machines may bring options for QEMU or systemd-nspawn.
    pub options: bool,
    /// From the waking of a frozen guest to its first packet.
    pub wake_limit: Duration,
    /// How far machines may ask to reach beyond the host.
    pub egress: Reach,
    /// The private networks that guests may reach then.
    pub egress_private: Vec<IpNet>,
}

/// How machines are bootstrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// From the start of the guest to its first packet.
    pub start_limit: Duration,
    /// Without any sign of the guest, from its first packet on.
    pub silence_limit: Duration,
    /// For the whole.
    pub total_limit: Duration,
    /// How often one that failed is tried again before it waits for a change.
    pub retries_max: u32,
}

/// How builds are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builds {
    /// The toolchain of a build that names none.
    pub toolchain: String,
    /// From the start of the guest to its first packet.
    pub start_limit: Duration,
    /// Without any sign of the guest, from its first packet on.
    pub silence_limit: Duration,
    /// For the whole.
    pub total_limit: Duration,
    /// How often a build is started again when the host failed it.
    pub retries_max: u32,
    /// How long it rests before that; twice as long each time.
    pub retry_rest: Duration,
    /// How long it rests at the most.
    pub retry_rest_max: Duration,
    /// After so long without a start, what waits counts as one priority higher; never
    /// if `None`.
    pub aging: Option<Duration>,
    /// So long smaller builds may pass one for which there is no room.
    pub patience: Duration,
    /// Whether the guests of builds that fail are held, wished or not.
    pub hold: bool,
    /// How long a guest waits for a person.
    pub hold_limit: Duration,
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

/// The PR service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pr {
    /// The database: a file, by default in the state directory, or `postgres://…`.
    pub database: String,
    /// `host:port` on which others may ask; guests always may, at their gateway.
    pub listen: Option<String>,
    /// The parent server in a hierarchy, `host:port`.
    pub upstream: Option<String>,
    /// The HTTP proxy on the way to other servers; without it the environment's.
    pub proxy: Option<String>,
    /// What it gives.
    pub mode: PrMode,
    /// The networks whose clients may be given values; everybody when empty.
    pub writers: Vec<IpNet>,
    /// A file with tokens, one a line, that allow writing over REST from anywhere.
    pub token_file: Option<PathBuf>,
    /// What the others are told that ask for something unknown; closed if `None`.
    pub unknown: Option<String>,
    /// Packages that are not ours to number; the first that matches counts.
    pub elsewhere: Vec<Elsewhere>,
}

/// What a PR service gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrMode {
    /// New values to those who may write.
    ReadWrite,
    /// No values: it tells those that there are, or would be.
    ReadOnly,
    /// No new values to anybody: whoever asks is a reader.
    Lockdown,
}

/// Packages whose revisions do not come from our own PR service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The package's name, with `*` for anything.
    pub pattern: String,
    /// The server that is asked, `host:port`; none at all if `None`.
    pub server: Option<String>,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level such as `info`, or directives as `tracing` knows them.
    pub filter: String,
    /// Whether lines are JSON objects.
    pub json: bool,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, with the key, and what would be right.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl Settings {
    /// Reads the text of a settings file.
    ///
    /// # Errors
    /// Every fault of the file, in the order of its lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::new(text);
        let settings = Self {
            name: name(&mut reader),
            paths: paths(&mut reader),
            machines: machines(&mut reader),
            guests: guests(&mut reader),
            bootstrap: bootstrap(&mut reader),
            builds: builds(&mut reader),
            records: records(&mut reader),
            pr: pr(&mut reader),
            http: http::http(&mut reader),
            log: log(&mut reader),
        };
        let faults = reader.finish();
        if faults.is_empty() {
            Ok(settings.complete())
        } else {
            Err(faults)
        }
    }

    /// Fills in what follows from other settings.
    fn complete(mut self) -> Self {
        if self.pr.database.is_empty() {
            let path = self.paths.state.join("prserv.sqlite3");
            self.pr.database = path.display().to_string();
        }
        self
    }
}

fn name(reader: &mut Reader<'_>) -> String {
    reader.text("host.name", "buildhost", |text| {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !text.is_empty() && text.len() <= 20 && text.chars().all(fine) {
            Ok(())
        } else {
            Err("1 to 20 lower-case letters and digits are expected")
        }
    })
}

fn paths(reader: &mut Reader<'_>) -> Paths {
    Paths {
        volumes: volumes(reader),
        toolchains: reader.path("paths.toolchains", "/build/tftp/toolchains"),
        state: reader.path("paths.state", "/var/lib/buildhost"),
        run: reader.path("paths.run", "/run/buildhost"),
        reserve_bytes: MIB * reader.number("paths.reserve_mib", 512, 0..=1 << 30),
    }
}

fn volumes(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let volumes = reader.paths("paths.volumes", &["/build/machines/default"]);
    if volumes.is_empty() {
        reader.fault("paths.volumes", "at least one volume is needed");
    }
    if volumes.iter().collect::<BTreeSet<_>>().len() < volumes.len() {
        reader.fault("paths.volumes", "a volume is named twice");
    }
    volumes
}

fn machines(reader: &mut Reader<'_>) -> Machines {
    let some = |number: u64| (number > 0).then_some(number);
    let keep = some(reader.number("machines.keep_revisions", 0, 0..=1_000_000));
    let days = reader.number("machines.keep_days", 0, 0..=36_500);
    let enough = some(reader.number("machines.enough_free_mib", 0, 0..=1 << 30));
    Machines {
        keep_revisions: keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
        keep_age: Duration::from_hours(24 * days),
        enough_free_bytes: enough.map(|mebibytes| MIB * mebibytes),
    }
}

fn guests(reader: &mut Reader<'_>) -> Guests {
    use Acceleration::{Auto, Kvm, Tcg};
    // Nothing is said by 0.
    let some = |number: u64| usize::try_from(number).ok().filter(|number| *number > 0);
    let accelerators = [("auto", Auto), ("kvm", Kvm), ("tcg", Tcg)];
    let reaches = [
        ("none", Reach::None),
        ("allow", Reach::Allow),
        ("nat", Reach::Nat),
    ];
    Guests {
        user: reader.text("guests.user", "buildhost-guest", |text| match text {
            "" | "root" => Err("an unprivileged user is expected"),
            _ => Ok(()),
        }),
        acceleration: reader.choice("guests.acceleration", &accelerators),
        parallel_max: some(reader.number("guests.parallel_max", 0, 0..=4096)),
        per_machine_max: some(reader.number("guests.per_machine_max", 0, 0..=4096)),
        cpu_percent: reader.number("guests.cpu_percent", 200, 1..=10_000),
        memory_bytes: some(reader.number("guests.memory_mib", 0, 0..=1 << 30))
            .map(|mebibytes| MIB * mebibytes as u64),
        memory_reserve_bytes: MIB * reader.number("guests.memory_reserve_mib", 512, 0..=1 << 30),
        disk_growth_bytes: MIB * reader.number("guests.disk_growth_mib", 256, 0..=1 << 30),
        frozen: reader.choice("guests.frozen", &[("auto", true), ("off", false)]),
        options: reader.choice("guests.options", &[("refuse", false), ("allow", true)]),
        wake_limit: reader.seconds("guests.wake_seconds_max", 15),
        egress: reader.choice("guests.egress", &reaches),
        egress_private: reader.list(
            "guests.egress_private",
            "networks such as `10.1.0.0/16`",
            |text| text.parse().ok(),
        ),
    }
}

fn bootstrap(reader: &mut Reader<'_>) -> Bootstrap {
    Bootstrap {
        start_limit: reader.seconds("bootstrap.start_seconds_max", 300),
        silence_limit: reader.seconds("bootstrap.silence_seconds_max", 900),
        total_limit: reader.seconds("bootstrap.total_seconds_max", 3600),
        retries_max: small(reader.number("bootstrap.retries_max", 2, 0..=100)),
    }
}

fn builds(reader: &mut Reader<'_>) -> Builds {
    let aging = reader.number("builds.aging_minutes", 10, 0..=1_000_000);
    Builds {
        toolchain: reader.text("builds.toolchain", "default", |text| {
            let parsed = text.parse::<crate::ToolchainName>();
            parsed
                .map(|_| ())
                .map_err(|_| "the name of a toolchain is expected")
        }),
        start_limit: reader.seconds("builds.start_seconds_max", 240),
        silence_limit: reader.seconds("builds.silence_seconds_max", 1800),
        total_limit: reader.seconds("builds.total_seconds_max", 5400),
        retries_max: small(reader.number("builds.retries_max", 2, 0..=100)),
        retry_rest: reader.seconds("builds.retry_seconds", 5),
        retry_rest_max: reader.seconds("builds.retry_seconds_max", 600),
        aging: (aging > 0).then(|| Duration::from_mins(aging)),
        patience: Duration::from_mins(reader.number("builds.patience_minutes", 10, 0..=1_000_000)),
        hold: reader.choice("builds.hold", &[("wished", false), ("always", true)]),
        hold_limit: reader.seconds("builds.hold_seconds_max", 14400),
        sources_bytes_max: MIB * reader.number("builds.sources_mib_max", 2048, 1..=1 << 30),
        artifacts_bytes_max: MIB * reader.number("builds.artifacts_mib_max", 2048, 1..=1 << 30),
        log_bytes_max: MIB * reader.number("builds.log_mib_max", 64, 1..=1 << 20),
    }
}

fn records(reader: &mut Reader<'_>) -> Records {
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

fn pr(reader: &mut Reader<'_>) -> Pr {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let modes = [
        ("read-write", PrMode::ReadWrite),
        ("read-only", PrMode::ReadOnly),
        ("lockdown", PrMode::Lockdown),
    ];
    Pr {
        database: reader.text("pr.database", "", |text| {
            let fine = text.is_empty() || text.starts_with('/') || text.starts_with("postgres");
            if fine {
                Ok(())
            } else {
                Err("an absolute path or `postgres://…` is expected")
            }
        }),
        listen: some(reader.text("pr.listen", "", address)),
        upstream: some(reader.text("pr.upstream", "", address)),
        proxy: some(reader.text("pr.proxy", "", |_| Ok(()))),
        mode: reader.choice("pr.mode", &modes),
        token_file: some(reader.text("pr.token_file", "", absolute)).map(PathBuf::from),
        writers: reader.list("pr.writers", "networks such as `10.1.0.0/16`", |text| {
            text.parse().ok()
        }),
        unknown: some(reader.text("pr.unknown", "", |_| Ok(()))),
        elsewhere: reader.list(
            "pr.elsewhere",
            "`PATTERN = HOST:PORT` or `PATTERN = none`",
            elsewhere,
        ),
    }
}

/// Checks a path; nothing at all is fine.
fn absolute(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.starts_with('/') {
        Ok(())
    } else {
        Err("an absolute path is expected")
    }
}

/// Checks `host:port`; nothing at all is fine.
fn address(text: &str) -> Result<(), &'static str> {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if text.is_empty() || matches!(port, Some(Ok(_))) {
        Ok(())
    } else {
        Err("`host:port` is expected")
    }
}

fn elsewhere(text: &str) -> Option<Elsewhere> {
    let (pattern, server) = text.split_once('=')?;
    let (pattern, server) = (pattern.trim(), server.trim());
    let known = server == "none" || (!server.is_empty() && address(server).is_ok());
    (known && !pattern.is_empty()).then(|| Elsewhere {
        pattern: pattern.to_owned(),
        server: (server != "none").then(|| server.to_owned()),
    })
}

fn log(reader: &mut Reader<'_>) -> Log {
    Log {
        filter: reader.text("log.filter", "info", |_| Ok(())),
        json: reader.choice("log.format", &[("text", false), ("json", true)]),
    }
}

/// A number that its range keeps small.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_and_the_example_mean_the_same() {
        assert_eq!(Settings::parse(EXAMPLE), Settings::parse(""));
        insta::assert_debug_snapshot!(Settings::parse("").unwrap());
    }

    #[test]
    fn the_example_shows_every_key() {
        for key in reader::known_keys() {
            let leaf = key.rsplit('.').next().unwrap();
            assert!(
                EXAMPLE
                    .lines()
                    .any(|line| line.starts_with(&format!("{leaf} = "))),
                "{key}"
            );
        }
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_line() {
        let text = "\
[host]
name = \"Build Host\"
colour = \"red\"

[paths]
volumes = []
state = \"relative/path\"
run = 7

[guests]
user = \"root\"
acceleration = \"fast\"
parallel_max = -1

[builds]
total_seconds_max = -1
toolchain = \"2\"

[pr]
listen = \"nowhere\"
writers = [\"10.0.0.0/8\", \"ten\"]
elsewhere = [\"linux-* = here\"]

[bilds]
x = 1
";
        let faults: Vec<_> = Settings::parse(text)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        insta::assert_snapshot!(faults.join("\n"));
    }

    #[test]
    fn faults_of_form_are_told_with_their_lines_too() {
        let faults = Settings::parse("[host]\nname = \n[paths\n").unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [2, 3], "{faults:?}");
    }

    #[test]
    fn the_database_follows_the_state_directory() {
        let settings = Settings::parse("paths.state = \"/srv\"\n").unwrap();
        assert_eq!(settings.pr.database, "/srv/prserv.sqlite3");
    }
}
