//! The progress of a build, parsed from its log: from lines of Buildhost's own format,
//! which a shell script can print, and from BitBake's.
//!
//! A line that starts with [`MARK`] has some of `clone DONE:TOTAL`, `parse DONE:TOTAL`,
//! `task DONE:TOTAL`, `errors COUNT`, `warnings COUNT` and `preload used` (or `outdated`, or
//! `failed`); the others keep their values.
//! For example: `echo buildhost-progress: task 3:10`. Once such a line has counted recipes or
//! tasks, BitBake's own lines about them are not read, because they count otherwise.
//!
//! Of BitBake, the lines are those of its user interface `knotty`
//! (`bitbake/lib/bb/ui/knotty.py`). Several of them can belong to one message, so the summary at
//! the end replaces the numbers of errors and warnings that were counted before it.

use crate::builds::{Count, PreloadUse, Progress};

/// The prefix of a progress line.
pub const MARK: &str = "buildhost-progress:";
/// The number of bytes of a line that are parsed.
const LINE_MAX: usize = 4096;

/// A parser that reads a log in pieces.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    progress: Progress,
    /// The numbers of errors and warnings at the last summary of BitBake.
    summed: Messages,
    /// True if a progress line has counted recipes.
    parse_told: bool,
    /// True if a progress line has counted tasks.
    tasks_told: bool,
}

/// Numbers of messages.
#[derive(Debug, Clone, Copy, Default)]
struct Messages {
    errors: u32,
    warnings: u32,
}

impl Parser {
    /// Parses the next piece of the log.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // BitBake redraws its progress bars with carriage returns.
            if byte == b'\n' || byte == b'\r' {
                let line = std::mem::take(&mut self.line);
                self.read(&String::from_utf8_lossy(&line));
            } else if self.line.len() < LINE_MAX {
                self.line.push(byte);
            }
        }
    }

    /// Returns the progress so far.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    fn read(&mut self, line: &str) {
        if let Some(values) = line.strip_prefix(MARK) {
            return self.read_values(values);
        }
        if let Some(summary) = line.strip_prefix("Summary: There ") {
            return self.read_summary(summary);
        }
        let progress = &mut self.progress;
        match Level::of(line) {
            Some(Level::Error) => progress.errors = progress.errors.saturating_add(1),
            Some(Level::Warning) => progress.warnings = progress.warnings.saturating_add(1),
            None => self.read_counts(line),
        }
    }

    /// Reads BitBake's numbers of recipes and tasks.
    fn read_counts(&mut self, line: &str) {
        let all = |total| Count { done: total, total };
        if let Some(count) = running_task(line) {
            self.set_tasks(count);
        } else if let Some(total) = number_after(line, "NOTE: Tasks Summary: Attempted ") {
            self.set_tasks(all(total));
        } else if let Some(total) = number_after(line, "Parsing of ")
            && !self.parse_told
        {
            self.progress.parse = all(total);
        }
    }

    fn set_tasks(&mut self, count: Count) {
        if !self.tasks_told {
            self.progress.task = count;
        }
    }

    fn read_values(&mut self, values: &str) {
        let progress = &mut self.progress;
        let mut words = values.split_whitespace();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let number = value.parse();
            match (name, count(value), number) {
                ("clone", Some(count), _) => progress.clone = count,
                ("parse", Some(count), _) => {
                    progress.parse = count;
                    self.parse_told = true;
                }
                ("task", Some(count), _) => {
                    progress.task = count;
                    self.tasks_told = true;
                }
                ("errors", _, Ok(number)) => progress.errors = number,
                ("warnings", _, Ok(number)) => progress.warnings = number,
                ("preload", _, _) => progress.preload = PreloadUse::parse(value),
                _ => {}
            }
        }
    }

    /// Parses `was 1 ERROR message, …` and `were 2 WARNING messages.`: the messages since the
    /// last summary of an earlier run of BitBake.
    fn read_summary(&mut self, summary: &str) {
        let mut words = summary.split_whitespace().skip(1);
        let (Some(number), level) = (words.next().and_then(|it| it.parse().ok()), words.next())
        else {
            return;
        };
        let (progress, summed) = (&mut self.progress, &mut self.summed);
        match level {
            Some("ERROR") => {
                summed.errors = summed.errors.saturating_add(number);
                progress.errors = summed.errors;
            }
            Some("WARNING") => {
                summed.warnings = summed.warnings.saturating_add(number);
                progress.warnings = summed.warnings;
            }
            _ => {}
        }
    }
}

