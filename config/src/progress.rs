//! The progress of a build, parsed from its log: from lines of Buildhost's own format,
//! which a shell script can print, and from BitBake's.
//!
//! A line that starts with [`MARK`] has some of `clone DONE:TOTAL`, `parse DONE:TOTAL`,
//! `task DONE:TOTAL`, `errors COUNT` and `warnings COUNT`; the others keep their values.
//! For example: `echo buildhost-progress: task 3:10`.

use crate::builds::{Count, Progress};

/// The prefix of a progress line.
pub const MARK: &str = "buildhost-progress:";
/// The number of bytes of a line that are parsed.
const LINE_MAX: usize = 4096;

/// A parser that reads a log in pieces.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    progress: Progress,
}

impl Parser {
    /// Parses the next piece of the log.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // BitBake redraws its progress bars with carriage returns.
            if byte == b'\n' || byte == b'\r' {
                let line = String::from_utf8_lossy(&self.line);
                read(&mut self.progress, &line);
                self.line.clear();
            } else if self.line.len() < LINE_MAX {
                self.line.push(byte);
            }
        }
    }

    /// Returns the progress so far.
    pub fn progress(&self) -> Progress {
        self.progress
    }
}

fn read(progress: &mut Progress, line: &str) {
    if let Some(values) = line.strip_prefix(MARK) {
        return read_values(progress, values);
    }
    if line.starts_with("ERROR: ") || line.starts_with("CRITICAL: ") {
        progress.errors = progress.errors.saturating_add(1);
    } else if line.starts_with("WARNING: ") {
        progress.warnings = progress.warnings.saturating_add(1);
    } else if let Some(count) = running_task(line) {
        progress.task = count;
    } else if let Some(total) = number_after(line, "Parsing of ") {
        progress.parse = Count { done: total, total };
    } else if let Some(total) = number_after(line, "NOTE: Tasks Summary: Attempted ") {
        progress.task = Count { done: total, total };
    }
}

fn read_values(progress: &mut Progress, values: &str) {
    let mut words = values.split_whitespace();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let number = value.parse();
        match (name, count(value), number) {
            ("clone", Some(count), _) => progress.clone = count,
            ("parse", Some(count), _) => progress.parse = count,
            ("task", Some(count), _) => progress.task = count,
            ("errors", _, Ok(number)) => progress.errors = number,
            ("warnings", _, Ok(number)) => progress.warnings = number,
            _ => {}
        }
    }
}

fn count(text: &str) -> Option<Count> {
    let (done, total) = text.split_once(':')?;
    let (done, total): (u32, u32) = (done.parse().ok()?, total.parse().ok()?);
    let done = done.min(total);
    Some(Count { done, total })
}

/// Parses `NOTE: Running task 3 of 345 (…)` and `NOTE: Running noexec task …`. A task
/// counts when it starts, as in Toaster.
fn running_task(line: &str) -> Option<Count> {
    let rest = line.strip_prefix("NOTE: Running ")?;
    let rest = rest.strip_prefix("noexec ").unwrap_or(rest);
    let mut words = rest.strip_prefix("task ")?.split_whitespace();
    let (done, of, total) = (words.next()?, words.next()?, words.next()?);
    (of == "of").then(|| count(&format!("{done}:{total}")))?
}

fn number_after(line: &str, prefix: &str) -> Option<u32> {
    line.strip_prefix(prefix)?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(text: &str) -> String {
        let mut parser = Parser::default();
        parser.feed(text.as_bytes());
        let it = parser.progress();
        let count = |count: Count| format!("{}:{}", count.done, count.total);
        format!(
            "{} {} {} {} {}",
            count(it.clone),
            count(it.parse),
            count(it.task),
            it.errors,
            it.warnings
        )
    }

    #[test]
    fn bitbakes_log_is_parsed() {
        let log = "\
Loading cache...done.
Parsing recipes:   4% |##      | ETA:  0:00:10\rParsing recipes: 100% |####| Time: 0:00:12
Parsing of 2813 .bb files complete (2812 cached, 1 parsed). 4300 targets, 0 errors.
WARNING: hello-1.0-r0 do_fetch: Failed to fetch URL
NOTE: Running setscene task 1 of 9 (a.bb:do_x_setscene)
NOTE: Running task 12 of 345 (hello.bb:do_compile)
NOTE: Running noexec task 13 of 345 (hello.bb:do_build)
ERROR: hello-1.0-r0 do_compile: oe_runmake failed
";
        assert_eq!(read_all(log), "0:0 2813:2813 13:345 1 1");
        let end = "NOTE: Tasks Summary: Attempted 345 tasks of which 3 didn't need to be rerun and 1 failed.\n";
        assert_eq!(
            read_all(&format!("{log}{end}")),
            "0:0 2813:2813 345:345 1 1"
        );
    }

    #[test]
    fn progress_lines_may_be_partial_or_malformed() {
        let log = "\
buildhost-progress: clone 1:2 parse 10:20
buildhost-progress: task 1:3
error: this is a compiler's
buildhost-progress: clone 9:2 task x:3 errors 2 warnings -1 colour red odd
buildhost-progress: task 2:3";
        assert_eq!(read_all(log), "2:2 10:20 1:3 2 0");
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_the_pieces(text in "(?s).{0,200}", at in 0usize..200) {
            let bytes = text.as_bytes();
            let at = at.min(bytes.len());
            let (mut whole, mut parts) = (Parser::default(), Parser::default());
            whole.feed(bytes);
            parts.feed(&bytes[..at]);
            parts.feed(&bytes[at..]);
            prop_assert_eq!(whole.progress(), parts.progress());
        }
    }
}
