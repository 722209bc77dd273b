//! The logs that pages show: their indexes of lines, which grow with them and are kept in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use session::line_times;
use web::{LineIndex, Matches, Needle};

use state::paths::{LOG_TIMES, log_in};

/// The number of logs whose indexes are kept.
const KEPT_MAX: usize = 32;
/// The size of a piece of a log that is read at once. A longer line is counted as several.
const PIECE: usize = 1 << 20;

/// The indexes of the logs that were shown last.
#[derive(Debug, Default)]
pub(super) struct LogFiles {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    uses: u64,
    logs: HashMap<PathBuf, (u64, Arc<Mutex<Indexed>>)>,
}

/// The index of a log.
#[derive(Debug, Default)]
struct Indexed {
    /// The device and the number of the file that the index is of.
    file: (u64, u64),
    index: LineIndex,
    /// True if the log is complete, and so is the index.
    is_complete: bool,
    /// The last search, and its result.
    searched: Option<(String, Arc<Matches>)>,
}

/// A log with its index, at one moment.
#[derive(Debug)]
pub(super) struct LogFile {
    file: Option<File>,
    directory: PathBuf,
    indexed: Arc<Mutex<Indexed>>,
    /// The index.
    pub(super) index: LineIndex,
}

impl LogFiles {
    /// Opens the log in a directory and brings its index up to date. The last line counts only if it
    /// is whole or the log is complete. Blocks.
    pub(super) fn open(&self, directory: &Path, is_complete: bool) -> io::Result<LogFile> {
        let file = match sys::trusted::open(log_in(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        let indexed = self.indexed(directory);
        let index = match &file {
            None => LineIndex::default(),
            Some(file) => indexed.lock().update(file, is_complete)?,
        };
        Ok(LogFile {
            file,
            directory: directory.to_owned(),
            indexed,
            index,
        })
    }

    fn indexed(&self, directory: &Path) -> Arc<Mutex<Indexed>> {
        let mut kept = self.kept.lock();
        kept.uses += 1;
        let now = kept.uses;
        if kept.logs.len() >= KEPT_MAX && !kept.logs.contains_key(directory) {
            let oldest = kept.logs.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(directory, _)| directory.clone()) {
                kept.logs.remove(&oldest);
            }
        }
        let entry = kept.logs.entry(directory.to_owned()).or_default();
        entry.0 = now;
        Arc::clone(&entry.1)
    }
}

impl Indexed {
    /// Adds the lines that are new in the file. Begins again if it is another file.
    fn update(&mut self, file: &File, is_complete: bool) -> io::Result<LineIndex> {
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        if self.file != identity || metadata.len() < self.index.bytes() {
            *self = Self {
                file: identity,
                ..Self::default()
            };
        }
        if !self.is_complete {
            let before = self.index.bytes();
            let begin = self.index.bytes();
            read_lines(file, begin, metadata.len(), is_complete, |block| {
                self.index.push(block);
            })?;
            self.is_complete = is_complete;
            if self.index.bytes() != before {
                self.searched = None;
            }
        }
        Ok(self.index.clone())
    }
}

impl LogFile {
    /// Returns whole lines from a line on: their text, its offset, and the number of the first one.
    /// Blocks.
    pub(super) fn lines(&self, first: u64, count: u64) -> io::Result<(Vec<u8>, u64, u64)> {
        let first = first.max(1);
        let Some(file) = self.file.as_ref().filter(|_| first <= self.index.lines()) else {
            return Ok((Vec::new(), self.index.bytes(), first));
        };
        let (begin, mut skip) = self.index.seek(first);
        let mut wanted = count;
        let mut text = Vec::new();
        let mut offset = begin;
        let mut at = begin;
        let mut piece = vec![0; 64 * 1024];
        while wanted > 0 && at < self.index.bytes() {
            let left = usize::try_from(self.index.bytes() - at).unwrap_or(usize::MAX);
            let length = piece.len().min(left);
            file.read_exact_at(&mut piece[..length], at)?;
            at += length as u64;
            for line in piece[..length].split_inclusive(|byte| *byte == b'\n') {
                let is_whole = line.ends_with(b"\n");
                if skip > 0 {
                    offset += line.len() as u64;
                    skip -= u64::from(is_whole);
                } else if wanted > 0 {
                    text.extend_from_slice(line);
                    wanted -= u64::from(is_whole);
                }
            }
        }
        Ok((text, offset, first))
    }

