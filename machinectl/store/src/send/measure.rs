//! About how long a stream will be. The kernel tells: it can list what it would send
//! without reading any content, which takes a moment even for a large image.

use std::io::{self, BufReader, Read};

use config::{MachineName, Revision};

use super::Parting;
use crate::stream::{FRAME, START, attribute, frame};
use crate::{Result, Uuid, Volume};

/// A command that says that content would follow, and its attribute with the size.
const UPDATE_EXTENT: u16 = 22;
const ATTRIBUTE_SIZE: u16 = 4;

impl Volume {
    /// About how many bytes [`Volume::send`] will make.
    ///
    /// # Errors
    /// Those of [`Volume::send`], and when the sender fails.
    pub fn measure(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        known: &[Uuid],
    ) -> Result<u64> {
        let parting = self.start(machine, revision, known, &["--no-data"])?;
        let Parting { sender, stream, .. } = parting;
        let bytes = sum(BufReader::new(stream));
        sender.finish()?;
        Ok(bytes.unwrap_or_default())
    }
}

/// The length of the stream that a stream without content stands for.
fn sum(mut stream: impl Read) -> io::Result<u64> {
    let mut total = START as u64;
    stream.read_exact(&mut [0; START])?;
    loop {
        let mut head = [0; FRAME];
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(total),
            read => read?,
        }
        let (length, kind) = frame(&head);
        let mut body = Vec::new();
        stream.by_ref().take(length.into()).read_to_end(&mut body)?;
        total += (FRAME + body.len()) as u64;
        if kind == UPDATE_EXTENT {
            total += size(&body);
        }
    }
}

fn size(mut body: &[u8]) -> u64 {
    while let Some((kind, value, rest)) = attribute(body) {
        if kind == ATTRIBUTE_SIZE {
            return value.try_into().map_or(0, u64::from_le_bytes);
        }
        body = rest;
    }
    0
}
