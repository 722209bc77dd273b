//! The settings of controllers.

use std::path::PathBuf;
use std::time::Duration;

use wildmatch::WildMatch;

use super::reader::Reader;
use crate::controllers::ControllerPriority;
use crate::names::{ControllerName, MachineName, ToolchainName};

/// The interactive builds that are taken from a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InteractiveMode {
    /// None.
    No,
    /// Only interactive ones.
    Yes,
    /// Both.
    Both,
}

/// The protocol of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControllerKind {
    /// brep, the controller of build2.
    Brep,
    /// GitLab.
    Gitlab(GitlabRules),
    /// A farm of this project.
    Farm(FarmRules),
}

/// The settings of a farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarmRules {
    /// The addresses of its coordinators. The next one is used when one fails.
    pub urls: Vec<String>,
    /// The file with the certificates that the coordinators are checked with, in PEM, beside those of
    /// the host.
    pub ca: Option<PathBuf>,
}

/// The protocols as they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Brep,
    Gitlab,
    Farm,
}

/// The settings of a GitLab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitlabRules {
    /// The file with the token of the runner.
    pub token: PathBuf,
    /// The machines of images: the first pattern that matches counts.
    pub images: Vec<ImageRule>,
}

/// The machine of the images with names of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRule {
    /// The pattern, with `*` and `?`. A job without an image has the empty name.
    pub pattern: String,
    /// The machine.
    pub machine: MachineName,
}

/// A controller, and the terms on which its tasks are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerRules {
    /// The name.
    pub name: ControllerName,
    /// The protocol.
    pub kind: ControllerKind,
    /// The address for task requests, with its query.
    pub url: String,
    /// The priority among controllers.
    pub priority: ControllerPriority,
    /// The toolchain of its builds; that of `builds.toolchain` if `None`.
    pub toolchain: Option<ToolchainName>,
    /// The version of the toolchain, as the controller knows it.
    pub toolchain_version: String,
    /// The patterns of the machines that are offered, in the order of preference.
    pub machines: Vec<String>,
    /// The file with the key that answers challenges.
    pub key: Option<PathBuf>,
    /// The interactive builds that are taken.
    pub interactive: InteractiveMode,
    /// The text that tells a person how to reach the console of an interactive build.
    pub interactive_login: Option<String>,
    /// The pause after an answer without a task.
    pub poll: Duration,
    /// The limit for a connection.
    pub connect_max: Duration,
    /// The limit for an answer.
    pub request_max: Duration,
    /// The time after which a task without a result is given up.
    pub lease_max: Duration,
    /// The memory that the auxiliary guests of a task may have together, in MiB; 0 to offer no
    /// auxiliary machines.
    pub auxiliary_memory_mib_max: u64,
}

impl ControllerRules {
    /// Returns the place of a machine in the order of preference; `None` if it is not offered.
    pub fn preference(&self, machine: &MachineName) -> Option<usize> {
        let mut patterns = self.machines.iter();
        patterns.position(|pattern| WildMatch::new(pattern).matches(machine.as_str()))
    }
}

/// Reads the controllers.
pub(super) fn controllers(reader: &mut Reader<'_>) -> Vec<ControllerRules> {
    reader.named_tables("controllers.name", controller)
}