    /// Returns the lines that contain a text. Blocks.
    pub(super) fn search(&self, text: &str, needle: &Needle) -> io::Result<Arc<Matches>> {
        let mut indexed = self.indexed.lock();
        if let Some((before, matches)) = &indexed.searched
            && before == text
            && indexed.index.bytes() == self.index.bytes()
        {
            return Ok(Arc::clone(matches));
        }
        let mut matches = Matches::default();
        let mut lines = 0;
        if let Some(file) = &self.file {
            read_lines(file, 0, self.index.bytes(), true, |block| {
                needle.search(block, lines, &mut matches);
                lines += memchr::memchr_iter(b'\n', block).count() as u64;
            })?;
        }
        let matches = Arc::new(matches);
        indexed.searched = Some((text.to_owned(), Arc::clone(&matches)));
        Ok(matches)
    }

    /// Returns the offsets with the times at which they arrived. Blocks.
    pub(super) fn times(&self) -> Vec<(u64, i64)> {
        let text = sys::trusted::read_text(self.directory.join(LOG_TIMES));
        line_times::parse(&text.unwrap_or_default()).collect()
    }
}

/// Reads a file from `begin` to `end` in blocks of whole lines. The last line, if it is not whole, is
/// left out unless the file is complete.
fn read_lines(
    file: &File,
    begin: u64,
    end: u64,
    is_complete: bool,
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let (mut at, mut kept) = (begin, 0);
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let length = (piece.len() - kept).min(left);
        file.read_exact_at(&mut piece[kept..kept + length], at)?;
        at += length as u64;
        let filled = kept + length;
        let whole = memchr::memrchr(b'\n', &piece[..filled]).map_or(0, |end| end + 1);
        // A line as long as the piece is taken as it is.
        let taken = if whole == 0 && filled == piece.len() {
            filled
        } else {
            whole
        };
        take(&piece[..taken]);
        piece.copy_within(taken..filled, 0);
        kept = filled - taken;
    }
    if is_complete && kept > 0 {
        take(&piece[..kept]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(log: &LogFile, first: u64, count: u64) -> String {
        String::from_utf8(log.lines(first, count).unwrap().0).unwrap()
    }

    #[test]
    fn an_index_grows_with_its_log_and_begins_again_with_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let logs = LogFiles::default();
        assert_eq!(logs.open(path, false).unwrap().index.lines(), 0);
        let lines_of = |number| format!("line {number}\n");
        let text = (1..=600).map(lines_of).collect::<Vec<_>>().concat();
        std::fs::write(path.join("log.live"), format!("{text}par")).unwrap();
        let log = logs.open(path, false).unwrap();
        assert_eq!(log.index.lines(), 600, "the last line is not whole");
        assert_eq!(lines(&log, 599, 9), "line 599\nline 600\n");
        assert_eq!(lines(&log, 601, 9), "");
        std::fs::write(path.join("log.live"), format!("{text}part\nend")).unwrap();
        let log = logs.open(path, true).unwrap();
        assert_eq!(
            (log.index.lines(), lines(&log, 601, 9)),
            (602, "part\nend".to_owned())
        );
        let (_, offset, _) = log.lines(300, 1).unwrap();
        assert_eq!(offset, text.find("line 300\n").unwrap() as u64);
        let matches = log.search("part", &Needle::new("part").unwrap()).unwrap();
        assert_eq!(matches.lines, [601]);
        // The guest has put its log.
        let put = format!("{text}{text}");
        std::fs::write(path.join("log"), put).unwrap();
        let log = logs.open(path, true).unwrap();
        assert_eq!(log.index.lines(), 1200);
        let matches = log
            .search("line 600", &Needle::new("line 600").unwrap())
            .unwrap();
        assert_eq!(matches.lines, [600, 1200]);
    }

    #[test]
    fn the_number_of_indexes_is_bounded() {
        let logs = LogFiles::default();
        for number in 0..100 {
            logs.indexed(Path::new(&number.to_string()));
        }
        assert_eq!(logs.kept.lock().logs.len(), KEPT_MAX);
        assert!(logs.kept.lock().logs.contains_key(Path::new("99")));
    }
}
