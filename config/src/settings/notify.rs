//! The settings of notifications.

use std::path::PathBuf;
use std::time::Duration;

use super::caches::{matches, patterns};
use super::controllers::is_url;
use super::reader::{Fault, Reader};
use crate::doctor::PROBLEMS;
use crate::names::NotifyName;
use crate::told::{FarmProblem, ProblemId, ToldBuild};

/// The ends of builds that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyOn {
    /// The first failure of a package on a machine, and the first success after it.
    Change,
    /// Each failure.
    Failure,
    /// Each end.
    Always,
    /// None.
    Never,
}

/// The recipient of notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A webhook.
    Webhook {
        /// Its address.
        url: String,
        /// The file with the key that signs requests.
        secret: Option<PathBuf>,
    },
    /// People, by mail.
    Mail {
        /// Their addresses.
        to: Vec<String>,
        /// The sender; that of the host if `None`.
        from: Option<String>,
    },
}

/// A rule for notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyRules {
    /// The name.
    pub name: NotifyName,
    /// The recipient.
    pub recipient: Recipient,
    /// The ends of builds that it is about.
    pub on: NotifyOn,
    /// The patterns of the machines.
    pub machines: Vec<String>,
    /// The patterns of the packages.
    pub packages: Vec<String>,
    /// The patterns of the submitters.
    pub submitters: Vec<String>,
    /// The patterns of the projects. A build without a project matches only `*`.
    pub projects: Vec<String>,
    /// The patterns of the problems of the host or farm that are told as well.
    pub problems: Vec<String>,
    /// The beginning of the address of a build's page.
    pub link: Option<String>,
    /// The limit for a request or for the mail program.
    pub request_max: Duration,
    /// The time after which a notification is given up.
    pub give_up: Duration,
}

impl NotifyRules {
    /// Returns true if the rule is about a build.
    pub fn concerns(&self, build: &impl ToldBuild) -> bool {
        let project = build.project().map_or("", |name| name.as_str());
        matches(&self.machines, build.machine().as_str())
            && matches(&self.packages, &build.package())
            && matches(&self.submitters, &build.submitter().to_string())
            && matches(&self.projects, project)
    }

    /// Returns true if the rule is about a problem.
    pub fn concerns_problem(&self, id: ProblemId) -> bool {
        matches(&self.problems, id.name())
    }
}

/// Reads the rules of a host.
pub(super) fn notify(reader: &mut Reader<'_>) -> Vec<NotifyRules> {
    let known = PROBLEMS.map(ProblemId::Host);
    reader.named_tables("notify.name", |reader, name| rule(reader, name, &known))
}

/// Reads the rules in the settings of a farm, and leaves the rest of the text alone.
///
/// # Errors
/// Every fault of the rules, in the order of its lines.
pub fn farm_notify(text: &str) -> Result<Vec<NotifyRules>, Vec<Fault>> {
    let mut reader = Reader::part(text, "notify");
    let known = FarmProblem::ALL.map(ProblemId::Farm);
    let rules = reader.named_tables("notify.name", |reader, name| rule(reader, name, &known));
    let faults = reader.finish();
    if faults.is_empty() {
        Ok(rules)
    } else {
        Err(faults)
    }
}

fn rule(
    reader: &mut Reader<'_>,
    name: Option<NotifyName>,
    known: &[ProblemId],
) -> Option<NotifyRules> {
    let recipient = recipient(reader);
    let on = reader.choice(
        "notify.on",
        &[
            ("change", NotifyOn::Change),
            ("failure", NotifyOn::Failure),
            ("always", NotifyOn::Always),
            ("never", NotifyOn::Never),
        ],
    );
    let problems = problems(reader, known);
    if on == NotifyOn::Never && problems.is_empty() {
        reader.fault(
            "notify.problems",
            "a rule that is about no builds (`on = \"never\"`) needs problems",
        );
    }
    let link = reader.optional_text("notify.link", |text| {
        is_url(text)
            .then_some(())
            .ok_or("an address such as `https://build1.example.org/builds/` is expected")
    });
    let hours = |reader: &mut Reader<'_>| reader.number("notify.give_up_hours", 72, 1..=1000);
    Some(NotifyRules {
        machines: patterns(reader, "notify.machines"),
        packages: patterns(reader, "notify.packages"),
        submitters: patterns(reader, "notify.submitters"),
        projects: patterns(reader, "notify.projects"),
        request_max: reader.seconds("notify.request_seconds_max", 30),
        give_up: Duration::from_hours(hours(reader)),
        problems,
        name: name?,
        recipient: recipient?,
        on,
        link,
    })
}

