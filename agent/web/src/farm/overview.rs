//! The overview of a farm.

use askama::Template;
use farm_core::view::{BuildView, HostView, QueueView};
use jiff::Timestamp;

use super::{is_halted, mark, word};
use crate::frame::Frame;
use crate::marks::Mark;
use crate::words::{Ago, Prose, clock, count, rough};

/// The largest number of hosts on the overview.
const HOSTS_MAX: usize = 12;

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
    /// The hosts.
    pub hosts: Vec<HostView>,
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

    /// Returns the numbers of hosts by state.
    fn states(&self) -> String {
        let words = ["alive", "halted", "drained", "silent", "new", "revoked"];
        let counts = words.map(|it| {
            (
                self.hosts.iter().filter(|host| word(host) == it).count(),
                it,
            )
        });
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts.map(|(count, it)| format!("{count} {it}")).collect();
        counts.join(" · ")
    }

    /// Returns the first hosts: those that need attention before the others.
    fn shown_hosts(&self) -> Vec<&HostView> {
        let mut hosts: Vec<_> = self.hosts.iter().collect();
        hosts.sort_by_key(|it| match it.state() {
            "silent" => 0,
            _ if is_halted(it) => 1,
            "drained" => 2,
            "alive" => 3,
            _ => 4,
        });
        hosts.truncate(HOSTS_MAX);
        hosts
    }

    /// Returns the number of hosts that are not shown.
    fn more_hosts(&self) -> usize {
        self.hosts.len().saturating_sub(HOSTS_MAX)
    }

    /// Returns what a host does, or the reason for which it does nothing.
    fn load(&self, host: &HostView) -> String {
        let builds = count(usize::try_from(host.builds).unwrap_or(usize::MAX), "build");
        let (free, total) = (host.offer.free.cpus, host.offer.total.cpus);
        match (host.state(), host.seen, &host.offer.halt) {
            ("revoked", ..) => "its key was revoked".to_owned(),
            (_, None, _) => "has not polled yet".to_owned(),
            ("silent", Some(seen), _) => {
                let seconds = self.queue.at.duration_since(seen).as_secs();
                let silent = rough(u64::try_from(seconds).unwrap_or(0));
                format!("no sign of life for {silent}, {builds}")
            }
            (_, _, Some(halt)) => halt.clone(),
            _ => format!("{builds}, {free} of {total} processors free"),
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
            hosts: vec![host("build1")],
        };
        let html = page.render().unwrap();
        assert!(html.contains("no host can ever start it") && !html.contains("<b>none"));
        assert!(html.contains("of about 4 min") && html.contains("build1"));
        assert!(html.contains("href=\"/hosts\"") && html.contains("/farm/v1/openapi.json"));
    }
    #[test]
    fn hosts_that_need_attention_come_first() {
        let mut hosts: Vec<_> = (1..=20).map(|it| host(&format!("build{it:02}"))).collect();
        hosts[16].alive = false;
        hosts[17].offer.halt = Some("the disk is full".to_owned());
        hosts[18].drained = true;
        hosts[0].seen = None;
        let page = FarmOverview {
            frame: frame("Overview"),
            queue: queue(Vec::new()),
            running: Vec::new(),
            failing: Vec::new(),
            finished: Vec::new(),
            hosts,
        };
        let names: Vec<_> = page.shown_hosts().iter().map(|it| &it.name[..]).collect();
        assert_eq!(names[..4], ["build17", "build18", "build19", "build02"]);
        let states = "16 alive · 1 halted · 1 drained · 1 silent · 1 new";
        let html = page.render().unwrap();
        assert!(
            html.contains(states) && html.contains(">8 more</a>"),
            "{html}"
        );
        assert!(html.contains("no sign of life for 60 s") && html.contains("the disk is full"));
    }
}
