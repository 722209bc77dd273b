//! The settings of the hash equivalence service.

use std::time::Duration;

use super::caches::{matches, patterns};
use super::pr::database;
use super::reader::{HOST_NAMES, Reader, host_name};
use crate::builds::Submitter;
use crate::names::{MachineName, ToolchainName};

/// The greatest number of days of the retention: a century.
const DAYS_MAX: u64 = 36_525;

/// The settings of the hash equivalence service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashserv {
    /// True if the agent has the service.
    pub enabled: bool,
    /// The database: a file, by default in the state directory, or `postgres://…`.
    pub database: String,
    /// Records nothing.
    pub read_only: bool,
    /// The server that is asked for unknown hashes.
    pub upstream: Option<String>,
    /// The HTTP proxy on the way to the upstream server; by default the environment's.
    pub proxy: Option<String>,
    /// The patterns of the machines whose builds reach it, with `*` for any text.
    pub machines: Vec<String>,
    /// The patterns of the toolchains of these builds.
    pub toolchains: Vec<String>,
    /// The submitters whose builds report their tasks.
    pub reporters: Vec<Submitter>,
    /// The age from which tasks are deleted that were not reported since.
    pub task_age_max: Option<Duration>,
    /// The age from which reports are deleted whose tasks have no unihash.
    pub unused_age_max: Option<Duration>,
    /// The network address to listen on, `host:port`. Clients without a login only read there.
    pub listen: Option<String>,
    /// The names under which HTTP clients may address the service, besides those of this host.
    pub allowed_hosts: Vec<String>,
    /// The largest number of simultaneous connections from the network.
    pub connections_max: usize,
    /// The largest number of simultaneous connections of one address or IPv6 /64 network.
    pub connections_per_peer_max: usize,
}

impl Hashserv {
    /// Returns true if the builds of a machine with a toolchain reach the service.
    pub fn serves(&self, machine: &MachineName, toolchain: &ToolchainName) -> bool {
        self.enabled
            && matches(&self.machines, machine.as_str())
            && matches(&self.toolchains, toolchain.as_str())
    }
}

pub(super) fn hashserv(reader: &mut Reader<'_>) -> Hashserv {
    Hashserv {
        enabled: reader.flag("hashserv.enabled"),
        database: reader.text("hashserv.database", "", database),
        read_only: reader.flag("hashserv.read_only"),
        upstream: reader.optional_text("hashserv.upstream", |_| Ok(())),
        proxy: reader.optional_text("hashserv.proxy", |_| Ok(())),
        machines: patterns(reader, "hashserv.machines"),
        toolchains: patterns(reader, "hashserv.toolchains"),
        reporters: reader.list(
            "hashserv.reporters",
            "submitters such as `alice` or `token:nightly`",
            |text| text.parse().ok(),
        ),
        task_age_max: days(reader, "hashserv.keep_days"),
        unused_age_max: days(reader, "hashserv.keep_unused_days"),
        listen: reader.optional_address("hashserv.listen"),
        allowed_hosts: reader.list("hashserv.allowed_hosts", HOST_NAMES, host_name),
        connections_max: reader.count("hashserv.connections_max", 4096, 1..=65536),
        connections_per_peer_max: reader.count("hashserv.connections_per_peer_max", 512, 1..=65536),
    }
}

/// Reads a number of days; 0 means `None`.
fn days(reader: &mut Reader<'_>, key: &'static str) -> Option<Duration> {
    let days = reader.number(key, 0, 0..=DAYS_MAX);
    (days > 0).then(|| Duration::from_hours(24 * days))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Settings;

    #[test]
    fn the_service_is_disabled_by_default_and_has_a_database_in_the_state_directory() {
        let settings = Settings::parse("paths.state = \"/srv\"\n").unwrap();
        assert!(!settings.hashserv.enabled);
        assert_eq!(settings.hashserv.database, "/srv/hashserv.sqlite3");
        let (machine, toolchain) = ("linux".parse().unwrap(), "bitbake".parse().unwrap());
        assert!(!settings.hashserv.serves(&machine, &toolchain));
    }

    #[test]
    fn patterns_select_the_builds_that_reach_the_service() {
        let text = "[hashserv]\nenabled = true\nmachines = [\"yocto-*\"]\ntoolchains = [\"bitbake\"]\n\
                    reporters = [\"root\", \"token:nightly\"]\nkeep_days = 2\n";
        let hashserv = Settings::parse(text).unwrap().hashserv;
        let serves = |machine: &str, toolchain: &str| {
            hashserv.serves(&machine.parse().unwrap(), &toolchain.parse().unwrap())
        };
        assert!(serves("yocto-5", "bitbake"));
        assert!(!serves("linux", "bitbake"));
        assert!(!serves("yocto-5", "default"));
        assert_eq!(hashserv.reporters.len(), 2);
        assert_eq!(hashserv.task_age_max, Some(Duration::from_hours(48)));
        assert_eq!(hashserv.unused_age_max, None);
    }

    #[test]
    fn all_faults_of_the_service_are_reported_with_their_lines() {
        let text = "[hashserv]\nenabled = \"yes\"\ndatabase = \"relative\"\nreporters = [\"a b\"]\n\
                    keep_days = -1\nlisten = \"nowhere\"\n";
        let faults = Settings::parse(text).unwrap_err();
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
