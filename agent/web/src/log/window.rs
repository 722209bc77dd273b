//! A window of a log: some lines with their numbers, times and colors.

use std::fmt::Write;

use askama::Template;

use super::ansi;
use super::index::{is_error, is_warning};
use super::search::Needle;
use crate::words::clock;

/// The largest number of bytes of a line that is shown.
const LINE_MAX: usize = 4096;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number, from 1 on.
    pub number: u64,
    class: &'static str,
    time: String,
    html: String,
}

/// The options of a window.
#[derive(Debug, Clone, Copy, Default)]
pub struct WindowOptions<'a> {
    /// The text whose occurrences are marked.
    pub find: Option<&'a Needle>,
    /// The line that is pointed out.
    pub here: Option<u64>,
    /// The offset of the first byte in the log.
    pub offset: u64,
    /// The offsets in the log with the times in milliseconds at which they arrived, in order.
    pub times: &'a [(u64, i64)],
}

/// Some lines of a log, one after the other.
#[derive(Debug, Clone, Default, Template)]
#[template(path = "log_lines.html")]
pub struct LogWindow {
    lines: Vec<LogLine>,
}

impl LogWindow {
    /// Returns the lines of a block, of which the first has the number `first`.
    pub fn new(block: &[u8], first: u64, options: &WindowOptions<'_>) -> Self {
        let mut offset = options.offset;
        let mut lines = Vec::new();
        for (line, number) in block.split_inclusive(|byte| *byte == b'\n').zip(first..) {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            lines.push(LogLine {
                number,
                class: class(text, options.here == Some(number)),
                time: arrival(options.times, offset),
                html: shown(text, options.find),
            });
            offset += line.len() as u64;
        }
        Self { lines }
    }

    /// Returns the number of the first line; 1 for an empty window.
    pub fn first(&self) -> u64 {
        self.lines.first().map_or(1, |line| line.number)
    }

    /// Returns the number of the last line; 0 for an empty window.
    pub fn last(&self) -> u64 {
        self.lines.last().map_or(0, |line| line.number)
    }
}

fn class(text: &[u8], is_here: bool) -> &'static str {
    match (is_error(text), is_warning(text), is_here) {
        (true, _, true) => "err here",
        (true, _, false) => "err",
        (false, true, true) => "wrn here",
        (false, true, false) => "wrn",
        (false, false, true) => "here",
        (false, false, false) => "",
    }
}

/// Returns a line as HTML. The end of a long line is left out.
fn shown(text: &[u8], find: Option<&Needle>) -> String {
    let cut = &text[..text.len().min(LINE_MAX)];
    let line = String::from_utf8_lossy(cut);
    let mark = |text: &str| find.map(|needle| needle.ranges(text)).unwrap_or_default();
    let mut html = ansi::html(&line, mark);
    if cut.len() < text.len() {
        let rest = text.len() - cut.len();
        // Writing to a string does not fail.
        let _ = write!(html, "<i> … {rest} more bytes</i>");
    }
    html
}

/// Returns the time from the beginning of the log to the arrival of an offset.
fn arrival(times: &[(u64, i64)], offset: u64) -> String {
    let known = times.partition_point(|(at, _)| *at <= offset);
    let (Some((_, began)), Some((_, at))) = (times.first(), times[..known].last()) else {
        return String::new();
    };
    clock(u64::try_from((at - began) / 1000).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_numbers_times_and_classes() {
        let times = [(0, 1000), (10, 63_000)];
        let needle = Needle::new("b").unwrap();
        let options = WindowOptions {
            find: Some(&needle),
            here: Some(8),
            offset: 4,
            times: &times,
        };
        let window = LogWindow::new(b"ab<c>\nx: error: y\nlast", 7, &options);
        assert_eq!((window.first(), window.last()), (7, 9));
        let lines = window.render().unwrap().replace("<li", "\n<li");
        insta::assert_snapshot!(lines, @r##"
        <li id="L7"><a href="#L7" data-n="7" aria-label="Line 7" tabindex="-1"></a><time>0:00</time><code>a<mark>b</mark>&lt;c&gt;</code></li>
        <li id="L8" class="err here"><a href="#L8" data-n="8" aria-label="Line 8" tabindex="-1"></a><time>1:02</time><code>x: error: y</code></li>
        <li id="L9"><a href="#L9" data-n="9" aria-label="Line 9" tabindex="-1"></a><time>1:02</time><code>last</code></li>
        "##);
        let long = vec![b'a'; 5000];
        let html = LogWindow::new(&long, 1, &WindowOptions::default())
            .render()
            .unwrap();
        assert!(html.contains("… 904 more bytes"), "{html}");
        assert_eq!(LogWindow::default().last(), 0);
    }
}
