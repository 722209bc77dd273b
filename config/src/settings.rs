//! The settings of the host agent: a TOML file that is checked as a whole.
//!
//! Defaults are set by the functions that read the keys, and nowhere else; [`EXAMPLE`]
//! shows every key with its default and meaning.

mod builds;
mod caches;
mod controllers;
mod feeds;
mod guests;
mod hashserv;
mod http;
mod layers;
mod listing;
mod machines;
mod notify;
mod pr;
mod provenance;
mod reader;
mod reload;

use std::collections::BTreeSet;
use std::path::PathBuf;

pub use builds::{Bootstrap, Builds, Records};
pub use caches::CacheRules;
pub use controllers::{
    ControllerKind, ControllerRules, FarmRules, GitlabRules, ImageRule, InteractiveMode,
};
pub use feeds::FeedRules;
pub use guests::{Acceleration, Guests, Uefi, UidRange};
pub use hashserv::Hashserv;
pub use http::{Http, Tls, WebMode};
pub use layers::Layers;
pub use listing::SettingRow;
pub use machines::{Machines, Pull};
pub use notify::{NotifyOn, NotifyRules, Recipient, farm_notify};
pub use pr::{PackageRoute, Pr, PrMode};
pub use provenance::Provenance;
pub use reader::Fault;
use reader::Reader;
pub use reload::{CurrentSettings, Reloaded};

use crate::names::{MachineName, ToolchainName};

/// A settings file with every key at its default, and its description.
pub const EXAMPLE: &str = include_str!("settings/example.toml");

/// The default volume.
pub const VOLUME: &str = "/var/lib/buildhost/machines";
/// The default directory of the toolchains.
pub const TOOLCHAINS: &str = "/var/lib/buildhost/toolchains";

/// The settings of an agent, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of this host; the network namespaces of its guests begin with it.
    pub name: String,
    /// The directories.
    pub paths: Paths,
    /// Machines.
    pub machines: Machines,
    /// Guests.
    pub guests: Guests,
    /// Bootstraps.
    pub bootstrap: Bootstrap,
    /// Builds.
    pub builds: Builds,
    /// The retention of finished builds.
    pub records: Records,
    /// The caches between builds; the first one that serves a build counts.
    pub caches: Vec<CacheRules>,
    /// The controllers whose tasks are built.
    pub controllers: Vec<ControllerRules>,
    /// The package feeds.
    pub feeds: Vec<FeedRules>,
    /// The rules for notifications.
    pub notify: Vec<NotifyRules>,
    /// The provenance of builds.
    pub provenance: Provenance,
    /// The PR service.
    pub pr: Pr,
    /// The hash equivalence service.
    pub hashserv: Hashserv,
    /// The sources of layers.
    pub layers: Layers,
    /// The HTTP server.
    pub http: Http,
    /// The log.
    pub log: Log,
}

/// The directories. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The volumes with machine directories, in order of preference.
    pub volumes: Vec<PathBuf>,
    /// The directory that contains one directory for each toolchain.
    pub toolchains: PathBuf,
    /// The directory that outlives a reboot: records, logs, artifacts.
    pub state: PathBuf,
    /// The directory that does not: sockets, process IDs, the mark of the first start.
    pub run: PathBuf,
    /// The directory with the kernel's reports on pressure.
    pub pressure: PathBuf,
    /// The free space that volumes and the state directory need for a guest to start.
    pub reserve_bytes: u64,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level such as `info`, or directives of `tracing`.
    pub filter: String,
    /// Writes lines as JSON objects.
    pub json: bool,
}

impl Settings {
    /// Parses the text of a settings file.
    ///
    /// # Errors
    /// Every fault of the file, in the order of its lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::new(text);
        let settings = Self::read(&mut reader);
        let faults = reader.finish();
        if faults.is_empty() {
            Ok(settings.complete())
        } else {
            Err(faults)
        }
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            name: name(reader),
            paths: paths(reader),
            machines: machines::machines(reader),
            guests: guests::guests(reader),
            bootstrap: builds::bootstrap(reader),
            builds: builds::builds(reader),
            records: builds::records(reader),
            caches: caches::caches(reader),
            controllers: controllers::controllers(reader),
            feeds: feeds::feeds(reader),
            notify: notify::notify(reader),
            provenance: provenance::provenance(reader),
            pr: pr::pr(reader),
            hashserv: hashserv::hashserv(reader),
            layers: layers::layers(reader),
            http: http::http(reader),
            log: log(reader),
        }
    }

    /// Returns the cache of the builds of a machine with a toolchain.
    pub fn cache_of(
        &self,
        machine: &MachineName,
        toolchain: &ToolchainName,
    ) -> Option<&CacheRules> {
        let mut caches = self.caches.iter();
        caches.find(|cache| cache.serves(machine, toolchain))
    }

    /// Sets the defaults that depend on other settings.
    fn complete(mut self) -> Self {
        if self.pr.database.is_empty() {
            let path = self.paths.state.join("prserv.sqlite3");
            self.pr.database = path.display().to_string();
        }
        if self.hashserv.database.is_empty() {
            let path = self.paths.state.join("hashserv.sqlite3");
            self.hashserv.database = path.display().to_string();
        }
        for feed in &mut self.feeds {
            feed.complete(&self.paths.state);
        }
        self
    }
}

