//! Receives a revision of the machine `linux` from standard input, as from a sender so slow that
//! what has arrived is kept after each command, in a process that a test can kill.
//!
//! usage: receive-in-parts VOLUME

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use store::stream::{SendStream, TimeoutReader};
use store::{Intent, Source, Volume};

fn main() -> Result<()> {
    let path = std::env::args_os()
        .nth(1)
        .context("usage: receive-in-parts VOLUME")?;
    let volume = Volume::open(Path::new(&path))?.with_part_duration(Duration::ZERO);
    let stream = SendStream::open(TimeoutReader::pipe(std::io::stdin())?)?;
    let source = Source::Stream(stream.resumable());
    volume.ingest(Intent::Upgrade, &"linux".parse()?, source)?;
    Ok(())
}
