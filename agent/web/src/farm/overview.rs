//! The overview of a farm.

use askama::Template;
use farm_core::view::{BuildView, HostView, QueueView};
use jiff::Timestamp;

use super::{class, mark};
use crate::frame::Frame;
use crate::marks::Mark;
use crate::words::{Ago, clock, count, rough};

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
    fn class(&self, host: &HostView) -> &'static str {
        class(host)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn load(&self, host: &HostView) -> String {
        let builds = count(usize::try_from(host.builds).unwrap_or(usize::MAX), "build");
        let (free, total) = (host.offer.free.cpus, host.offer.total.cpus);
        format!("{builds}, {free} of {total} processors free")
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
        assert!(html.contains("href=\"/hosts\"") && !html.contains("openapi"));
    }
}