fn name(reader: &mut Reader<'_>) -> String {
    reader.text("host.name", "buildhost", |text| {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if (1..=20).contains(&text.len()) && text.chars().all(is_allowed) {
            Ok(())
        } else {
            Err("1 to 20 lower-case letters and digits are expected")
        }
    })
}

fn paths(reader: &mut Reader<'_>) -> Paths {
    Paths {
        volumes: volumes(reader),
        toolchains: reader.path("paths.toolchains", TOOLCHAINS),
        state: reader.path("paths.state", "/var/lib/buildhost"),
        run: reader.path("paths.run", "/run/buildhost"),
        pressure: reader.path("paths.pressure", "/proc/pressure"),
        reserve_bytes: reader.mebibytes("paths.reserve_mib", 512, 0..=1 << 30),
    }
}

fn volumes(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let volumes = reader.paths("paths.volumes", &[VOLUME]);
    if volumes.is_empty() {
        reader.fault("paths.volumes", "at least one volume is needed");
    }
    if volumes.iter().collect::<BTreeSet<_>>().len() < volumes.len() {
        reader.fault("paths.volumes", "a volume is named twice");
    }
    volumes
}

fn log(reader: &mut Reader<'_>) -> Log {
    Log {
        filter: reader.text("log.filter", "info", |_| Ok(())),
        json: reader.choice("log.format", &[("text", false), ("json", true)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_the_defaults() {
        assert_eq!(Settings::parse(EXAMPLE), Settings::parse(""));
        insta::assert_debug_snapshot!(Settings::parse("").unwrap());
    }

    /// Returns the lines of the example about a section, or about a table of an array.
    fn section(name: &str) -> impl Iterator<Item = &'static str> {
        let headings = [
            format!("[{name}]"),
            format!("[[{name}]]"),
            format!("# [[{name}]]"),
        ];
        let is_heading = |line: &str| line.starts_with('[') || line.starts_with("# [[");
        let lines = EXAMPLE
            .lines()
            .skip_while(move |line| !headings.iter().any(|it| it == line));
        lines.skip(1).take_while(move |line| !is_heading(line))
    }

    #[test]
    fn the_example_shows_every_key() {
        // A table of an array has no defaults, so that the example of one is a comment. The keys of a
        // controller depend on its kind.
        let kinds =
            ["brep", "gitlab", "farm"].map(|it| format!("[[controllers]]\nkind = \"{it}\"\n"));
        let text = format!("[[caches]]\n[[feeds]]\n[[notify]]\n{}", kinds.concat());
        let mut reader = Reader::new(&text);
        Settings::read(&mut reader);
        for key in reader.known() {
            let (section_name, leaf) = key.rsplit_once('.').unwrap();
            let shown = [format!("{leaf} = "), format!("# {leaf} = ")];
            let mut lines = section(section_name);
            assert!(
                lines.any(|line| shown.iter().any(|start| line.starts_with(start))),
                "{key}"
            );
        }
    }

    #[test]
    fn all_faults_are_reported_with_their_lines() {
        let text = "\
[host]
name = \"Build Host\"
colour = \"red\"

[paths]
volumes = []
state = \"relative/path\"
run = 7

[guests]
uids = \"0-65535\"
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
    fn syntax_errors_are_reported_with_their_lines() {
        let faults = Settings::parse("[host]\nname = \n[paths\n").unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [2, 3], "{faults:?}");
    }

    #[test]
    fn the_default_database_is_in_the_state_directory() {
        let settings = Settings::parse("paths.state = \"/srv\"\n").unwrap();
        assert_eq!(settings.pr.database, "/srv/prserv.sqlite3");
    }
}
