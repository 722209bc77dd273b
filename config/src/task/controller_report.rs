//! The result of a worker of build2, as its host reports it to the controller of the task.
//!
//! A controller gets the worker's own text. It is changed only if the host ended the build
//! otherwise than the worker says, or if the controller would refuse it for its size or its
//! characters. Values with unknown names are refused by controllers, so the host adds none: its
//! words are in the log of the last operation.

use super::Outcome;
use crate::manifest::{self, Manifest};

/// The largest text of a result. Controllers accept 15 728 640 bytes of a request by default, of
/// which some are for the values in front of the result.
pub const REPORT_BYTES_MAX: usize = 15_728_640 - 64 * 1024;

/// The names of values that end so are logs of operations.
const LOG: &str = "-log";
/// The names of values that end so are outcomes of operations.
const STATUS: &str = "-status";
/// The attempts to find a length of logs that fits.
const TRIES_MAX: usize = 30;

/// Returns the text of a result for the controller of its task: the worker's, with the host's
/// outcome and message if those differ, and with shorter logs if it has more than `bytes_max`
/// bytes. Returns `None` if the text has no status, or is too large without logs.
pub fn controller_report(
    text: &str,
    outcome: Outcome,
    message: &str,
    bytes_max: usize,
) -> Option<String> {
    let list = manifest::parse_local(text).ok()?;
    let result = list.first()?;
    let status = result.get("status")?;
    // A status of a later version is for the controller to judge.
    let is_unknown = status.parse::<Outcome>().is_err() && outcome == Outcome::Error;
    let is_same = is_unknown || status == outcome.to_string();
    if is_same && text.len() <= bytes_max && manifest::parse(text).is_ok() {
        return Some(text.to_owned());
    }
    let pairs = if is_same {
        result.pairs().to_vec()
    } else {
        overruled(result, outcome, message)
    };
    shortened(&pairs, bytes_max)
}

/// Returns the values of a result with the outcome and the words of the host.
fn overruled(result: &Manifest, outcome: Outcome, message: &str) -> Vec<(String, String)> {
    let mut pairs = result.pairs().to_vec();
    let ends = |suffix: &'static str| move |(name, _): &(String, String)| name.ends_with(suffix);
    if let Some(last) = pairs.iter().rposition(ends(LOG)) {
        let line = format!("\nthe host ended this build as {outcome}: {message}\n");
        pairs[last].1.push_str(&line);
    }
    if let Some(last) = pairs.iter().rposition(ends(STATUS)) {
        pairs[last].1 = outcome.to_string();
    }
    if let Some(status) = pairs.iter().position(|(name, _)| name == "status") {
        pairs[status].1 = outcome.to_string();
    }
    pairs
}

/// Prints values, the logs among which are cut until the text has at most `bytes_max` bytes.
fn shortened(pairs: &[(String, String)], bytes_max: usize) -> Option<String> {
    let logs = pairs.iter().filter(|(name, _)| name.ends_with(LOG));
    let mut log_max = logs.map(|(_, log)| log.len()).max().unwrap_or_default();
    for _ in 0..TRIES_MAX {
        let text = printed(pairs, log_max);
        if text.len() <= bytes_max {
            return Some(text);
        }
        if log_max == 0 {
            return None;
        }
        // Shorter logs are not cut, so that one step may not be enough.
        log_max = log_max.min(log_max * (bytes_max / 64) / (text.len() / 64).max(1) * 15 / 16);
    }
    let text = printed(pairs, 0);
    (text.len() <= bytes_max).then_some(text)
}

/// Prints values with logs of at most `log_max` bytes.
fn printed(pairs: &[(String, String)], log_max: usize) -> String {
    let add = |manifest: Manifest, (name, value): &(String, String)| {
        if name.ends_with(LOG) {
            manifest.with(name, &cut(value, log_max))
        } else {
            manifest.with(name, value)
        }
    };
    manifest::print(&[pairs.iter().fold(Manifest::new(), add)])
}

