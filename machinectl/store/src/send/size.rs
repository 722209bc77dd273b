//! The approximate size of a stream. `btrfs send --no-data` lists the commands without the
//! content, which takes a moment even for a large image.

use std::io::{self, BufReader, Read};

use config::{MachineName, Revision};

use crate::{Result, Uuid, Volume};
use btrfs::stream::{FRAME_LENGTH, START_LENGTH, Sender, attribute, parse_frame};

/// The command for content that is left out, and the attribute with the content's size.
const UPDATE_EXTENT: u16 = 22;
const ATTRIBUTE_SIZE: u16 = 4;

impl Volume {
    /// Returns the approximate number of bytes of the stream of [`Volume::send`].
    ///
    /// # Errors
    /// Those of [`Volume::send`].
    pub fn estimate_size(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        known: &[Uuid],
    ) -> Result<u64> {
        let sending = self.start_send(machine, revision, known, &["--no-data"])?;
        let bytes = full_length(BufReader::new(sending.output));
        Box::new(sending.sender).finish()?;
        Ok(bytes.unwrap_or_default())
    }
}

/// Returns the length that a stream without content would have with it.
fn full_length(mut stream: impl Read) -> io::Result<u64> {
    let mut total = START_LENGTH as u64;
    stream.read_exact(&mut [0; START_LENGTH])?;
    loop {
        let mut frame = [0; FRAME_LENGTH];
        match stream.read_exact(&mut frame) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(total),
            read => read?,
        }
        let (length, kind) = parse_frame(&frame);
        let mut body = Vec::new();
        stream.by_ref().take(length.into()).read_to_end(&mut body)?;
        total += (FRAME_LENGTH + body.len()) as u64;
        if kind == UPDATE_EXTENT {
            total += extent_size(&body);
        }
    }
}

fn extent_size(mut body: &[u8]) -> u64 {
    while let Some((kind, value, rest)) = attribute(body) {
        if kind == ATTRIBUTE_SIZE {
            return value.try_into().map_or(0, u64::from_le_bytes);
        }
        body = rest;
    }
    0
}
