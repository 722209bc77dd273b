//! What the guest of a build is made from and run by, for its record.

use std::fs::{self, File};
use std::path::Path;

use config::Revision;
use config::builds::{BuildInputs, GuestKind};
use config::machine::{Kind, Machine};
use config::task::{self, Provenance};
use store::{Snapshot, Volume, content_manifest};

use super::AttemptError;
use crate::state::agent_state::AgentState;
use guest::{Accelerator, accelerator};

/// The revision that the image of a snapshot was made from, if it is still there.
pub(super) fn revision(
    volume: &Volume,
    snapshot: &Snapshot,
) -> Result<Option<Revision>, AttemptError> {
    let text = fs::read_to_string(snapshot.path().join(task::BOOTSTRAP))?;
    let uuid = Provenance::parse(&text).map(|provenance| provenance.revision_uuid);
    let view = volume.look(snapshot.machine())?;
    let made_from =
        |r: &&store::RevisionView| uuid.as_ref().is_ok_and(|uuid| *uuid == r.uuid.to_string());
    Ok(view.revisions.iter().find(made_from).map(|r| r.revision))
}

/// What else a snapshot says of its origin; nothing when it cannot be read.
pub(super) fn made(snapshot: &Path) -> Option<BuildInputs> {
    let text = fs::read_to_string(snapshot.join(task::BOOTSTRAP)).ok()?;
    let provenance = Provenance::parse(&text).ok()?;
    // Only what was pushed or imported has a record of its content.
    let contents = File::open(snapshot.join(content_manifest::FILE)).ok();
    Some(BuildInputs {
        revision_uuid: provenance.revision_uuid,
        contents_sha256: contents.and_then(|file| sys::file::digest(file).ok()),
        toolchain_sha256: provenance.toolchain_id,
    })
}

/// What will run the guest of a machine on this host.
pub(super) fn guest(agent: &AgentState, machine: &Machine) -> Option<GuestKind> {
    match machine.kind {
        Kind::Nspawn => Some(GuestKind::Nspawn),
        Kind::Kvm => match accelerator(agent.settings.guests.acceleration) {
            Ok(Accelerator::Kvm) => Some(GuestKind::Kvm),
            Ok(Accelerator::Tcg) => Some(GuestKind::Tcg),
            Err(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_tells_what_it_was_made_from() {
        let snapshot = tempfile::tempdir().unwrap();
        assert_eq!(made(snapshot.path()), None);
        let provenance = Provenance {
            revision_uuid: "u-u".into(),
            toolchain_id: "1".repeat(64).parse().unwrap(),
            bootstrap_version: 1,
        };
        let put = |name: &str, text: &str| {
            sys::file::replace(&snapshot.path().join(name), text.as_bytes()).unwrap();
        };
        put(task::BOOTSTRAP, &provenance.print());
        let without = made(snapshot.path()).unwrap();
        assert_eq!(without.contents_sha256, None);
        assert_eq!(without.toolchain_sha256, provenance.toolchain_id);
        put(content_manifest::FILE, "");
        let hash = made(snapshot.path()).unwrap().contents_sha256.unwrap();
        assert!(hash.as_str().starts_with("e3b0c442"), "{hash}");
    }
}
