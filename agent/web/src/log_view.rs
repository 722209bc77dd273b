//! The part of a page that shows a log, and the page that shows nothing else.

use askama::Template;
use config::BuildId;
use config::builds::Build;

use crate::frame::Frame;
use crate::log::LogWindow;
use crate::marks::Mark;
use crate::words::{grouped, size};

/// The number of lines of a window.
pub const WINDOW_LINES: u64 = 400;

/// A log as a page shows it: one window of its lines.
#[derive(Debug, Clone)]
pub struct LogView {
    /// The build.
    pub build: BuildId,
    /// The earlier attempt whose log it is.
    pub attempt: Option<u32>,
    /// The lines.
    pub window: LogWindow,
    /// The number of lines of the log.
    pub lines: u64,
    /// The number of bytes of the log.
    pub bytes: u64,
    /// The number of the first line with an error.
    pub first_error: Option<u64>,
    /// True while the log grows.
    pub is_live: bool,
    /// The search; empty without one.
    pub find: String,
}

impl LogView {
    /// Returns the address of a page with this log from parameters beside those of the log.
    fn address(&self, page: &str, more: &[(&str, &str)]) -> String {
        let attempt = self.attempt.map(|it| it.to_string());
        let attempt = attempt.as_deref().map(|it| ("attempt", it));
        let find = Some(("find", self.find.as_str())).filter(|(_, text)| !text.is_empty());
        let pairs: Vec<_> = attempt
            .into_iter()
            .chain(find)
            .chain(more.iter().copied())
            .collect();
        let path = format!("/builds/{}/{page}", self.build);
        match serde_urlencoded::to_string(pairs).unwrap_or_default() {
            none if none.is_empty() => path,
            query => format!("{path}?{query}"),
        }
    }

    /// Returns the address of the page with the log at a line.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "templates pass references"
    )]
    pub(crate) fn at(&self, line: &u64) -> String {
        let number = line.to_string();
        format!("{}#L{number}", self.address("log", &[("line", &number)]))
    }

    /// Returns the address of the page with the beginning of the log.
    pub(crate) fn begin(&self) -> String {
        self.at(&1)
    }

    /// Returns the address of further lines.
    pub(crate) fn source(&self) -> String {
        self.address("log/lines", &[])
    }

    /// Returns the address of the stream of new lines.
    pub(crate) fn stream(&self) -> String {
        self.address("log/stream", &[])
    }

    /// Returns the address of the log as a file.
    pub(crate) fn file(&self) -> String {
        self.address("log.txt", &[])
    }

    /// Returns the size of the log in words.
    pub(crate) fn extent(&self) -> String {
        format!("{} lines, {}", grouped(self.lines), size(self.bytes))
    }

    /// Returns the line before the window from which the page before begins, if there is one.
    pub(crate) fn before(&self) -> Option<u64> {
        let first = self.window.first();
        (first > 1).then(|| first.saturating_sub(WINDOW_LINES / 2).max(1))
    }

    /// Returns the line after the window, if there is one.
    pub(crate) fn after(&self) -> Option<u64> {
        let last = self.window.last();
        (last < self.lines).then(|| (last + WINDOW_LINES / 2).min(self.lines))
    }
}

/// The found lines of a search, and the one that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The number of lines.
    pub total: u64,
    /// The place of the shown line among them, from 1 on; 0 if none is shown.
    pub place: u64,
    /// The found line before it.
    pub before: Option<u64>,
    /// The found line after it.
    pub after: Option<u64>,
}

impl Found {
    /// Returns the place of a line among the found ones. `lines` has the first of `total` lines.
    pub fn new(total: u64, lines: &[u64], here: Option<u64>) -> Self {
        let here = here.unwrap_or(0);
        let passed = lines.partition_point(|line| *line <= here);
        let is_found = passed > 0 && lines[passed - 1] == here;
        let before = passed.checked_sub(1 + usize::from(is_found));
        Self {
            total,
            place: if is_found { passed as u64 } else { 0 },
            before: before.map(|at| lines[at]),
            after: lines.get(passed).copied(),
        }
    }
}

/// The page with the log of a build.
#[derive(Debug, Template)]
#[template(path = "log.html")]
pub struct LogPage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The build.
    pub build: Build,
    /// The log.
    pub log: LogView,
    /// The result of the search, if there is one.
    pub found: Option<Found>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_goes_from_one_found_line_to_the_next() {
        let found = |here| {
            let found = Found::new(9, &[3, 5, 8], here);
            (found.place, found.before, found.after)
        };
        assert_eq!(found(None), (0, None, Some(3)));
        assert_eq!(found(Some(3)), (1, None, Some(5)));
        assert_eq!(found(Some(6)), (0, Some(5), Some(8)));
        assert_eq!(found(Some(8)), (3, Some(5), None));
    }

    #[test]
    fn addresses_keep_the_attempt_and_the_search() {
        let view = LogView {
            build: BuildId(7),
            attempt: Some(2),
            window: LogWindow::new(b"a\nb\n", 301, &crate::WindowOptions::default()),
            lines: 1_300_000,
            bytes: 100 << 20,
            first_error: None,
            is_live: false,
            find: "a b".to_owned(),
        };
        assert_eq!(view.at(&4), "/builds/7/log?attempt=2&find=a+b&line=4#L4");
        assert_eq!(view.source(), "/builds/7/log/lines?attempt=2&find=a+b");
        assert_eq!((view.before(), view.after()), (Some(101), Some(502)));
    }
}
