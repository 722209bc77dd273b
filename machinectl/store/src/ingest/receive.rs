//! Runs `btrfs receive`, which writes a stream to the disk.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sys::command::{self, CommandError, Running};

use super::IngestRefusal;
use crate::Result;
use crate::error::IoContext;
use crate::lock::MachineLock;
use crate::stream::SendStream;

/// The time limit for the receiver to write the rest after the end of the stream.
const FINISH_TIMEOUT: Duration = Duration::from_mins(10);
/// The capacity of the pipe to the receiver. It is twice as fast as the default of 64 KiB.
const PIPE_BYTES: usize = 1 << 20;

/// Receives a stream into a directory. `parent` is the directory of its parent. Commands that
/// reach outside the new subvolume are refused before they are applied.
///
/// The receiver ends with this process, because its input does. It inherits the machine's
/// lock, so that the machine stays locked until then.
pub(super) fn receive(
    stream: SendStream,
    parent: Option<PathBuf>,
    directory: &Path,
    lock: &MachineLock,
) -> Result<()> {
    let mut receive = command::prepare("btrfs");
    receive.args(["--quiet", "receive", "-e"]).arg(directory);
    receive.stdin(Stdio::piped());
    // It prints nothing to this descriptor, which only holds the lock.
    receive.stdout(lock.try_clone().context("share the lock of", directory)?);
    let mut running = Running::start(receive)?;
    if let Some(mut sink) = running.child.stdin.take() {
        // A kernel that refuses is only slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&sink, PIPE_BYTES);
        if let Err(error) = stream.receive_into(&mut sink, parent) {
            // The receiver is killed before its input ends, so that it cannot take a cut
            // stream for a complete one.
            drop(running);
            drop(sink);
            return Err(error);
        }
    }
    running
        .finish(FINISH_TIMEOUT)
        .map_err(|error| match &error {
            CommandError::Failed { stderr, .. } if stderr.contains("No space left on device") => {
                IngestRefusal::Full(directory.to_owned()).into()
            }
            _ => error.into(),
        })
}
