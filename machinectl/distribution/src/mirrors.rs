//! The sources of Debian's packages: given mirrors, or those of the host.

use std::time::Duration;

use sys::command;

use crate::request::Suite;

/// The format of apt's list of its sources. Fields that apt does not know stay as they are.
const FORMAT: &str = "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(ORIGIN)";
/// The time limit for a question to apt.
const LIMIT: Duration = Duration::from_mins(1);
/// The suites without updates of their own.
const ROLLING: [&str; 4] = ["sid", "unstable", "testing", "experimental"];
/// The options of apt that are needed to reach the host's mirrors.
const OPTIONS: [&str; 6] = [
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::ForceIPv4",
    "Acquire::Retries",
];

/// The answers of the host's apt about its sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AptSources {
    /// Its sources, in [`FORMAT`].
    targets: String,
    /// Its options, as `apt-config dump` prints them.
    options: String,
}

/// Asks the host's apt for its sources. They are empty where there is no apt.
pub fn host_sources() -> AptSources {
    let ask = |program: &str, arguments: &[&str]| {
        let mut command = command::prepare(program);
        command.args(arguments);
        let answer = command::run(command, LIMIT).unwrap_or_default();
        String::from_utf8_lossy(&answer).into_owned()
    };
    AptSources {
        targets: ask("apt-get", &["indextargets", "--format", FORMAT]),
        options: ask("apt-config", &["dump"]),
    }
}

/// Returns the lines of a `sources.list`. They are empty if the host is no Debian; then mmdebstrap
/// knows a mirror.
pub(crate) fn lines(suite: &Suite, mirrors: &[String], host: &AptSources) -> Vec<String> {
    if !mirrors.is_empty() {
        let line = |mirror: &String| {
            if mirror.starts_with("deb ") {
                mirror.clone()
            } else {
                format!("deb {mirror} {suite} main")
            }
        };
        return mirrors.iter().map(line).collect();
    }
    let sources: Vec<(&str, &str)> = host.targets.lines().filter_map(debian_source).collect();
    let find = |is_it: fn(&str) -> bool| sources.iter().find(|source| is_it(source.1));
    let Some((main, _)) = find(|release| !release.contains(['-', '/'])) else {
        return Vec::new();
    };
    let mut lines = vec![format!("deb {main} {suite} main")];
    if ROLLING.contains(&suite.to_string().as_str()) {
        return lines;
    }
    for ending in ["-updates", "-security"] {
        let source = sources.iter().find(|source| source.1.ends_with(ending));
        lines.extend(source.map(|(uri, _)| format!("deb {uri} {suite}{ending} main")));
    }
    lines
}

/// Returns the address and the release of a line in [`FORMAT`], if it is a source of Debian.
fn debian_source(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split(' ');
    let (kind, uri) = (fields.next()?, fields.next()?);
    let (release, origin) = (fields.next()?, fields.next()?);
    // The origin is unknown before the first `apt-get update`.
    let is_unknown = origin.starts_with('$') && uri.contains("debian");
    (kind == "Packages" && (origin == "Debian" || is_unknown)).then_some((uri, release))
}

/// Returns the host's options of apt that are needed to reach its mirrors. A given mirror gets the
/// same ones, because it is reached by the same network.
pub(crate) fn options(host: &AptSources) -> Vec<String> {
    let is_needed = |line: &&str| {
        let (name, value) = line.split_once(' ').unwrap_or_default();
        OPTIONS.contains(&name) && value != "\"\";"
    };
    let lines = host.options.lines().filter(is_needed);
    lines
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "\
        Packages https://node.example.org/node/ nodistro Node\n\
        Packages http://deb.debian.org/debian/ bookworm Debian\n\
        DEP-11 http://deb.debian.org/debian/ bookworm Debian\n\
        Packages http://deb.debian.org/debian/ bookworm-updates Debian\n\
        Packages http://deb.debian.org/debian-security/ bookworm-security Debian\n";

    fn sources(suite: &str, mirrors: &[&str], targets: &str) -> Vec<String> {
        let host = AptSources {
            targets: targets.to_owned(),
            options: String::new(),
        };
        let mirrors: Vec<_> = mirrors.iter().map(|it| (*it).to_owned()).collect();
        lines(&suite.parse().unwrap(), &mirrors, &host)
    }

    #[test]
    fn the_mirrors_of_the_host_serve_other_releases_too() {
        assert_eq!(
            sources("trixie", &[], HOST),
            [
                "deb http://deb.debian.org/debian/ trixie main",
                "deb http://deb.debian.org/debian/ trixie-updates main",
                "deb http://deb.debian.org/debian-security/ trixie-security main",
            ]
        );
        let rolling = sources("sid", &[], HOST);
        assert_eq!(rolling, ["deb http://deb.debian.org/debian/ sid main"]);
    }

    #[test]
    fn a_given_mirror_replaces_those_of_the_host() {
        let mirrors = [
            "http://mirror.example.org/debian",
            "deb [trusted=yes] http://x.example.org ./",
        ];
        assert_eq!(
            sources("bookworm", &mirrors, HOST),
            [
                "deb http://mirror.example.org/debian bookworm main",
                "deb [trusted=yes] http://x.example.org ./",
            ]
        );
    }

    #[test]
    fn a_host_that_is_no_debian_has_no_sources_of_it() {
        let ubuntu = "Packages http://archive.example.org/ubuntu/ noble Ubuntu\n";
        assert_eq!(sources("bookworm", &[], ubuntu), [""; 0]);
        assert_eq!(sources("bookworm", &[], ""), [""; 0]);
        let new = "Packages http://deb.debian.org/debian/ bookworm $(ORIGIN)\n";
        assert_eq!(sources("bookworm", &[], new).len(), 1);
    }

    #[test]
    fn options_that_reach_the_mirror_are_kept() {
        let host = AptSources {
            targets: String::new(),
            options: "APT \"\";\nAcquire::Check-Valid-Until \"false\";\n\
                Acquire::http::Proxy \"http://proxy.example.org:3142\";\n\
                Acquire::Retries \"\";\nAcquire::Languages \"none\";\n"
                .to_owned(),
        };
        assert_eq!(
            options(&host),
            [
                "Acquire::Check-Valid-Until \"false\"",
                "Acquire::http::Proxy \"http://proxy.example.org:3142\"",
            ]
        );
    }
}
