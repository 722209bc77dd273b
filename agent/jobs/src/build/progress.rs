//! The progress of a build, as its log reports it.

use std::error::Error;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::BuildId;
use config::builds::Progress;
use config::progress::Parser;
use sys::blocking::blocking;
use tracing::warn;

use state::AgentState;
use state::paths::LIVE_LOG;

/// The time between two reads of the log.
const PAUSE: Duration = Duration::from_secs(1);
/// The size of one read, in bytes.
const PIECE: usize = 256 * 1024;

/// A log, and how far it has been read.
struct Followed {
    path: PathBuf,
    offset: u64,
    parser: Parser,
}

impl Followed {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            parser: Parser::default(),
        }
    }

    /// Reads what is new.
    fn read_on(&mut self) -> io::Result<Progress> {
        let mut file = match sys::trusted::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.parser.progress());
            }
            file => file?,
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut piece = vec![0; PIECE];
        loop {
            let count = file.read(&mut piece)?;
            if count == 0 {
                return Ok(self.parser.progress());
            }
            self.offset += count as u64;
            self.parser.feed(&piece[..count]);
        }
    }
}

/// Records the progress while a build runs; never ends by itself.
pub(super) async fn follow(agent: Arc<AgentState>, id: BuildId) -> std::convert::Infallible {
    let mut followed = Followed::new(agent.paths.build(id).join(LIVE_LOG));
    // An earlier attempt may have reported some.
    let mut known = None;
    loop {
        let read;
        (followed, read) = blocking(move || {
            let read = followed.read_on();
            (followed, read)
        })
        .await;
        known = note(&agent, id, read, known).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Records the progress that the whole log reports.
pub(super) async fn note_all(agent: &AgentState, id: BuildId) {
    let paths = agent.paths.clone();
    let read = blocking(move || Followed::new(paths.build_log(id)).read_on()).await;
    note(agent, id, read, None).await;
}

/// Records progress that has changed. Returns the known progress.
async fn note(
    agent: &AgentState,
    id: BuildId,
    read: io::Result<Progress>,
    known: Option<Progress>,
) -> Option<Progress> {
    match read {
        Ok(progress) if Some(progress) != known => {
            if let Err(error) = agent.records.save_progress(id, progress).await {
                let error = &error as &dyn Error;
                warn!(build = %id, error, "cannot record the progress of a build");
            }
            Some(progress)
        }
        Ok(_) => known,
        Err(error) => {
            warn!(%error, "cannot read the progress from the log of a build");
            known
        }
    }
}
