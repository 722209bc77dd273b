//! The list of builds.

use askama::Template;
use config::builds::{Build, ListQuery, State};
use jiff::Timestamp;

use crate::filter::Filter;
use crate::frame::Frame;
use crate::marks::Mark;
use crate::words::{Ago, duration};

/// The outcomes of the filter.
const OUTCOMES: [&str; 7] = [
    "success",
    "warning",
    "error",
    "abnormal",
    "abort",
    "interrupt",
    "skip",
];

/// The list of builds.
#[derive(Debug, Template)]
#[template(path = "builds.html")]
pub struct Builds {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The filters.
    pub filter: Filter,
    /// The names of the machines, for the filter.
    pub machines: Vec<String>,
    /// The builds of the page.
    pub builds: Vec<Build>,
    /// The query of the next page.
    pub next: Option<ListQuery>,
    /// The present.
    pub now: Timestamp,
}

impl Builds {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    fn outcomes(&self) -> impl Iterator<Item = (&'static str, bool)> {
        OUTCOMES
            .iter()
            .map(|it| (*it, self.filter.value("outcome") == *it))
    }

    fn states(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let states = State::ALL.iter();
        states.map(|(_, it)| (*it, self.filter.value("state") == *it))
    }

    /// Returns the address of the next page.
    fn next_page(&self) -> Option<String> {
        let next = self.next.as_ref()?.from.as_ref()?.to_string();
        let separator = if self.filter.with("", "") == "/builds" {
            '?'
        } else {
            '&'
        };
        let from = serde_urlencoded::to_string([("from", next)]).ok()?;
        Some(format!("{}{separator}{from}", self.filter.with("", "")))
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn took(&self, build: &Build) -> String {
        build.seconds().map(duration).unwrap_or_default()
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn result(&self, build: &Build) -> String {
        result(build)
    }
}

/// Returns the packages that a build produced, or its message.
pub(crate) fn result(build: &Build) -> String {
    let packages = build.packages.iter().map(|built| {
        let package = &built.package;
        format!("{} {}-{}", package.name, package.version, built.revision)
    });
    let packages: Vec<_> = packages.collect();
    match (packages.is_empty(), build.state) {
        (false, _) => packages.join(", "),
        (true, State::Queued) if !build.message.is_empty() => format!("waits {}", build.message),
        (true, _) => build.message.clone(),
    }
}
