//! The records of the commands of one guest: a file with a line of JSON for the start and one for the
//! end of each command, which is only appended to.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::builds::Submitter;
use config::exec::{CommandEnd, CommandRecord};
use jiff::Timestamp;
use parking_lot::Mutex;
use sys::blocking::blocking;

/// The name of the file in the directory of a build.
pub const FILE: &str = "commands.jsonl";
/// The largest size of the file: further commands are refused.
const BYTES_MAX: u64 = 16 << 20;

/// The file with the records.
#[derive(Debug, Clone)]
pub(super) struct CommandLog {
    path: PathBuf,
    /// `None` before the file was read.
    known: Arc<Mutex<Option<Known>>>,
}

/// The commands that are recorded.
#[derive(Debug, Default)]
struct Known {
    count: u32,
    /// Those that run.
    open: BTreeMap<u32, CommandRecord>,
}

impl CommandLog {
    /// Returns the records in this file, which need not exist.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            known: Arc::default(),
        }
    }

    /// Records the start of a command. Returns its number.
    pub(super) async fn start(
        &self,
        command: Vec<String>,
        submitter: Submitter,
        now: Timestamp,
    ) -> io::Result<u32> {
        let log = self.clone();
        blocking(move || {
            let mut known = log.known.lock();
            let known = match &mut *known {
                Some(known) => known,
                none => none.insert(log.settle(now)?),
            };
            log.check_size()?;
            let number = known.count + 1;
            let record = CommandRecord {
                number,
                command,
                submitter,
                started: now,
                ended: None,
                end: None,
            };
            log.append(&record)?;
            known.count = number;
            known.open.insert(number, record);
            Ok(number)
        })
        .await
    }

    /// Records the end of a command.
    pub(super) async fn end(&self, number: u32, end: CommandEnd, now: Timestamp) -> io::Result<()> {
        let log = self.clone();
        blocking(move || {
            let mut known = log.known.lock();
            let found = known.as_mut().and_then(|it| it.open.remove(&number));
            let record = found.ok_or(ErrorKind::NotFound)?;
            log.append(&CommandRecord {
                ended: Some(now),
                end: Some(end),
                ..record
            })
        })
        .await
    }

    /// Ends the commands of an earlier agent, which are lost.
    fn settle(&self, now: Timestamp) -> io::Result<Known> {
        let records = read(&self.path)?;
        let count = records.last().map_or(0, |it| it.number);
        for record in records.into_iter().filter(|it| it.end.is_none()) {
            self.append(&CommandRecord {
                ended: Some(now),
                end: Some(CommandEnd::Lost),
                ..record
            })?;
        }
        Ok(Known {
            count,
            open: BTreeMap::new(),
        })
    }

    /// Refuses another command if there is no room for its record.
    fn check_size(&self) -> io::Result<()> {
        let size = self.path.metadata().map_or(0, |metadata| metadata.len());
        if size > BYTES_MAX {
            return Err(io::Error::other(format!(
                "the records of the commands of this guest have {} MiB; start another guest",
                BYTES_MAX >> 20
            )));
        }
        Ok(())
    }

    fn append(&self, record: &CommandRecord) -> io::Result<()> {
        let mut file = sys::trusted::append(&self.path)?;
        // The line end before it closes a line that a crash has cut.
        let line = format!("\n{}\n", serde_json::to_string(record)?);
        file.write_all(line.as_bytes())
    }
}

/// Reads the records of commands; none if the file does not exist. Blocks.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<CommandRecord>> {
    match sys::trusted::read_text(path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Returns the last state of each command. A line that a crash has cut is ignored.
fn parse(text: &str) -> Vec<CommandRecord> {
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let by_number: BTreeMap<u32, CommandRecord> = lines
        .map(|record: CommandRecord| (record.number, record))
        .collect();
    by_number.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn start(log: &CommandLog, word: &str) -> u32 {
        let started = log.start(vec![word.into()], Submitter::root(), Timestamp::UNIX_EPOCH);
        started.await.unwrap()
    }

    #[tokio::test]
    async fn the_commands_of_an_earlier_agent_are_lost_and_a_cut_line_hides_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(FILE);
        assert_eq!(read(&path).unwrap(), []);
        let log = CommandLog::new(path.clone());
        assert_eq!(start(&log, "one").await, 1);
        assert_eq!(start(&log, "two").await, 2);
        let end = CommandEnd::Exited(3);
        log.end(1, end, Timestamp::UNIX_EPOCH).await.unwrap();
        let mut cut = sys::trusted::append(&path).unwrap();
        cut.write_all(b"{\"number\": 3, \"comm").unwrap();
        let next = CommandLog::new(path.clone());
        assert_eq!(start(&next, "three").await, 3);
        let ends: Vec<_> = read(&path).unwrap().iter().map(|it| it.end).collect();
        assert_eq!(ends, [Some(end), Some(CommandEnd::Lost), None]);
    }
}
