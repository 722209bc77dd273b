//! The audit log: a line for each row that was recorded or forgotten, with the peer that caused it.
//!
//! The lines of a batch are appended after its commit and before any of its answers is sent, so a
//! value that a client has received has its line, except after a power failure.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::identity::Identity;
use crate::tuple::Tuple;
use crate::value::Value;

/// The mode of a new file: its lines name clients.
const MODE: u32 = 0o640;

/// The reason for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Change {
    /// A new value was assigned.
    Assigned,
    /// A value of another server was recorded.
    Imported,
    /// A row was removed.
    Forgotten,
}

/// A changed row.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    /// The reason.
    pub(crate) change: Change,
    /// The peer that caused the change.
    pub(crate) identity: &'a Identity,
    /// The key of the row.
    pub(crate) tuple: &'a Tuple,
    /// The value of the row.
    pub(crate) value: &'a Value,
}

/// A line.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    change: Change,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    version: &'a str,
    pkgarch: &'a str,
    checksum: &'a str,
    value: &'a str,
}

/// A file to which lines are appended.
#[derive(Debug)]
pub(crate) struct AuditLog {
    path: PathBuf,
    file: File,
    /// The lines to append.
    buffer: Vec<u8>,
}

impl AuditLog {
    /// Opens a file, created if missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
            buffer: Vec::new(),
        })
    }

    /// Appends a line for each entry. If another program has renamed or deleted the file, it is
    /// created again first.
    pub(crate) fn append<'a>(
        &mut self,
        time: Timestamp,
        entries: impl IntoIterator<Item = Entry<'a>>,
    ) -> io::Result<()> {
        self.buffer.clear();
        for entry in entries {
            write_line(&mut self.buffer, time, &entry)?;
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        if !self.has_its_name()? {
            self.file = open(&self.path)?;
        }
        self.file.write_all(&self.buffer)
    }

    /// Returns the path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if the path still names the open file.
    fn has_its_name(&self) -> io::Result<bool> {
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        let open = self.file.metadata()?;
        Ok(std::fs::metadata(&self.path).is_ok_and(|named| identity(&named) == identity(&open)))
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .mode(MODE)
        .open(path)
}

fn write_line(out: &mut Vec<u8>, time: Timestamp, entry: &Entry) -> io::Result<()> {
    let line = Line {
        time,
        change: entry.change,
        client: &entry.identity.name,
        token: entry.identity.token.as_deref(),
        version: &entry.tuple.package.version,
        pkgarch: &entry.tuple.package.pkgarch,
        checksum: &entry.tuple.checksum,
        value: entry.value.as_str(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_line_names_the_peer_the_row_and_the_reason_and_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut log = AuditLog::open(&path).unwrap();
        let without = Identity::new("10.0.0.1:4242");
        let with = Identity {
            token: Some("ci".into()),
            ..without.clone()
        };
        let (tuple, value) = (Tuple::new("v\n1", "all", "c"), Value::from(7));
        let entry = |identity, change| Entry {
            change,
            identity,
            tuple: &tuple,
            value: &value,
        };
        log.append(Timestamp::UNIX_EPOCH, [entry(&without, Change::Assigned)])
            .unwrap();
        log.append(Timestamp::UNIX_EPOCH, [entry(&with, Change::Forgotten)])
            .unwrap();
        let row = r#""version":"v\n1","pkgarch":"all","checksum":"c","value":"7"}"#;
        let time = r#"{"time":"1970-01-01T00:00:00Z","#;
        let expected = [
            format!(r#"{time}"change":"assigned","client":"10.0.0.1:4242",{row}"#),
            format!(r#"{time}"change":"forgotten","client":"10.0.0.1:4242","token":"ci",{row}"#),
        ];
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            expected.join("\n") + "\n"
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o007, 0);
    }

    #[test]
    fn lines_are_appended_to_a_new_file_after_a_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let rotated = directory.path().join("audit.jsonl.1");
        let mut log = AuditLog::open(&path).unwrap();
        let (identity, tuple) = (Identity::new("x"), Tuple::new("v", "all", "c"));
        let mut append = || {
            let value = Value::first();
            let entry = Entry {
                change: Change::Imported,
                identity: &identity,
                tuple: &tuple,
                value: &value,
            };
            log.append(Timestamp::UNIX_EPOCH, [entry]).unwrap();
        };
        append();
        fs::rename(&path, &rotated).unwrap();
        append();
        append();
        let lines = |path| fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&rotated), lines(&path)), (1, 2));
    }
}
