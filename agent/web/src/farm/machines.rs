//! The machines of a farm.

use std::collections::BTreeMap;

use askama::Template;
use farm_core::Revision;
use farm_core::view::MachineView;

use crate::frame::Frame;

/// The largest number of hosts with one revision that are named.
const NAMED_MAX: usize = 12;

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
    more: usize,
}

impl FarmMachines {
    /// Returns the hosts that may get builds of a machine, by revision, the newest first.
    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn groups<'a>(&self, machine: &'a MachineView) -> Vec<Group<'a>> {
        let mut groups: BTreeMap<Revision, Vec<&str>> = BTreeMap::new();
        let hosts = machine.hosts.iter();
        for (host, revision) in hosts.filter(|(host, _)| !machine.unlike.contains_key(*host)) {
            groups.entry(*revision).or_default().push(host);
        }
        let groups = groups.into_iter().rev();
        let groups = groups.map(|(revision, mut hosts)| {
            let more = hosts.len().saturating_sub(NAMED_MAX);
            hosts.truncate(NAMED_MAX);
            Group {
                revision,
                class: class(machine.revision, revision),
                hosts,
                more,
            }
        });
        groups.collect()
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
    use super::super::examples::frame;
    use super::*;

    fn machine(hosts: impl IntoIterator<Item = (String, Revision)>) -> MachineView {
        MachineView {
            name: "linux".parse().unwrap(),
            revision: Some(Revision(2)),
            content: None,
            hosts: hosts.into_iter().collect(),
            unlike: BTreeMap::new(),
        }
    }

    #[test]
    fn hosts_with_an_older_revision_are_marked() {
        let hosts = [("a".to_owned(), Revision(1)), ("b".to_owned(), Revision(2))];
        let page = FarmMachines {
            frame: frame("Machines"),
            machines: vec![machine(hosts), machine([])],
        };
        let html = page.render().unwrap();
        assert_eq!(html.matches("pill warn").count(), 1);
        assert_eq!(html.matches("pill good").count(), 1);
        assert!(html.contains("no host has it"));
    }

    #[test]
    fn a_host_with_other_content_is_named_with_the_reason() {
        let mut machine = machine([("b".to_owned(), Revision(2))]);
        machine.unlike = [("b".to_owned(), "has other content".to_owned())].into();
        let page = FarmMachines {
            frame: frame("Machines"),
            machines: vec![machine],
        };
        let html = page.render().unwrap();
        assert_eq!(html.matches("pill good").count(), 0);
        assert_eq!(html.matches("pill bad").count(), 1);
        assert!(html.contains("b</a> has other content"));
    }

    #[test]
    fn few_of_many_hosts_are_named() {
        let hosts = (10..40).map(|it| (format!("build{it}"), Revision(2)));
        let page = FarmMachines {
            frame: frame("Machines"),
            machines: vec![machine(hosts)],
        };
        let groups = page.groups(&page.machines[0]);
        assert_eq!((groups.len(), groups[0].hosts.len()), (1, NAMED_MAX));
        assert!(page.render().unwrap().contains("and 18 more"));
    }
}
