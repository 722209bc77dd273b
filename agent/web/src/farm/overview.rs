//! The overview of a farm.

use std::collections::BTreeMap;

use askama::Template;
use farm_core::site::HostState;
use farm_core::view::{BuildView, HostView, QueueView};
use jiff::Timestamp;

use super::mark;
use crate::frame::Frame;
use crate::marks::Mark;
use crate::words::{Ago, Prose, clock, count, rough};

/// The overview of a farm.
#[derive(Debug, Template)]
#[template(path = "farm_overview.html")]
pub struct FarmOverview {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The queue.
    pub queue: QueueView,
    /// The builds that run.
    pub running: Vec<BuildView>,
    /// The last failed builds that no newer one has mended.
    pub failing: Vec<BuildView>,
    /// The builds that finished last.
    pub finished: Vec<BuildView>,
    /// The numbers of hosts by state.
    pub states: BTreeMap<HostState, u64>,
    /// The first hosts that need attention.
    pub attention: Vec<HostView>,
    /// The number of further ones.
    pub more: u64,
}

impl FarmOverview {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.queue.at)
    }

    /// Returns the time that a build has run, and the usual one.
    fn time(&self, build: &BuildView) -> String {
        let seconds = build.seconds(self.queue.at).unwrap_or(0);
        match build.usual_seconds {
            Some(usual) => format!("{} of about {}", clock(seconds), rough(usual)),
            None => clock(seconds),
        }
    }

    /// Returns the share of the usual time that has passed.
    fn percent(&self, build: &BuildView) -> Option<u64> {
        let usual = build.usual_seconds.filter(|it| *it > 0)?;
        let seconds = build.seconds(self.queue.at)?;
        Some((seconds * 100 / usual).min(99))
    }

    /// Returns the builds that wait and are not shown.
    fn more_waiting(&self) -> u64 {
        self.queue
            .queued
            .saturating_sub(self.queue.waiting.len() as u64)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn mark(&self, build: &BuildView) -> Mark {
        mark(build)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn took(&self, build: &BuildView) -> Option<String> {
        build.seconds(build.finished?).map(clock)
    }

    /// Returns the number of hosts.
    fn host_count(&self) -> u64 {
        self.states.values().sum()
    }

    /// Returns the reason for which a host needs attention.
    fn reason(&self, host: &HostView) -> String {
        match (host.state(), host.seen, &host.offer.halt) {
            (HostState::Silent, Some(seen), _) => {
                let builds = count(usize::try_from(host.builds).unwrap_or(usize::MAX), "build");
                let seconds = self.queue.at.duration_since(seen).as_secs();
                let silent = rough(u64::try_from(seconds).unwrap_or(0));
                format!("no sign of life for {silent}, {builds}")
            }
            (HostState::Halted, _, Some(halt)) => halt.clone(),
            _ => {
                let sentence = host.unlike.values().next();
                sentence.cloned().unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{build, frame, host, queue};
    use super::*;
    use farm_core::view::BuildState;

    #[test]
    fn waiting_builds_have_reasons_and_text_of_strangers_is_escaped() {
        let mut waiting = build(7, BuildState::Queued);
        waiting.why = Some("no host can ever start it, because <b>none</b> has it".to_owned());
        let mut running = build(6, BuildState::Running);
        running.usual_seconds = Some(240);
        let page = FarmOverview {
            frame: frame("Overview"),
            queue: queue(vec![waiting]),
            running: vec![running],
            failing: Vec::new(),
            finished: vec![build(5, BuildState::Finished)],
            states: [(HostState::Alive, 1)].into(),
            attention: Vec::new(),
            more: 0,
        };
        let html = page.render().unwrap();
        assert!(html.contains("no host can ever start it") && !html.contains("<b>none"));
        assert!(html.contains("of about 4 min") && html.contains("build1"));
        assert!(html.contains("href=\"/hosts\"") && html.contains("/farm/v1/openapi.json"));
        assert!(html.contains("No host needs attention."));
    }
    #[test]
    fn only_hosts_that_need_attention_are_named_with_the_reason() {
        let [mut silent, mut halted, mut unlike] = ["a", "b", "c"].map(host);
        silent.alive = false;
        halted.offer.halt = Some("the disk is full".to_owned());
        let sentence = "has revision 2 of linux with other content";
        unlike.unlike = [("linux".parse().unwrap(), sentence.to_owned())].into();
        let page = FarmOverview {
            frame: frame("Overview"),
            queue: queue(Vec::new()),
            running: Vec::new(),
            failing: Vec::new(),
            finished: Vec::new(),
            states: [(HostState::Alive, 4000), (HostState::Silent, 38)].into(),
            attention: vec![silent, halted, unlike],
            more: 37,
        };
        let html = page.render().unwrap();
        for expected in [
            "4038",
            "4000 alive",
            "href=\"/hosts?state=silent\">38 silent",
            "no sign of life for 60 s, 1 build",
            "the disk is full",
            sentence,
            "and 37 more",
        ] {
            assert!(html.contains(expected), "{expected}: {html}");
        }
    }
}
