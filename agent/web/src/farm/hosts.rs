//! The hosts and the machines of a farm.

use askama::Template;
use farm_core::view::{HostView, MachineView};
use farm_core::{OfferedMachine, Revision};
use jiff::Timestamp;

use super::class;
use crate::frame::Frame;
use crate::words::Ago;

/// The hosts of a farm.
#[derive(Debug, Template)]
#[template(path = "farm_hosts.html")]
pub struct FarmHosts {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The hosts.
    pub hosts: Vec<HostView>,
    /// The present.
    pub now: Timestamp,
}

impl FarmHosts {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn class(&self, host: &HostView) -> &'static str {
        class(host)
    }
}

/// One host of a farm.
#[derive(Debug, Template)]
#[template(path = "farm_host.html")]
pub struct FarmHost {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The host.
    pub host: HostView,
    /// The present.
    pub now: Timestamp,
}

impl FarmHost {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    fn class(&self) -> &'static str {
        class(&self.host)
    }

    /// Returns the countable resources with their free and total numbers.
    fn resources(&self) -> Vec<(String, u64, u64)> {
        let offer = &self.host.offer;
        let free = |name| offer.free.resources.get(name).copied().unwrap_or_default();
        let resources = offer.total.resources.iter();
        resources
            .map(|(name, total)| (name.to_string(), free(name), *total))
            .collect()
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn toolchains(&self, machine: &OfferedMachine) -> String {
        let names: Vec<_> = machine.toolchains.iter().map(ToString::to_string).collect();
        names.join(", ")
    }
}

/// The machines of a farm.
#[derive(Debug, Template)]
#[template(path = "farm_machines.html")]
pub struct FarmMachines {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The machines.
    pub machines: Vec<MachineView>,
}

impl FarmMachines {
    /// Returns the class of the color of a host's revision: bad if its content is not the published one.
    #[expect(
        clippy::unused_self,
        clippy::trivially_copy_pass_by_ref,
        reason = "templates call methods"
    )]
    fn class(&self, machine: &MachineView, host: &str, revision: &Revision) -> &'static str {
        match machine.revision {
            Some(_) if machine.unlike.contains_key(host) => "bad",
            Some(published) if *revision < published => "warn",
            Some(_) => "good",
            None => "idle",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{frame, host};
    use super::*;

    #[test]
    fn a_host_with_an_older_revision_is_marked() {
        let hosts = [("a".to_owned(), Revision(1)), ("b".to_owned(), Revision(2))];
        let machine = MachineView {
            name: "linux".parse().unwrap(),
            revision: Some(Revision(2)),
            content: None,
            hosts: hosts.into(),
            unlike: [("b".to_owned(), "has other content".to_owned())].into(),
        };
        let page = FarmMachines {
            frame: frame("Machines"),
            machines: vec![machine],
        };
        let html = page.render().unwrap();
        assert_eq!(html.matches("pill warn").count(), 1);
        assert_eq!(html.matches("pill bad").count(), 1);
        assert!(html.contains("b has other content"));
    }

    #[test]
    fn a_host_shows_its_offer_and_only_administrators_drain_it() {
        let mut page = FarmHost {
            frame: frame("build1"),
            host: host("build1"),
            now: Timestamp::UNIX_EPOCH,
        };
        let html = page.render().unwrap();
        assert!(html.contains("linux") && !html.contains("/drain"));
        page.host.windows = vec![farm_core::view::WindowView {
            id: farm_core::windows::WindowId(7),
            from: Timestamp::UNIX_EPOCH,
            until: Timestamp::MAX,
            weekly: None,
            reason: "a kernel".to_owned(),
            open: true,
        }];
        let html = page.render().unwrap();
        assert!(html.contains("maintenance") && html.contains("a kernel (open)"));
        page.frame.viewer.scope = Some(config::tokens::Scope::Admin);
        assert!(page.render().unwrap().contains("/hosts/build1/drain"));
        let list = FarmHosts {
            frame: frame("Hosts"),
            hosts: vec![host("build1")],
            now: Timestamp::UNIX_EPOCH,
        };
        assert!(list.render().unwrap().contains("href=\"/hosts/build1\""));
    }
}
