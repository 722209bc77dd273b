//! The notes on revisions: files beside them that tell what is in them, and who brought them from
//! where. A revision needs none, and nothing depends on one.

use config::layout::Entry;
use config::machines::Note;
use config::{MachineName, Revision};

use crate::{Result, Volume};
use btrfs::error::IoContext;

/// The maximum size of a note's file, in bytes.
const BYTES_MAX: u64 = 64 << 10;
/// The maximum number of characters of each part of a note.
const CHARACTERS_MAX: usize = 2000;

/// Returns a note without what is longer than a person reads.
fn shortened(note: &Note) -> Note {
    let short = |text: &str| text.chars().take(CHARACTERS_MAX).collect();
    Note {
        text: short(&note.text),
        author: short(&note.author),
        source: short(&note.source),
    }
}

impl Volume {
    /// Returns the note on a revision; `None` without one that can be read.
    pub fn note(&self, machine: &MachineName, revision: Revision) -> Option<Note> {
        let directory = self.directory(machine);
        let name = Entry::Note(revision).name(machine);
        let text = sys::untrusted::read_text(&directory, name, BYTES_MAX).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes the note on a revision. The caller holds the machine's lock, and commits.
    pub(crate) fn write_note(
        &self,
        machine: &MachineName,
        revision: Revision,
        note: &Note,
    ) -> Result<()> {
        let path = self.entry(machine, &Entry::Note(revision));
        let text = serde_json::to_vec(&shortened(note)).map_err(std::io::Error::other);
        let written = text.and_then(|it| self.backend.write(&path, &it));
        written.context("write", &path)
    }
}