fn controller(reader: &mut Reader<'_>, name: Option<ControllerName>) -> Option<ControllerRules> {
    let kinds = [
        ("brep", Protocol::Brep),
        ("gitlab", Protocol::Gitlab),
        ("farm", Protocol::Farm),
    ];
    let protocol = reader.choice("controllers.kind", &kinds);
    let (kind, url) = kind(reader, protocol);
    let version = match protocol {
        Protocol::Brep => version(reader),
        Protocol::Gitlab | Protocol::Farm => Some(String::new()),
    };
    let priority = priority(reader);
    let toolchain = reader.optional_text("controllers.toolchain", |text| {
        let is_name = text.parse::<ToolchainName>().is_ok();
        is_name
            .then_some(())
            .ok_or("the name of a toolchain is expected")
    });
    let read = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let expected = "patterns such as `linux-*`";
    let machines = match &kind {
        // Those of its images.
        Some(ControllerKind::Gitlab(rules)) => Some(rules.machines()),
        _ => reader.optional_list("controllers.machines", expected, read),
    };
    let key = reader.optional_path("controllers.key");
    let (interactive, interactive_login) = interactive(reader);
    let poll_usual = if protocol == Protocol::Brep { 60 } else { 5 };
    let poll = reader.seconds("controllers.poll_seconds", poll_usual);
    let connect_max = reader.seconds("controllers.connect_seconds_max", 60);
    let request_max = reader.seconds("controllers.request_seconds_max", 300);
    let lease = reader.number("controllers.lease_minutes_max", 180, 1..=100_000);
    let auxiliary = "controllers.auxiliary_memory_mib_max";
    let auxiliary_memory_mib_max = reader.number(auxiliary, 0, 0..=1 << 30);
    Some(ControllerRules {
        name: name?,
        kind: kind?,
        url: url?,
        priority: priority?,
        toolchain: toolchain.and_then(|name| name.parse().ok()),
        toolchain_version: version?,
        machines: machines.unwrap_or_else(|| vec!["*".to_owned()]),
        key,
        interactive,
        interactive_login,
        poll,
        connect_max,
        request_max,
        lease_max: Duration::from_mins(lease),
        auxiliary_memory_mib_max,
    })
}

/// Reads what depends on the protocol, and the address.
fn kind(reader: &mut Reader<'_>, protocol: Protocol) -> (Option<ControllerKind>, Option<String>) {
    if protocol == Protocol::Farm {
        let rules = farm(reader);
        let url = rules.as_ref().and_then(|it| it.urls.first().cloned());
        return (rules.map(ControllerKind::Farm), url);
    }
    let expected = "an address such as `https://ci.example.org/?build-task` is expected";
    let url = required(reader, "controllers.url", expected, |text| {
        is_url(text).then_some(()).ok_or(expected)
    });
    let kind = match protocol {
        Protocol::Gitlab => gitlab(reader).map(ControllerKind::Gitlab),
        Protocol::Brep | Protocol::Farm => Some(ControllerKind::Brep),
    };
    (kind, url)
}

fn farm(reader: &mut Reader<'_>) -> Option<FarmRules> {
    let expected = "addresses of coordinators such as `https://farm1.example.org`";
    let read = |text: &str| is_url(text).then(|| text.trim_end_matches('/').to_owned());
    let urls = reader.optional_list("controllers.urls", expected, read);
    if urls.as_ref().is_none_or(Vec::is_empty) {
        reader.fault(
            "controllers.urls",
            &format!("a list of {expected} is expected"),
        );
    }
    let ca = reader.optional_path("controllers.ca");
    Some(FarmRules { urls: urls?, ca })
}

impl GitlabRules {
    /// Returns the names of the machines.
    fn machines(&self) -> Vec<String> {
        let names = self.images.iter().map(|rule| rule.machine.to_string());
        names.collect()
    }
}

fn version(reader: &mut Reader<'_>) -> Option<String> {
    let expected = "the version of the toolchain is expected, such as `0.17.0`";
    required(reader, "controllers.toolchain_version", expected, |text| {
        is_version(text).then_some(()).ok_or(expected)
    })
}

fn gitlab(reader: &mut Reader<'_>) -> Option<GitlabRules> {
    let token = reader.optional_path("controllers.token");
    if token.is_none() {
        reader.fault(
            "controllers.token",
            "the file with the token of the runner is expected",
        );
    }
    let expected = "machines of images such as `debian:12*=linux-debian_12`";
    let images = reader.optional_list("controllers.images", expected, image_rule);
    if images.as_ref().is_none_or(Vec::is_empty) {
        reader.fault(
            "controllers.images",
            &format!("a list of {expected} is expected"),
        );
    }
    Some(GitlabRules {
        token: token?,
        images: images?,
    })
}

