//! The hosts of a farm.

use askama::Template;
use farm_core::OfferedMachine;
use farm_core::view::HostView;
use jiff::Timestamp;

use crate::frame::Frame;
use crate::words::{Ago, Prose};

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

#[cfg(test)]
mod tests {
    use super::super::examples::{frame, host};
    use super::*;

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
    #[test]
    fn a_host_that_starts_nothing_says_why_and_absent_ones_offer_nothing() {
        let mut halted = host("build1");
        halted.offer.halt = Some("`df` says no".to_owned());
        let mut silent = host("build2");
        silent.alive = false;
        let list = FarmHosts {
            frame: frame("Hosts"),
            hosts: vec![halted, silent],
            now: Timestamp::UNIX_EPOCH,
        };
        let html = list.render().unwrap();
        assert!(html.contains("<code>df</code> says no") && html.contains("halted"));
        assert_eq!(html.matches("0 of 0").count(), 2);
    }
}