/// Reads the patterns of problems. Each must match one at least, so that a slip of the pen is found.
fn problems(reader: &mut Reader<'_>, known: &[ProblemId]) -> Vec<String> {
    let names: Vec<_> = known.iter().map(|id| format!("`{id}`")).collect();
    let expected = format!("patterns of {}", names.join(", "));
    let read = |text: &str| {
        let pattern = [text.to_owned()];
        let is_known = known.iter().any(|id| matches(&pattern, id.name()));
        is_known.then(|| text.to_owned())
    };
    let given = reader.optional_list("notify.problems", &expected, read);
    given.unwrap_or_default()
}

fn recipient(reader: &mut Reader<'_>) -> Option<Recipient> {
    let url = reader.optional_text("notify.webhook", |text| {
        is_url(text)
            .then_some(())
            .ok_or("an address such as `https://chat.example.org/hooks/builds` is expected")
    });
    let read = |text: &str| is_mail_address(text).then(|| text.to_owned());
    let to = reader.optional_list("notify.mail", "addresses such as `team@example.org`", read);
    let secret = reader.optional_path("notify.secret");
    let from = reader.optional_text("notify.mail_from", |text| {
        is_mail_address(text)
            .then_some(())
            .ok_or("an address such as `buildhost@example.org` is expected")
    });
    match (url, to) {
        (Some(url), None) => Some(Recipient::Webhook { url, secret }),
        (None, Some(to)) if !to.is_empty() => Some(Recipient::Mail { to, from }),
        (Some(_), Some(_)) => {
            reader.fault(
                "notify.mail",
                "a rule with a webhook sends no mail; add another rule",
            );
            None
        }
        (None, _) => {
            reader.fault(
                "notify.webhook",
                "the address of a webhook, or `mail`, is expected",
            );
            None
        }
    }
}

/// Returns true for an address that is one in every header: `NAME@HOST` or the name of a user.
fn is_mail_address(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "@.+-_=/".contains(c);
    (1..=254).contains(&text.len())
        && text.chars().all(is_allowed)
        && !text.starts_with(['-', '@', '/'])
        && !text.ends_with('@')
        && text.matches('@').count() <= 1
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::builds::Build;

    fn faults(text: &str) -> String {
        let faults = Settings::parse(text).unwrap_err();
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn a_rule_is_about_the_builds_that_match_all_its_patterns() {
        let text = "[[notify]]\nname = \"team\"\nmail = [\"a@example.org\"]\nmachines = [\"linux-*\"]\n\
                    packages = [\"hello*\"]\nprojects = [\"*\"]\n";
        let settings = Settings::parse(text).unwrap();
        let rules = &settings.notify[0];
        let build = |machine: &str, target: &str| {
            let request =
                format!(r#"{{"machine": "{machine}", "target": "{target}", "sources": []}}"#);
            Build::new(
                crate::BuildId(1),
                serde_json::from_str(&request).unwrap(),
                "default".parse().unwrap(),
                "0".repeat(64).parse().unwrap(),
                crate::builds::Submitter::root(),
                jiff::Timestamp::UNIX_EPOCH,
            )
        };
        assert!(rules.concerns(&build("linux-gcc", "hello-1.0")));
        assert!(!rules.concerns(&build("windows", "hello-1.0")));
        assert!(!rules.concerns(&build("linux-gcc", "bye-1.0")));
        assert_eq!(rules.on, NotifyOn::Change);
    }

    #[test]
    fn a_farm_has_rules_of_the_same_form_about_its_own_problems() {
        let rest = "database = \"postgres://farm@db/farm\"\n[sources]\nkeep_days = 3\n";
        let rule = "[[notify]]\nname = \"team\"\nwebhook = \"https://x/\"\nproblems = ";
        let rules = farm_notify(&format!("{rest}{rule}[\"host-*\"]\n")).unwrap();
        assert!(rules[0].concerns_problem(ProblemId::Farm(FarmProblem::HostSilent)));
        let faults =
            farm_notify(&format!("{rest}{rule}[\"low-space\"]\ncolour = 1\n")).unwrap_err();
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"));
        assert_eq!(farm_notify(rest), Ok(Vec::new()));
    }

    #[test]
    fn all_faults_of_rules_are_reported_with_their_lines() {
        let text = "\
[[notify]]
name = \"a\"

[[notify]]
name = \"../x\"
webhook = \"ftp://x\"
on = \"sometimes\"
problems = [\"low-*\", \"no-disk\"]

[[notify]]
name = \"b\"
webhook = \"https://x/\"
mail = [\"b@x\"]

[[notify]]
name = \"c\"
mail = [\"Bcc: x@y\"]

[[notify]]
name = \"d\"
mail = [\"d@x\"]
on = \"never\"
";
        insta::assert_snapshot!(faults(text));
        for bad in [
            "",
            "a b@c",
            "a@b\nBcc: c@d",
            "-oX",
            "a@b@c",
            "a@",
            "@a",
            "a,b@c",
            "|prog",
        ] {
            assert!(!is_mail_address(bad), "{bad}");
        }
        for good in ["root", "a.b+c@example.org"] {
            assert!(is_mail_address(good), "{good}");
        }
    }
}