fn image_rule(text: &str) -> Option<ImageRule> {
    let (pattern, machine) = text.rsplit_once('=')?;
    Some(ImageRule {
        pattern: pattern.trim().to_owned(),
        machine: machine.trim().parse().ok()?,
    })
}

/// Reads a text without a default.
fn required(
    reader: &mut Reader<'_>,
    key: &'static str,
    expected: &str,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Option<String> {
    let text = reader.optional_text(key, check);
    if text.is_none() {
        reader.fault(key, expected);
    }
    text
}

fn priority(reader: &mut Reader<'_>) -> Option<ControllerPriority> {
    let number = reader.small_number("controllers.priority", 0, 0..=19_999);
    let priority = ControllerPriority::try_from(number);
    if let Err(error) = &priority {
        reader.fault("controllers.priority", &error.to_string());
    }
    priority.ok()
}

fn interactive(reader: &mut Reader<'_>) -> (InteractiveMode, Option<String>) {
    let modes = [
        ("no", InteractiveMode::No),
        ("yes", InteractiveMode::Yes),
        ("both", InteractiveMode::Both),
    ];
    let mode = reader.choice("controllers.interactive", &modes);
    let login = reader.optional_text("controllers.interactive_login", |text| {
        let is_line = !text.chars().any(char::is_control);
        is_line.then_some(()).ok_or("one line is expected")
    });
    if mode != InteractiveMode::No && login.is_none() {
        reader.fault(
            "controllers.interactive_login",
            "interactive builds need the text that tells people how to reach their console",
        );
    }
    (mode, login)
}

pub(super) fn is_url(text: &str) -> bool {
    let prefixes = ["https://", "http://"];
    let rest = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
    let is_clean = !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#');
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?'])) && is_clean
}

fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.~".contains(c))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    const ONE: &str = "[[controllers]]\nname = \"ci\"\nurl = \"https://ci.example.org/?build-task&repository=a\"\n\
                       toolchain_version = \"0.17.0\"\n";

    fn faults(text: &str) -> String {
        let faults = Settings::parse(text).unwrap_err();
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn a_controller_needs_a_name_an_address_and_the_version_of_its_toolchain() {
        let settings = Settings::parse(ONE).unwrap();
        let [rules] = settings.controllers.as_slice() else {
            panic!("one controller");
        };
        assert_eq!(rules.url, "https://ci.example.org/?build-task&repository=a");
        assert_eq!(rules.priority, ControllerPriority::default());
        assert_eq!(rules.lease_max, Duration::from_hours(3));
        assert_eq!(Settings::parse("").unwrap().controllers, []);
        insta::assert_snapshot!(faults("[[controllers]]\n"), @r"
        line 1: `controllers.name`: a name is expected
        line 1: `controllers.toolchain_version`: the version of the toolchain is expected, such as `0.17.0`
        line 1: `controllers.url`: an address such as `https://ci.example.org/?build-task` is expected
        ");
    }

    #[test]
    fn all_faults_of_controllers_are_reported_with_their_lines() {
        let text = format!(
            "{ONE}priority = 10999\nmachines = [\"\"]\ninteractive = \"yes\"\nkey = \"key.pem\"\n\
             lease_minutes_max = 0\ncolour = 1\n{ONE}"
        );
        insta::assert_snapshot!(faults(&text), @r"
        line 1: `controllers.interactive_login`: interactive builds need the text that tells people how to reach their console
        line 5: `controllers.priority`: `10999` is not the priority of a controller: up to four digits DCBA are expected, or five FDCBA, where F is 0 or 1 and D is not 0 if F is 1
        line 6: `controllers.machines`: a list of patterns such as `linux-*` is expected
        line 8: `controllers.key`: an absolute path is expected
        line 9: `controllers.lease_minutes_max`: a number from 1 to 100000 is expected
        line 10: `controllers.colour` is not a setting
        line 12: `controllers.name`: another table `[[controllers]]` has this name
        ");
        let twice = faults(&[ONE, ONE].concat());
        assert_eq!(
            twice,
            "line 6: `controllers.name`: another table `[[controllers]]` has this name"
        );
    }

    #[test]
    fn a_gitlab_needs_a_token_and_the_machines_of_images() {
        let gitlab = "[[controllers]]\nname = \"lab\"\nkind = \"gitlab\"\nurl = \"https://gitlab.example.org\"\n";
        let images = "images = [\"debian:12*=linux-debian_12\", \"=linux-gcc_14\"]\n";
        let text = format!("{gitlab}token = \"/etc/token\"\n{images}");
        let rules = Settings::parse(&text).unwrap().controllers.remove(0);
        assert_eq!(rules.machines, ["linux-debian_12", "linux-gcc_14"]);
        assert_eq!(rules.poll, Duration::from_secs(5));
        let ControllerKind::Gitlab(gitlab_rules) = rules.kind else {
            panic!("a GitLab");
        };
        let patterns = gitlab_rules.images.iter().map(|it| it.pattern.as_str());
        assert_eq!(patterns.collect::<Vec<_>>(), ["debian:12*", ""]);
        insta::assert_snapshot!(faults(gitlab), @r"
        line 1: `controllers.images`: a list of machines of images such as `debian:12*=linux-debian_12` is expected
        line 1: `controllers.token`: the file with the token of the runner is expected
        ");
        insta::assert_snapshot!(faults(&format!("{gitlab}token = \"token\"\nimages = [\"x\"]\ntoolchain_version = \"1\"\n")), @r"
        line 5: `controllers.token`: an absolute path is expected
        line 6: `controllers.images`: a list of machines of images such as `debian:12*=linux-debian_12` is expected
        line 6: `controllers.images`: a list of machines of images such as `debian:12*=linux-debian_12` is expected
        line 7: `controllers.toolchain_version` is not a setting
        ");
    }

    #[test]
    fn a_farm_needs_the_addresses_of_coordinators() {
        let farm = "[[controllers]]\nname = \"farm\"\nkind = \"farm\"\n";
        let text = format!(
            "{farm}urls = [\"https://a.example.org/\", \"http://b:1\"]\nca = \"/etc/ca.pem\"\n"
        );
        let rules = Settings::parse(&text).unwrap().controllers.remove(0);
        assert_eq!(rules.url, "https://a.example.org");
        let ControllerKind::Farm(farm_rules) = rules.kind else {
            panic!("a farm");
        };
        assert_eq!(farm_rules.urls, ["https://a.example.org", "http://b:1"]);
        assert_eq!(farm_rules.ca, Some("/etc/ca.pem".into()));
        insta::assert_snapshot!(faults(farm), @"line 1: `controllers.urls`: a list of addresses of coordinators such as `https://farm1.example.org` is expected");
        insta::assert_snapshot!(faults(&format!("{farm}urls = [\"x\"]\nurl = \"https://c\"\n")), @r"
        line 4: `controllers.urls`: a list of addresses of coordinators such as `https://farm1.example.org` is expected
        line 4: `controllers.urls`: a list of addresses of coordinators such as `https://farm1.example.org` is expected
        line 5: `controllers.url` is not a setting
        ");
    }

    #[test]
    fn machines_are_offered_in_the_order_of_the_patterns() {
        let text = format!("{ONE}machines = [\"linux-debian*\", \"linux-*\"]\n");
        let settings = Settings::parse(&text).unwrap();
        let rules = &settings.controllers[0];
        let place = |name: &str| rules.preference(&name.parse().unwrap());
        assert_eq!(place("linux-debian_12"), Some(0));
        assert_eq!(place("linux-gcc_14"), Some(1));
        assert_eq!(place("windows"), None);
    }

    #[test]
    fn an_address_is_absolute_and_clean() {
        for text in [
            "ftp://x/",
            "https://",
            "https:///x",
            "http://?x",
            "http://a b/",
            "http://a/#x",
        ] {
            assert!(!is_url(text), "{text}");
        }
        for text in ["http://[::1]:8080/?build-task", "https://ci.example.org"] {
            assert!(is_url(text), "{text}");
        }
    }
}
