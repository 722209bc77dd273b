//! The hosts of a farm.

use std::collections::BTreeMap;

use askama::Template;
use farm_core::OfferedMachine;
use farm_core::site::HostState;
use farm_core::view::HostView;
use jiff::Timestamp;

use crate::filter::{COUNT, Filter};
use crate::frame::Frame;
use crate::words::{Ago, Prose};

/// A page of the hosts of a farm.
#[derive(Debug, Template)]
#[template(path = "farm_hosts.html")]
pub struct FarmHosts {
    frame: Frame,
    filter: Filter,
    hosts: Vec<HostView>,
    /// The name after which the next page begins.
    next: Option<String>,
    /// The numbers of all hosts by state.
    states: BTreeMap<HostState, u64>,
    now: Timestamp,
}

impl FarmHosts {
    /// Creates the page that filters select, from its hosts and one more if there is a next page.
    pub fn new(
        frame: Frame,
        filter: Filter,
        mut hosts: Vec<HostView>,
        states: BTreeMap<HostState, u64>,
        now: Timestamp,
    ) -> Self {
        let has_more = hosts.len() > COUNT as usize;
        hosts.truncate(COUNT as usize);
        let last = hosts.last().map(|it| it.name.clone());
        Self {
            next: last.filter(|_| has_more),
            frame,
            filter,
            hosts,
            states,
            now,
        }
    }

    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    /// Returns the number of all hosts.
    fn total(&self) -> u64 {
        self.states.values().sum()
    }

    /// Returns the states that hosts have, each with the number of its hosts, and the address of a list of
    /// them; that of all hosts for the state that is shown.
    fn chips(&self) -> Vec<(HostState, u64, String, bool)> {
        let chip = |(state, count): (&HostState, &u64)| {
            let is_shown = self.filter.value("state") == state.name();
            let value = if is_shown { "" } else { state.name() };
            (*state, *count, self.filter.with("state", value), is_shown)
        };
        self.states.iter().map(chip).collect()
    }

    /// Returns the states of the filter.
    fn options(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let states = HostState::ALL.iter();
        states.map(|(_, it)| (*it, self.filter.value("state") == *it))
    }

    /// Returns the address of the next page.
    fn next_page(&self) -> Option<String> {
        let next = serde_urlencoded::to_string([("after", self.next.as_ref()?)]);
        let first = self.filter.with("", "");
        let separator = if first.contains('?') { '&' } else { '?' };
        Some(format!("{first}{separator}{}", next.ok()?))
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
        let html = list("", vec![host("build1")]).render().unwrap();
        assert!(html.contains("href=\"/hosts/build1\""));
    }

    fn list(query: &str, hosts: Vec<HostView>) -> FarmHosts {
        let mut states = BTreeMap::new();
        for it in &hosts {
            *states.entry(it.state()).or_default() += 1;
        }
        let (frame, filter) = (frame("Hosts"), Filter::of_hosts(query));
        FarmHosts::new(frame, filter, hosts, states, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_page_of_hosts_has_its_filters_the_numbers_by_state_and_the_next_page() {
        let hosts = (100..151).map(|it| host(&format!("build {it}")));
        let mut hosts: Vec<_> = hosts.collect();
        hosts[3].alive = false;
        let page = list("machine=linux&after=build+099", hosts.clone());
        let html = page.render().unwrap();
        assert!(html.contains("build 149") && !html.contains("build 150"));
        assert_eq!(
            page.next_page().unwrap(),
            "/hosts?machine=linux&after=build+149"
        );
        assert!(
            html.contains("href=\"/hosts?machine=linux&#38;state=silent\""),
            "{html}"
        );
        assert!(html.contains("50 alive") && html.contains("1 silent"));
        let shown = list("state=silent", hosts[..1].to_vec());
        assert_eq!(shown.next_page(), None);
        let query = Filter::of_hosts("state=silent&name=b&after=a").host_query();
        let query = query.unwrap();
        assert_eq!(query.state, Some(HostState::Silent));
        assert_eq!((query.name.as_deref(), query.count), (Some("b"), Some(50)));
        assert!(Filter::of_hosts("outcome=error").host_query().is_err());
    }

    #[test]
    fn a_host_that_starts_nothing_says_why_and_absent_ones_offer_nothing() {
        let mut halted = host("build1");
        halted.offer.halt = Some("`df` says no".to_owned());
        let mut silent = host("build2");
        silent.alive = false;
        let html = list("", vec![halted, silent]).render().unwrap();
        assert!(html.contains("<code>df</code> says no") && html.contains("halted"));
        assert_eq!(html.matches("0 of 0").count(), 2);
    }
}
