//! The settings of package feeds.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::caches::{matches, patterns};
use super::reader::Reader;
use crate::builds::{Build, Submitter};
use crate::names::FeedName;

/// The greatest number of days of the retention: a century.
const DAYS_MAX: u64 = 36_525;

/// The rules of a package feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRules {
    /// The name.
    pub name: FeedName,
    /// The directory of its repositories.
    pub path: PathBuf,
    /// The files with the keys that sign its indexes; at least one.
    pub keys: Vec<PathBuf>,
    /// The submitters whose builds are published.
    pub publishers: Vec<Submitter>,
    /// The patterns of the machines.
    pub machines: Vec<String>,
    /// The patterns of the packages.
    pub packages: Vec<String>,
    /// The number of versions of a package that are kept.
    pub versions_max: NonZeroUsize,
    /// The age from which versions go, except the newest one.
    pub age_max: Option<Duration>,
    /// True if the agent serves it.
    pub serve: bool,
}

impl FeedRules {
    /// Returns true if the packages of a build are published: of a success for one of the publishers, which
    /// nothing but its request has influenced, as for reports of hash equivalence.
    pub fn takes(&self, build: &Build) -> bool {
        build.outcome.is_some_and(crate::task::Outcome::is_good)
            && matches(&self.machines, build.machine.as_str())
            && self.publishers.contains(&build.submitter)
            && !build.is_influenced()
    }

    /// Returns true if the feed has packages of this name.
    pub fn has_package(&self, name: &str) -> bool {
        matches(&self.packages, name)
    }

    /// Fills in the default that depends on the state directory.
    pub(super) fn complete(&mut self, state: &Path) {
        if self.path.as_os_str().is_empty() {
            self.path = state.join("feeds").join(self.name.as_str());
        }
    }
}

/// Reads the feeds. Those with a fault are left out: the settings are refused.
pub(super) fn feeds(reader: &mut Reader<'_>) -> Vec<FeedRules> {
    reader.named_tables("feeds.name", feed)
}

fn feed(reader: &mut Reader<'_>, name: Option<FeedName>) -> Option<FeedRules> {
    let path = reader.optional_path("feeds.path");
    let keys = reader.paths("feeds.keys", &[]);
    if keys.is_empty() {
        let fault = "the file with a key is expected, which docs/feeds.md says how to make";
        reader.fault("feeds.keys", fault);
    }
    let publishers = reader.list(
        "feeds.publishers",
        "submitters such as `alice` or `token:nightly`",
        |text| text.parse().ok(),
    );
    let machines = patterns(reader, "feeds.machines");
    let packages = patterns(reader, "feeds.packages");
    let versions_max = reader.count("feeds.keep_versions", 5, 1..=1000);
    let days = reader.number("feeds.keep_days", 0, 0..=DAYS_MAX);
    let serve = reader.flag("feeds.serve");
    Some(FeedRules {
        name: name?,
        path: path.unwrap_or_default(),
        keys,
        publishers,
        machines,
        packages,
        versions_max: NonZeroUsize::new(versions_max)?,
        age_max: (days > 0).then(|| Duration::from_hours(24 * days)),
        serve,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::builds::{State, Typist};
    use crate::task::Outcome;

    fn rules(more: &str) -> FeedRules {
        let text = format!("[[feeds]]\nname = \"main\"\nkeys = [\"/key\"]\n{more}");
        Settings::parse(&text).unwrap().feeds.remove(0)
    }

    fn build() -> Build {
        let request = r#"{"machine": "linux-gcc", "target": "hello", "sources": []}"#;
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut build = Build::new(
            crate::BuildId(1),
            serde_json::from_str(request).unwrap(),
            "default".parse().unwrap(),
            "0".repeat(64).parse().unwrap(),
            Submitter::root(),
            now,
        );
        build.enter(State::Starting, now).unwrap();
        build.enter(State::Finished, now).unwrap();
        build.outcome = Some(Outcome::Success);
        build
    }

    #[test]
    fn a_feed_takes_the_successes_of_its_publishers() {
        let root = rules("publishers = [\"root\"]\nmachines = [\"linux-*\"]\n");
        assert!(root.takes(&build()));
        assert!(!rules("").takes(&build()), "nobody publishes by default");
        assert!(!rules("publishers = [\"root\"]\nmachines = [\"x\"]\n").takes(&build()));
        let failed = Build {
            outcome: Some(Outcome::Error),
            ..build()
        };
        assert!(!root.takes(&failed));
        let now = jiff::Timestamp::UNIX_EPOCH;
        let typist = Typist {
            submitter: Submitter::root(),
            at: now,
        };
        let typed = Build {
            typists: vec![typist],
            ..build()
        };
        assert!(!root.takes(&typed));
    }

    #[test]
    fn a_feed_has_its_directory_in_the_state_directory_by_default() {
        assert_eq!(rules("").path, Path::new("/var/lib/buildhost/feeds/main"));
        assert_eq!(rules("path = \"/srv/feed\"\n").path, Path::new("/srv/feed"));
        let rules = rules("packages = [\"lib*\"]\nkeep_days = 2\nserve = true\n");
        assert!(rules.has_package("libx") && !rules.has_package("x") && rules.serve);
        assert_eq!(
            (rules.versions_max.get(), rules.age_max),
            (5, Some(Duration::from_hours(48)))
        );
    }

    #[test]
    fn all_faults_of_feeds_are_reported_with_their_lines() {
        let text = "\
[[feeds]]
name = \"../x\"
path = \"srv\"

[[feeds]]
name = \"main\"
keys = [\"key\"]
publishers = [\"a b\"]
keep_versions = 0
serve = 1
";
        let faults = Settings::parse(text).unwrap_err();
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
