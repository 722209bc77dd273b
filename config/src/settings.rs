//! The settings of the host agent: a TOML file, checked as a whole.
//!
//! Every key has a default, given in [`Settings::parse`] and nowhere else;
//! [`EXAMPLE`] writes them all out with their meaning.

mod builds;
mod guests;
mod http;
mod pr;
mod reader;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use builds::{Bootstrap, Builds, Records};
pub use guests::{Acceleration, Guests, Uefi};
pub use http::{Http, Tls};
pub use pr::{PackageRoute, Pr, PrMode};
use reader::Reader;

use crate::MIB;

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
    pub free_bytes_enough: Option<u64>,
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
            guests: guests::guests(&mut reader),
            bootstrap: builds::bootstrap(&mut reader),
            builds: builds::builds(&mut reader),
            records: builds::records(&mut reader),
            pr: pr::pr(&mut reader),
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
        free_bytes_enough: enough.map(|mebibytes| MIB * mebibytes),
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
