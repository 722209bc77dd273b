//! Transfers of a new revision, as a sender passes them to `machinectl receive`.

use config::MachineName;
use store::ingest::PartialRevision;
use store::send::session::{self, Announcement};
use store::{Intent, Volume};

/// Returns the input of `receive` for a stream from its beginning.
pub fn whole(stream: &[u8]) -> Vec<u8> {
    announced(None, stream)
}

/// Returns the input of `receive` that continues what a volume has of a stream, if anything.
pub fn rest(volume: &Volume, machine: &MachineName, stream: &[u8]) -> Vec<u8> {
    let view = volume.view(machine).expect("a machine");
    match volume.partial_revision(&view) {
        Some(partial) => {
            let arrived = usize::try_from(partial.length()).expect("a part of the stream");
            announced(Some(partial), &stream[arrived..])
        }
        None => whole(stream),
    }
}

fn announced(continues: Option<PartialRevision>, bytes: &[u8]) -> Vec<u8> {
    let mut input = Vec::new();
    let announcement = Announcement::new(Intent::Upgrade, continues, None);
    session::write_line(&mut input, &announcement).expect("a line");
    input.extend(bytes);
    input
}
