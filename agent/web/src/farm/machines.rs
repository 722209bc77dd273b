//! The machines of a farm.

use askama::Template;
use config::canary::TrialVerdict;
use farm_core::Revision;
use farm_core::view::{MachineView, RevisionView, TrialView};

use crate::frame::Frame;

/// The machines of a farm.
#[derive(Debug, Template)]
#[template(path = "farm_machines.html")]
pub struct FarmMachines {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The machines.
    pub machines: Vec<MachineView>,
}

/// The hosts that have one revision of a machine.
#[derive(Debug, PartialEq, Eq)]
struct Group<'a> {
    revision: Revision,
    class: &'static str,
    hosts: Vec<&'a str>,
    /// The number of further hosts.
    more: u64,
}

impl FarmMachines {
    /// Returns the hosts that may get builds of a machine, by revision, the newest first.
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn groups<'a>(&self, machine: &'a MachineView) -> Vec<Group<'a>> {
        let group = |it: &RevisionView| {
            let hosts = machine.hosts.iter();
            let hosts = hosts.filter(|(host, revision)| {
                **revision == it.revision && !machine.unlike.contains_key(*host)
            });
            let hosts: Vec<_> = hosts.map(|(host, _)| host.as_str()).collect();
            Group {
                revision: it.revision,
                class: class(machine.revision, it.revision),
                more: it.hosts.saturating_sub(hosts.len() as u64),
                hosts,
            }
        };
        machine.revisions.iter().map(group).collect()
    }

    /// Returns the class of the color of a trial.
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn trial_class(&self, trial: &TrialView) -> &'static str {
        match trial.verdict {
            Some(TrialVerdict::Promoted) => "good",
            Some(TrialVerdict::RolledBack) => "bad",
            None => "busy",
        }
    }

    /// Returns the number of hosts that get no builds of a machine and are not named.
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn more_unlike(&self, machine: &MachineView) -> u64 {
        let named = machine.unlike.len() as u64;
        machine.unlike_hosts.saturating_sub(named)
    }
}

/// Returns the class of the color of a host's revision, which may be older than the published one.
fn class(published: Option<Revision>, revision: Revision) -> &'static str {
    match published {
        Some(published) if revision < published => "warn",
        Some(_) => "good",
        None => "idle",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use farm_core::trials::TrialNumber;
    use jiff::Timestamp;

    use super::super::examples::frame;
    use super::*;

    /// Returns a machine whose second revision is published, on these hosts and further ones.
    fn machine(hosts: &[(&str, u64)], more: u64) -> MachineView {
        let hosts = hosts.iter();
        let hosts = hosts.map(|(host, revision)| ((*host).to_owned(), Revision(*revision)));
        let revisions = hosts.clone().map(|(_, revision)| RevisionView {
            revision,
            hosts: 1 + more,
        });
        MachineView {
            name: "linux".parse().unwrap(),
            revision: Some(Revision(2)),
            content: None,
            revisions: revisions.collect(),
            unlike_hosts: 0,
            trial: None,
            hosts: hosts.collect(),
            unlike: BTreeMap::new(),
        }
    }

    #[test]
    fn hosts_with_an_older_revision_are_marked() {
        let page = FarmMachines {
            frame: frame("Machines"),
            machines: vec![machine(&[("a", 1), ("b", 2)], 0), machine(&[], 0)],
        };
        let html = page.render().unwrap();
        assert_eq!(html.matches("pill warn").count(), 1);
        assert_eq!(html.matches("pill good").count(), 1);
        assert!(html.contains("no host has it"));
    }

    #[test]
    fn a_host_with_other_content_is_named_with_the_reason() {
        let mut machine = machine(&[], 0);
        machine.hosts = [("b".to_owned(), Revision(2))].into();
        machine.unlike = [("b".to_owned(), "has other content".to_owned())].into();
        machine.unlike_hosts = 38;
        let page = FarmMachines {
            frame: frame("Machines"),
            machines: vec![machine],
        };
        let html = page.render().unwrap();
        assert_eq!(html.matches("pill good").count(), 0);
        assert_eq!(html.matches("pill bad").count(), 1);
        assert!(html.contains("b</a> has other content"));
        assert!(html.contains("37 more hosts get no builds"));
    }

    #[test]
    fn a_trial_is_shown_with_its_verdict() {
        let mut machine = machine(&[], 0);
        let mut trial = TrialView {
            number: TrialNumber(1),
            revision: Revision(3),
            content: None,
            terms: "3 of 10".parse().unwrap(),
            since: Timestamp::UNIX_EPOCH,
            succeeded: 1,
            needed: 3,
            strikes: 0,
            running: 0,
            repeating: 0,
            ended: None,
            verdict: None,
            reason: None,
        };
        let mut page = |trial: &TrialView| {
            machine.trial = Some(trial.clone());
            let page = FarmMachines {
                frame: frame("Machines"),
                machines: vec![machine.clone()],
            };
            page.render().unwrap()
        };
        let open = page(&trial);
        assert!(open.contains("pill busy") && open.contains("1 of 3 builds have succeeded"));
        trial.verdict = Some(TrialVerdict::RolledBack);
        trial.reason = Some("it <b>failed".to_owned());
        let ended = page(&trial);
        assert!(
            ended.contains("pill bad") && ended.contains("was rolled back: it &#60;b&#62;failed")
        );
    }

    #[test]
    fn few_of_many_hosts_are_named() {
        let page = FarmMachines {
            frame: frame("Machines"),
            machines: vec![machine(&[("build10", 2)], 18)],
        };
        let html = page.render().unwrap();
        assert!(html.contains("build10") && html.contains("and 18 more"));
        assert!(html.contains("href=\"/hosts?machine=linux\""));
    }
}