/// Returns a log without its middle, with a line that says so.
fn cut(log: &str, bytes_max: usize) -> String {
    if log.len() <= bytes_max {
        return log.to_owned();
    }
    let head = log.floor_char_boundary(bytes_max / 2);
    let tail = log.ceil_char_boundary(log.len() - bytes_max / 2);
    let (head, tail) = (&log[..head], &log[tail..]);
    // Whole lines, where there are some.
    let head = head.rfind('\n').map_or(head, |end| &head[..end]);
    let tail = tail.find('\n').map_or(tail, |start| &tail[start + 1..]);
    let omitted = log.len() - head.len() - tail.len();
    let line = format!("[the host left out {omitted} bytes here: the controller takes no more]");
    [head, &line, tail].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = ": 1\nname: hello\nversion: 1.0.0\nstatus: warning\n\
        configure-status: success\nupdate-status: warning\nconfigure-log: ok\nupdate-log:\n\\\n\
        a warning that is long enough to be continued, because lines have 78 columns\\\n at most\n\
        \\\nworker-checksum: 1\nnewer-value: kept\n";

    fn report(text: &str, outcome: Outcome, bytes_max: usize) -> Option<String> {
        controller_report(text, outcome, "the disk is full", bytes_max)
    }

    #[test]
    fn the_text_of_the_worker_is_reported_as_it_is() {
        let crlf = RESULT.replace('\n', "\r\n");
        for text in [RESULT, &crlf] {
            assert_eq!(report(text, Outcome::Warning, 1000).as_deref(), Some(text));
        }
        let unknown = RESULT.replace("status: warning", "status: splendid");
        assert_eq!(report(&unknown, Outcome::Error, 1000), Some(unknown));
    }

    #[test]
    fn the_outcome_of_the_host_overrules_that_of_the_worker() {
        let text = report(RESULT, Outcome::Error, 1000).unwrap();
        let list = manifest::parse(&text).unwrap();
        assert_eq!(list[0].get("status"), Some("error"));
        assert_eq!(list[0].get("configure-status"), Some("success"));
        assert_eq!(list[0].get("update-status"), Some("error"));
        let log = list[0].get("update-log").unwrap();
        assert!(
            log.ends_with("at most\nthe host ended this build as error: the disk is full\n"),
            "{log}"
        );
        let names = |list: &[Manifest]| {
            let names = list[0].pairs().iter().map(|(name, _)| name.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(&list), names(&manifest::parse(RESULT).unwrap()));
    }

    #[test]
    fn characters_that_a_controller_refuses_are_replaced() {
        let text = RESULT.replace("ok", "\u{1b}[1mok");
        let text = report(&text, Outcome::Warning, 1000).unwrap();
        let list = manifest::parse(&text).unwrap();
        assert_eq!(list[0].get("configure-log"), Some("\u{FFFD}[1mok"));
    }

    #[test]
    fn long_logs_lose_their_middle_and_say_so() {
        let line = "hello.cxx:1: a line of a long log \\\n";
        let result = Manifest::new()
            .with("status", "success")
            .with("update-status", "success")
            .with("test-status", "success")
            .with(
                "update-log",
                &format!("first\n{}last\n", line.repeat(20_000)),
            )
            .with("test-log", "short\n");
        let text = manifest::print(&[result]);
        for bytes_max in [400_000, 100_000, 10_000, 1000] {
            let short = report(&text, Outcome::Success, bytes_max).unwrap();
            assert!(
                short.len() <= bytes_max && short.len() > bytes_max / 2,
                "{}",
                short.len()
            );
            let list = manifest::parse(&short).unwrap();
            let log = list[0].get("update-log").unwrap();
            assert!(
                log.starts_with("first\n") && log.ends_with("last\n"),
                "{log}"
            );
            let whole = |it: &&str| !["first", "last"].contains(it) && !it.starts_with("[the host");
            let lines = log.lines().filter(whole);
            assert!(lines.clone().all(|it| it == line.trim_end()));
            let omitted = log
                .split(['t', ' '])
                .find_map(|it| it.parse::<usize>().ok());
            let (kept, all) = (lines.count(), 20_000);
            assert_eq!(omitted, Some((all - kept) * line.len() + 1), "{bytes_max}");
            assert_eq!(list[0].get("test-log"), Some("short\n"));
        }
    }

    #[test]
    fn nothing_is_reported_of_a_text_without_status_or_too_large_without_logs() {
        for text in ["", "no manifest", ": 1\nname: x\n", "\u{1b}"] {
            assert_eq!(report(text, Outcome::Error, 1000), None);
        }
        assert_eq!(report(RESULT, Outcome::Warning, 50), None);
    }
}
