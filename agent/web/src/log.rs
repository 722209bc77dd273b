//! Logs: their index of lines, searches, and the windows of lines that pages show.

mod ansi;
mod index;
mod search;
mod window;

pub use index::LineIndex;
pub use search::{Matches, Needle};
pub use window::{LogLine, LogWindow, WindowOptions};

/// The number of lines between two entries of an index.
const LINES_PER_ENTRY: u64 = 256;
