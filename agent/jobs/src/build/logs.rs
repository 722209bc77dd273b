//! The logs of a build: one for each attempt.
//!
//! While a guest runs, its log grows in [`LIVE_LOG`]. A worker puts the whole log at the end.
//! Afterwards the more complete one of the two is the log, and the other one is deleted. The log
//! and the console of an attempt that is repeated move to a directory of their own.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use config::task::LOG;
use session::line_times;

use state::paths::{
    ARTIFACTS, AUXILIARY, CONSOLE, GIVEN_TASK, LIVE_LOG, LOG_TIMES, attempt_directory, attempts,
};

/// The number of earlier attempts whose logs are kept.
const KEPT_MAX: usize = 10;
/// The directory of an earlier attempt until all its files are there.
const MOVING: &str = "attempt.moving";

/// Makes one log of the live one and the one that the guest put, in the directory of a build
/// whose guest has ended. The live log has no more than `bytes_max` bytes: one of that size lacks
/// its end. Is idempotent. Blocks.
pub(super) fn settle(directory: &Path, bytes_max: u64) -> io::Result<()> {
    let (live, put) = (directory.join(LIVE_LOG), directory.join(LOG));
    match (size(&live)?, size(&put)?) {
        (None, _) => Ok(()),
        (Some(live_size), Some(put_size)) if put_size >= live_size || live_size >= bytes_max => {
            let same = common_prefix(directory)?;
            if same < live_size {
                keep_times(&directory.join(LOG_TIMES), same)?;
            }
            fs::remove_file(live)
        }
        (Some(_), _) => fs::rename(live, put),
    }
}

