//! Publishes an image of the machine `linux` as a bootstrap does, in a process that a test can
//! kill.
//!
//! usage: publish-image VOLUME

use std::path::Path;

use anyhow::{Context, Result};
use config::task::Provenance;
use store::{SnapshotSource, Uuid, Volume};

fn main() -> Result<()> {
    let path = std::env::args_os()
        .nth(1)
        .context("usage: publish-image VOLUME")?;
    let volume = Volume::open(Path::new(&path))?;
    let (machine, toolchain) = ("linux".parse()?, "default".parse()?);
    let tag = std::process::id().to_string().parse()?;
    let snapshot = volume.snapshot(&machine, &SnapshotSource::Current, &toolchain, &tag)?;
    let provenance = Provenance {
        revision_uuid: Uuid::nil().to_string(),
        toolchain_id: "a".repeat(64).parse()?,
        bootstrap_version: 1,
    };
    volume.publish_image(snapshot, &provenance)?;
    Ok(())
}
