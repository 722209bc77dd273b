//! Notes on new revisions: the option, and the names of their authors.

use std::env;

use clap::Args;
use store::Note;

/// The option of commands that create a revision.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NoteOption {
    /// A note on the new revision, which `status` shows
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
}

impl NoteOption {
    /// Returns the text, if there is one.
    pub(super) fn text(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the note on a revision that is created from a source.
    pub(super) fn note(&self, source: String) -> Note {
        Note {
            text: self.message.clone().unwrap_or_default(),
            author: author(),
            source,
        }
    }
}

/// Returns the person who runs this program, as `user@host`. The user of `sudo` counts, not root.
pub(super) fn author() -> String {
    let variables = ["SUDO_USER", "LOGNAME", "USER"].iter();
    let user = variables
        .filter_map(|it| env::var(it).ok())
        .find(|it| !it.is_empty());
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    format!("{}@{host}", user.as_deref().unwrap_or("root"))
}

/// Returns the address of the ssh client that has started this program; `None` without one.
pub(super) fn client() -> Option<String> {
    let connection = env::var("SSH_CONNECTION").ok()?;
    connection.split(' ').next().map(str::to_owned)
}