/// The level of a message of BitBake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
}

impl Level {
    /// Returns the level of the message that a line begins; `None` if it begins none.
    fn of(line: &str) -> Option<Self> {
        let (level, text) = after_label(line).split_once(": ")?;
        match level {
            // For one failed task, BitBake prints these lines beside that of the message.
            "ERROR" if text.starts_with("Logfile of failure stored in") => None,
            "ERROR" if text.starts_with("Task (") => None,
            "ERROR" | "CRITICAL" => Some(Self::Error),
            "WARNING" => Some(Self::Warning),
            _ => None,
        }
    }
}

/// Returns a line without the label of a progress bar, which BitBake prints without an end of
/// line: `Parsing recipes...ERROR: ParseError at …`.
fn after_label(line: &str) -> &str {
    let is_label = |text: &str| text.chars().all(|c| c.is_ascii_alphabetic() || c == ' ');
    match line.split_once("...") {
        Some((label, rest)) if is_label(label) => rest,
        _ => line,
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
    fn the_recorded_log_of_a_failed_task_has_one_error() {
        let log = include_str!("progress/failed-task.log");
        assert_eq!(log.matches("ERROR: ").count(), 3);
        assert_eq!(read_all(log), "0:0 2:2 3:3 1 0");
    }

    #[test]
    fn one_message_in_several_lines_is_counted_once() {
        let failed = "\
ERROR: hello-1.0-r0 do_compile: Execution of '/w/run.do_compile.7' failed with exit code 2
ERROR: Logfile of failure stored in: /w/log.do_compile.7
ERROR: Task (/l/hello_1.0.bb:do_compile) failed with exit code '1'
";
        assert_eq!(read_all(failed), "0:0 0:0 0:0 1 0");
        let parse = "Parsing recipes...ERROR: ParseError at /l/x.bb:3: unparsed line: 'x'\n";
        assert_eq!(read_all(parse), "0:0 0:0 0:0 1 0");
        assert_eq!(read_all("Loading cache...done.\n"), "0:0 0:0 0:0 0 0");
    }

    #[test]
    fn bitbakes_summary_replaces_the_counts_of_its_run() {
        let run = "\
ERROR: one
WARNING: hello-1.0-r0 do_fetch: a
ERROR: the same, as a second line
Summary: There was 1 WARNING message.
Summary: There was 1 ERROR message, returning a non-zero exit code.
";
        assert_eq!(read_all(run), "0:0 0:0 0:0 1 1");
        let second = "\
ERROR: x
Summary: There were 2 WARNING messages.
Summary: There were 4 ERROR messages, returning a non-zero exit code.
";
        assert_eq!(read_all(&format!("{run}{second}")), "0:0 0:0 0:0 5 3");
        let odd = "Summary: There were x ERROR messages\nSummary: There was\nERROR: one\n";
        assert_eq!(read_all(odd), "0:0 0:0 0:0 1 0");
    }

    #[test]
    fn bitbakes_own_counts_do_not_mix_with_those_of_progress_lines() {
        let log = "\
buildhost-progress: parse 3:10
Parsing of 955 .bb files complete (0 cached, 955 parsed). 1 targets, 0 errors.
buildhost-progress: task 6:16
NOTE: Running task 7 of 16 (hello.bb:do_compile)
NOTE: Tasks Summary: Attempted 16 tasks of which 0 didn't need to be rerun and all succeeded.
";
        assert_eq!(read_all(log), "0:0 3:10 6:16 0 0");
    }

    #[test]
    fn the_use_of_what_was_preloaded_is_reported() {
        let preload = |log: &str| {
            let mut parser = Parser::default();
            parser.feed(log.as_bytes());
            parser.progress().preload
        };
        assert_eq!(preload("buildhost-progress: task 1:2\n"), None);
        for (word, used) in [
            ("used", Some(PreloadUse::Used)),
            ("outdated", Some(PreloadUse::Outdated)),
            ("failed", Some(PreloadUse::Failed)),
            ("2:3", None),
        ] {
            assert_eq!(preload(&format!("{MARK} preload {word}\n")), used);
        }
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
