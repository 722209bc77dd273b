//! The list of a farm's builds.

use askama::Template;
use config::BuildId;
use config::task::Outcome;
use farm_core::view::{BuildState, BuildView};
use jiff::Timestamp;

use super::mark;
use crate::filter::Filter;
use crate::frame::Frame;
use crate::marks::Mark;
use crate::words::{Ago, Prose, clock};

/// The outcomes of the filter.
const OUTCOMES: [Outcome; 7] = [
    Outcome::Success,
    Outcome::Warning,
    Outcome::Error,
    Outcome::Abnormal,
    Outcome::Abort,
    Outcome::Interrupt,
    Outcome::Skip,
];

/// The list of a farm's builds.
#[derive(Debug, Template)]
#[template(path = "farm_builds.html")]
pub struct FarmBuilds {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The filters.
    pub filter: Filter,
    /// The builds of the page.
    pub builds: Vec<BuildView>,
    /// The value of `before` for the next page.
    pub next: Option<BuildId>,
    /// The present.
    pub now: Timestamp,
}

impl FarmBuilds {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    fn outcomes(&self) -> impl Iterator<Item = (String, bool)> {
        let names = OUTCOMES.iter().map(ToString::to_string);
        names.map(|it| {
            let is_it = self.filter.value("outcome") == it;
            (it, is_it)
        })
    }

    fn states(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let states = BuildState::ALL.iter();
        states.map(|(_, it)| (*it, self.filter.value("state") == *it))
    }

    /// Returns the address of the next page.
    fn next_page(&self) -> Option<String> {
        let first = self.filter.with("", "");
        let separator = if first.contains('?') { '&' } else { '?' };
        Some(format!("{first}{separator}before={}", self.next?))
    }

    fn took(&self, build: &BuildView) -> String {
        build.seconds(self.now).map(clock).unwrap_or_default()
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn mark(&self, build: &BuildView) -> Mark {
        mark(build)
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{build, frame};
    use super::*;

    #[test]
    fn the_next_page_keeps_the_filters() {
        let page = FarmBuilds {
            frame: frame("Builds"),
            filter: Filter::parse("machine=linux&before=90"),
            builds: vec![build(7, BuildState::Finished)],
            next: Some(BuildId(7)),
            now: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(page.next_page().unwrap(), "/builds?machine=linux&before=7");
        let html = page.render().unwrap();
        assert!(html.contains("rel=\"next\"") && html.contains(">Newest<"));
        let query = page.filter.farm_query().unwrap();
        assert_eq!(query.before, Some(BuildId(90)));
        assert!(Filter::parse("colour=red").farm_query().is_err());
    }
}
