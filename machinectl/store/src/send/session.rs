//! A transfer over one connection: the remote host describes its machine in one line of JSON. Then
//! either a sender announces its stream in one line and sends it, or a receiver requests a revision
//! in one line, and the host answers with one line and the stream.

use std::io::{self, Read, Write};
use std::time::Duration;

use config::{MachineName, Revision};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::remote_view::RemoteView;
use crate::ingest::PartialRevision;
use btrfs::btrfs_progs;

use crate::{Intent, Note, Result, Uuid, Volume};

/// The time limit for the other side to decide. It may read a whole image meanwhile: a sender, to
/// write its content manifest, or to compare what has arrived before. Nothing is locked for so long.
pub const DECISION_TIMEOUT: Duration = Duration::from_hours(24);
/// The maximum length of a line, in bytes, and of what a shell prints before the first one.
const BYTES_MAX: u64 = 16 << 20;
/// The start of each line. A shell may print other lines before.
const START: &str = "{\"buildhost\":";

/// The description of a host and of its machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// The version of this dialogue.
    buildhost: u32,
    /// The highest version of the stream format that the host understands. From 2 on, a stream can
    /// have compressed content.
    pub stream_version: u32,
    /// The machine; `None` if no machine has this name.
    pub machine: Option<RemoteView>,
    /// The part of a revision that has arrived before its transfer was cut.
    #[serde(default)]
    pub partial: Option<PartialRevision>,
}

/// The sender's announcement of its stream.
#[derive(Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// The version of this dialogue.
    buildhost: u32,
    /// The purpose of the image.
    pub intent: Intent,
    /// The partial revision that the stream continues; `None` for a stream from its beginning.
    #[serde(default)]
    pub continues: Option<PartialRevision>,
    /// The note on the revision. Its source is the sender.
    #[serde(default)]
    pub note: Option<Note>,
}

/// The receiver's request for a revision.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The version of this dialogue.
    pub(crate) buildhost: u32,
    /// The revision.
    pub revision: Revision,
    /// The UUIDs of revisions that the receiver has, on which the stream may build.
    pub known: Vec<Uuid>,
    /// The highest version of the stream format that the receiver understands.
    pub stream_version: u32,
    /// The part of the revision that the receiver has from a transfer that was cut.
    pub partial: Option<PartialRevision>,
    /// True if the size of the stream is wanted.
    pub measures: bool,
    /// False if only the size is wanted.
    pub streams: bool,
}

/// The sender's answer to a request. The stream follows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The version of this dialogue.
    buildhost: u32,
    /// The approximate size of the whole stream, in bytes, if it is wanted and known.
    pub bytes: Option<u64>,
    /// True if the stream is the rest behind the requested partial revision.
    pub continues: bool,
}

/// The version of the dialogue.
const VERSION: u32 = 1;

impl Request {
    /// Requests the stream of a revision on top of known ones.
    pub fn new(revision: Revision, known: Vec<Uuid>) -> Self {
        Self {
            buildhost: VERSION,
            revision,
            known,
            stream_version: btrfs_progs::stream_version(),
            partial: None,
            measures: false,
            streams: true,
        }
    }
}

impl Reply {
    /// Answers a request.
    pub fn new(bytes: Option<u64>, continues: bool) -> Self {
        Self {
            buildhost: VERSION,
            bytes,
            continues,
        }
    }
}

impl Greeting {
    /// Describes a machine, and what this host can receive. Reads the content manifests.
    ///
    /// # Errors
    /// The machine cannot be read.
    pub fn of(volume: &Volume, machine: &MachineName) -> Result<Self> {
        let view = match volume.view(machine) {
            Err(error) if error.kind() == Some(crate::RefusalKind::NotFound) => None,
            view => Some(view?),
        };
        Ok(Self {
            buildhost: VERSION,
            stream_version: btrfs_progs::stream_version(),
            partial: view.as_ref().and_then(|it| volume.partial_revision(it)),
            machine: view.as_ref().map(|it| RemoteView::of(volume, it)),
        })
    }
}

impl Announcement {
    /// Announces a stream, or the rest of one.
    pub fn new(intent: Intent, continues: Option<PartialRevision>, note: Option<Note>) -> Self {
        Self {
            buildhost: VERSION,
            intent,
            continues,
            note,
        }
    }
}

/// Writes a line of the dialogue.
///
/// # Errors
/// The other side has closed the connection.
pub fn write_line(sink: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(line).map_err(io::Error::other)?;
    writeln!(sink, "{line}")?;
    sink.flush()
}

/// Reads a line of the dialogue; returns `None` at the end of the input. Skips other lines before
/// it, and reads nothing behind it.
///
/// # Errors
/// The input cannot be read or is not understood. The error names what was read.
pub fn read_line<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let mut before = String::new();
    let mut byte = [0];
    for _ in 0..BYTES_MAX {
        // Single bytes, because the stream follows.
        if input.read(&mut byte)? == 0 {
            break;
        }
        if byte != *b"\n" {
            line.extend(byte);
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        if text.starts_with(START) {
            let parsed = serde_json::from_str(&text).map(Some);
            return parsed.map_err(|error| invalid(&format!("{text}: {error}")));
        }
        before = text.into_owned();
        line.clear();
    }
    before.push_str(&String::from_utf8_lossy(&line));
    if before.is_empty() {
        return Ok(None);
    }
    Err(invalid(&before))
}

fn invalid(text: &str) -> io::Error {
    let text: String = text.chars().take(100).collect();
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_behind_the_words_of_a_shell() {
        let mut bytes = b"Welcome!\n{ 3 updates }\n".to_vec();
        write_line(&mut bytes, &Announcement::new(Intent::Add, None, None)).unwrap();
        bytes.extend(b"stream");
        let mut input = &bytes[..];
        let read: Announcement = read_line(&mut input).unwrap().unwrap();
        assert_eq!(read.intent, Intent::Add);
        assert_eq!(input, b"stream");
    }

    #[test]
    fn an_answer_that_is_no_line_is_named() {
        assert!(read_line::<Announcement>(&mut &b""[..]).unwrap().is_none());
        for (answer, named) in [
            ("Welcome!\n", "Welcome!"),
            ("no end", "no end"),
            ("{\"buildhost\":2,\"intent\":\"leap\"}\n", "leap"),
        ] {
            let error = read_line::<Announcement>(&mut answer.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
