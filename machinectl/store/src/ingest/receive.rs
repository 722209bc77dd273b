//! Lets `btrfs receive` write a stream to the disk.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::IngestRefusal;
use crate::Result;
use crate::error::IoContext;
use crate::lock::MachineLock;
use crate::stream::Stream;
use crate::stream::input::Patient;
use sys::command::{self, CommandError, Running};

/// How long the receiver may take for what it has not yet written when the stream
/// has ended.
const FINISH_MAX: Duration = Duration::from_mins(10);

/// Receives a stream into a directory. Whatever ends us, the receiver ends too: its
/// input does; and the machine stays locked until it has, because it inherits the
/// lock.
pub(super) fn receive(stream: Stream<Patient>, directory: &Path, lock: &MachineLock) -> Result<()> {
    let mut receive = command::prepare("btrfs");
    receive.args(["--quiet", "receive", "-e"]).arg(directory);
    receive.stdin(Stdio::piped());
    // It prints nothing; the descriptor is there to hold the lock.
    receive.stdout(lock.share().context("share the lock of", directory)?);
    let mut running = Running::start(receive)?;
    let sink = running.child.stdin.take();
    if let Some(sink) = sink {
        // Twice as fast as the usual 64 KiB; a kernel that refuses is merely slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&sink, 1 << 20);
        // On an error the receiver is killed before its input ends, so it cannot
        // take a part for the whole.
        let poured = stream.pipe(&sink);
        if let Err(error) = poured {
            drop(running);
            drop(sink);
            return Err(error.into());
        }
    }
    running.finish(FINISH_MAX).map_err(|error| match &error {
        CommandError::Failed { stderr, .. } if stderr.contains("No space left on device") => {
            IngestRefusal::Full(directory.to_owned()).into()
        }
        _ => error.into(),
    })
}
