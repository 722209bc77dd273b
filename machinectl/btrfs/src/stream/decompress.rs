//! Streams that are compressed: a decompressor between the input and the reader of the stream.

use std::io;
use std::thread;
use std::time::Duration;

use sys::command::CommandError;

use super::format::StreamError;
use super::reader::TimeoutReader;
use super::sender::Sender;
use crate::compression::{Compression, Decompressor, MAGIC_BYTES};
use crate::error::IoContext;
use crate::{Result, StoreError};

/// The time limit for the end of a decompressor after its output was read or closed.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the content of a file or a pipe, and its decompressor if it is compressed.
///
/// # Errors
/// The input cannot be read, or the decompressor cannot be started.
pub(super) fn decompress(
    mut input: TimeoutReader,
) -> Result<(Option<Box<dyn Sender>>, TimeoutReader)> {
    let start = input.peek(MAGIC_BYTES).map_err(StreamError::Read)?;
    let Some(compression) = Compression::detect(&start) else {
        return Ok((None, input));
    };
    let input = match input.into_regular_file() {
        Ok(file) => file.into(),
        Err(mut pipe) => {
            let (reader, mut writer) = io::pipe().context("create a pipe for", "the input")?;
            // It ends with the input, or when the decompressor has ended.
            thread::spawn(move || io::copy(&mut pipe, &mut writer));
            reader.into()
        }
    };
    let (decompressor, content) = compression.decompress(input)?;
    Ok((Some(Box::new(decompressor)), TimeoutReader::pipe(content)?))
}

impl Sender for Decompressor {
    fn finish(self: Box<Self>) -> Result<()> {
        match (*self).finish(FINISH_TIMEOUT) {
            // It waits for input of which no more is needed.
            Err(StoreError::Command(CommandError::TimedOut { .. })) => Ok(()),
            result => result,
        }
    }
}