fn size(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the number of bytes at the beginning that both logs have.
fn common_prefix(directory: &Path) -> io::Result<u64> {
    let open = |name: &str| sys::untrusted::open(directory, name).map(io::BufReader::new);
    let (live, put) = (open(LIVE_LOG)?, open(LOG)?);
    let mut same = 0;
    for (one, other) in live.bytes().zip(put.bytes()) {
        if one? != other? {
            break;
        }
        same += 1;
    }
    Ok(same)
}

/// Drops the times of bytes from `end` on: the log has other bytes there.
fn keep_times(path: &Path, end: u64) -> io::Result<()> {
    let text = match sys::trusted::read_text(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let mut kept = String::new();
    for (offset, time) in line_times::parse(&text) {
        if offset < end {
            let _ = writeln!(kept, "{offset} {time}");
        }
    }
    sys::file::replace(path, kept.as_bytes())
}

/// Returns true if the directory of a build was emptied for the attempt behind the one with the
/// number `earlier`.
pub(super) fn has_begun(directory: &Path, earlier: u32) -> bool {
    earlier == 0 || attempt_directory(directory, earlier).exists()
}

/// Empties the directory of a build for the next attempt. Keeps the log and the console of the
/// attempt before, which was the one with the number `earlier`, or 0 before the first one. Blocks.
pub(super) fn begin_attempt(directory: &Path, earlier: u32, bytes_max: u64) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let own = attempt_directory(directory, earlier);
    // An interrupted attempt has no number of its own: its repetition replaces its log.
    if earlier > 0 && !own.exists() {
        settle(directory, bytes_max)?;
        let moving = directory.join(MOVING);
        fs::create_dir_all(&moving)?;
        for name in [CONSOLE, LOG_TIMES, LOG] {
            if size(&directory.join(name))?.is_some() {
                fs::rename(directory.join(name), moving.join(name))?;
            }
        }
        for auxiliary in auxiliary_directories(directory)? {
            if let Some(name) = auxiliary.file_name() {
                fs::rename(&auxiliary, moving.join(name))?;
            }
        }
        fs::rename(moving, own)?;
    }
    let attempts = attempts(directory)?;
    let kept = &attempts[attempts.len().saturating_sub(KEPT_MAX)..];
    let kept: Vec<_> = kept
        .iter()
        .map(|it| attempt_directory(directory, *it))
        .chain([directory.join(GIVEN_TASK)])
        .collect();
    for path in sys::file::entries(directory)? {
        if kept.contains(&path) {
            continue;
        }
        if fs::symlink_metadata(&path)?.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    sys::file::fresh_directory(&directory.join(ARTIFACTS))
}

/// Returns the directories of auxiliary guests in the directory of a build.
fn auxiliary_directories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = sys::file::entries(directory)?;
    entries.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(AUXILIARY))
    });
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use state::paths::auxiliary_directory;

    use super::*;

    fn read(directory: &Path, name: &str) -> Option<String> {
        fs::read_to_string(directory.join(name)).ok()
    }

    fn write(directory: &Path, name: &str, text: &str) {
        sys::file::replace(&directory.join(name), text.as_bytes()).unwrap();
    }

    #[test]
    fn the_more_complete_log_stays() {
        for (live, put, expected) in [
            (None, None, None),
            (Some("live"), None, Some("live")),
            (None, Some("put"), Some("put")),
            (Some("one\n"), Some("one\ntwo\n"), Some("one\ntwo\n")),
            (Some("same"), Some("same"), Some("same")),
            (Some("one\ntwo\n"), Some("one\n"), Some("one\ntwo\n")),
            (
                Some("one\ntwo\nthr"),
                Some("one\n…\nend\n"),
                Some("one\n…\nend\n"),
            ),
        ] {
            let place = tempfile::tempdir().unwrap();
            let directory = place.path();
            for (name, text) in [(LIVE_LOG, live), (LOG, put)] {
                text.inspect(|text| write(directory, name, text));
            }
            for _ in 0..2 {
                settle(directory, 11).unwrap();
                assert_eq!(read(directory, LOG).as_deref(), expected);
                assert_eq!(read(directory, LIVE_LOG), None);
            }
        }
    }

    #[test]
    fn the_files_of_an_attempt_before_are_told_from_those_of_a_new_one() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path();
        begin_attempt(directory, 0, 1000).unwrap();
        assert!(has_begun(directory, 0));
        let console = auxiliary_directory(directory, 1).join(CONSOLE);
        fs::create_dir_all(auxiliary_directory(directory, 1)).unwrap();
        sys::file::replace(&console, b"auxiliary").unwrap();
        write(directory, LOG, "failed\n");
        write(directory, "result.manifest", ": 1\n");
        assert!(!has_begun(directory, 1));
        begin_attempt(directory, 1, 1000).unwrap();
        let kept = auxiliary_directory(&attempt_directory(directory, 1), 1);
        assert!(kept.join(CONSOLE).exists() && !console.exists());
        assert!(has_begun(directory, 1));
        assert_eq!(read(directory, "result.manifest"), None);
    }

    #[test]
    fn times_of_other_bytes_are_dropped() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path();
        write(directory, LIVE_LOG, "one\n[gap]\nthree\n");
        write(directory, LOG, "one\ntwo, long\nthree\n");
        write(directory, LOG_TIMES, "0 1000\n3 2000\n10 3000\n");
        settle(directory, 1000).unwrap();
        assert_eq!(read(directory, LOG_TIMES).unwrap(), "0 1000\n3 2000\n");
    }

    #[test]
    fn earlier_attempts_keep_their_logs_and_consoles_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("1");
        for attempt in 1..=13 {
            begin_attempt(&directory, attempt - 1, 1000).unwrap();
            write(&directory, CONSOLE, &format!("console {attempt}"));
            write(&directory, LIVE_LOG, &format!("log {attempt}"));
            write(&directory, "result.manifest", "");
            write(&directory, GIVEN_TASK, "the task of a controller");
            write(&directory.join(ARTIFACTS), "file", "");
            // The agent stops: the attempt is repeated under its number.
            begin_attempt(&directory, attempt - 1, 1000).unwrap();
            write(&directory, CONSOLE, &format!("console {attempt}"));
            write(&directory, LIVE_LOG, &format!("log {attempt}"));
        }
        let kept: Vec<_> = (3..=12).collect();
        assert_eq!(attempts(&directory).unwrap(), kept);
        for attempt in kept {
            let own = attempt_directory(&directory, attempt);
            assert_eq!(read(&own, LOG).unwrap(), format!("log {attempt}"));
            assert_eq!(read(&own, CONSOLE).unwrap(), format!("console {attempt}"));
        }
        assert_eq!(read(&directory, "result.manifest"), None);
        assert!(read(&directory, GIVEN_TASK).is_some(), "for all attempts");
        assert_eq!(read(&directory, LIVE_LOG).unwrap(), "log 13");
        assert_eq!(fs::read_dir(directory.join(ARTIFACTS)).unwrap().count(), 0);
    }

    #[test]
    fn an_interrupted_attempt_replaces_nothing_of_the_one_before() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("1");
        begin_attempt(&directory, 0, 1000).unwrap();
        // The first attempt fails before its log begins.
        write(&directory, CONSOLE, "console 1");
        begin_attempt(&directory, 1, 1000).unwrap();
        write(&directory, CONSOLE, "console 2");
        write(&directory, LIVE_LOG, "log 2");
        begin_attempt(&directory, 1, 1000).unwrap();
        let own = attempt_directory(&directory, 1);
        assert_eq!(read(&own, CONSOLE).unwrap(), "console 1");
        assert_eq!(read(&own, LOG), None);
    }

    #[test]
    fn a_move_that_was_cut_short_is_completed() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("1");
        fs::create_dir_all(directory.join(MOVING)).unwrap();
        write(&directory.join(MOVING), CONSOLE, "console 1");
        write(&directory, LOG, "log 1");
        begin_attempt(&directory, 1, 1000).unwrap();
        let own = attempt_directory(&directory, 1);
        assert_eq!(read(&own, CONSOLE).unwrap(), "console 1");
        assert_eq!(read(&own, LOG).unwrap(), "log 1");
        assert!(!directory.join(MOVING).exists());
    }
}
