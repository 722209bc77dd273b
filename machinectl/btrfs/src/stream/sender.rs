//! The processes that write streams.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use sys::command::{self, Running};

use super::reader::TimeoutReader;
use crate::Result;
use crate::error::IoContext;

/// The time limit for the end of `btrfs send` after its stream.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// A process that writes a stream: `btrfs send` here or on another host. Dropping it kills the
/// process.
pub trait Sender: Debug + Send {
    /// Waits for the end of the process after its stream was read.
    ///
    /// # Errors
    /// The process has failed.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A `btrfs send` on this host.
#[derive(Debug)]
pub struct BtrfsSend(Running);

impl BtrfsSend {
    /// Starts to send a subvolume, in full or as the difference from a parent.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(
        subvolume: &Path,
        parent: Option<&Path>,
        options: &[&str],
    ) -> Result<(Self, TimeoutReader)> {
        let (reader, writer) = std::io::pipe().context("create a pipe for", subvolume)?;
        let mut send = command::prepare("btrfs");
        send.args(["--quiet", "send"]).args(options);
        if let Some(parent) = parent {
            send.arg("-p").arg(parent);
        }
        send.arg(subvolume).stdout(writer);
        let running = Running::start(send)?;
        Ok((Self(running), TimeoutReader::pipe(reader)?))
    }
}

impl Sender for BtrfsSend {
    fn finish(self: Box<Self>) -> Result<()> {
        Ok(self.0.finish(FINISH_TIMEOUT)?)
    }
}
