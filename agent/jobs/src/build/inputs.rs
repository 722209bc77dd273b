//! The inputs of a build, for its record: the revision, the toolchain and the kind of
//! guest.

use std::path::Path;
use std::sync::Arc;

use config::Revision;
use config::builds::{Build, BuildInputs, GuestKind, HostPolicy, SourceOrigin};
use config::egress::Egress;
use config::limits::Limits;
use config::machine::{Kind, Machine};
use config::task::Source;
use guest::{Accelerator, accelerator};
use store::{Snapshot, Volume, content_manifest};
use sys::blocking::blocking;

use super::boot::ColdReason;
use super::{cache, hashserv};
use crate::JobError;
use state::AgentState;
use yocto::Catalog;
use yocto::catalog::Origin;

/// Sets the inputs that the snapshot of a build states, and the origin of its sources.
pub(super) async fn record(
    agent: &AgentState,
    volume: &Volume,
    build: &mut Build,
    snapshot: &Arc<Snapshot>,
) -> Result<(), JobError> {
    let (volume, snapshot) = (volume.clone(), Arc::clone(snapshot));
    let (catalog, sources) = (agent.catalog.clone(), build.sources.clone());
    let (revision, inputs) = blocking(move || {
        let mut inputs = read(snapshot.path())?;
        if let Some(inputs) = &mut inputs {
            inputs.repositories = origins(&catalog, sources)?;
        }
        let revision = match &inputs {
            Some(inputs) => revision(&volume, &snapshot, &inputs.revision_uuid)?,
            None => None,
        };
        Ok::<_, JobError>((revision, inputs))
    })
    .await?;
    build.revision = revision;
    build.inputs = inputs;
    Ok(())
}

/// Returns the repositories of which the host made sources of a build.
fn origins(catalog: &Catalog, sources: Vec<Source>) -> Result<Vec<SourceOrigin>, JobError> {
    let mut origins = Vec::new();
    for source in sources {
        if let Some(Origin { url, commit }) = catalog.origin(&source.sha256)? {
            let source = source.name;
            origins.push(SourceOrigin {
                source,
                url,
                commit,
            });
        }
    }
    Ok(origins)
}

/// Returns the revision with a UUID, if it still exists.
fn revision(
    volume: &Volume,
    snapshot: &Snapshot,
    uuid: &str,
) -> Result<Option<Revision>, JobError> {
    let view = volume.view(snapshot.machine())?;
    let revision = view.revisions.iter().find(|it| it.uuid.to_string() == uuid);
    Ok(revision.map(|it| it.revision))
}

/// Reads the inputs from a snapshot; `None` if it does not state them correctly.
fn read(snapshot: &Path) -> Result<Option<BuildInputs>, JobError> {
    let Some(provenance) = store::image_provenance(snapshot)? else {
        return Ok(None);
    };
    // Only a revision that was pushed or imported has a manifest of its content.
    let contents = sys::untrusted::open(snapshot, content_manifest::FILE).ok();
    let image = sys::untrusted::open(snapshot, content_manifest::IMAGE_FILE).ok();
    Ok(Some(BuildInputs {
        revision_uuid: provenance.revision_uuid,
        contents_sha256: contents.and_then(|file| sys::file::digest(file).ok()),
        toolchain_sha256: provenance.toolchain_id,
        image_sha256: image.and_then(|file| sys::file::digest(file).ok()),
        policy: None,
        repositories: Vec::new(),
    }))
}

/// Records what the settings make of a machine's manifest.
pub(super) fn record_policy(
    agent: &AgentState,
    build: &mut Build,
    machine: &Machine,
    limits: &Limits,
    cold_reason: Option<ColdReason>,
) {
    let cache = cache::use_of(agent, build);
    let hashserv = hashserv::mode(agent, build);
    let settings = agent.settings();
    let networks = settings
        .guests
        .egress_private
        .iter()
        .map(ToString::to_string);
    let is_closed = machine.egress == Egress::None;
    if let Some(inputs) = &mut build.inputs {
        inputs.policy = Some(HostPolicy {
            egress: machine.egress.to_string(),
            egress_private: networks.filter(|_| !is_closed).collect(),
            start_seconds_max: limits.start.as_secs(),
            silence_seconds_max: limits.idle.as_secs(),
            total_seconds_max: limits.total.as_secs(),
            cpus: Some(machine.cpus),
            memory_kib: Some(machine.memory_kib),
            cache,
            hashserv,
            cold_reason: cold_reason.map_or_else(String::new, |reason| reason.to_string()),
            options: machine.options.clone(),
        });
    }
}

/// Records the rights of the guest of a copy, which are fewer than those of its source.
pub(super) fn record_rights(agent: &AgentState, build: &mut Build) {
    let (cache, hashserv) = (cache::use_of(agent, build), hashserv::mode(agent, build));
    let inputs = build.inputs.as_mut();
    if let Some(policy) = inputs.and_then(|inputs| inputs.policy.as_mut()) {
        policy.cache = cache;
        policy.hashserv = hashserv;
    }
}

/// Returns the kind of guest that this host runs for a machine.
pub(super) fn guest_kind(agent: &AgentState, machine: &Machine) -> Option<GuestKind> {
    match machine.kind {
        Kind::Nspawn => Some(GuestKind::Nspawn),
        Kind::Kvm => match accelerator(agent.settings().guests.acceleration) {
            Ok(Accelerator::Kvm(_)) => Some(GuestKind::Kvm),
            Ok(Accelerator::Tcg) => Some(GuestKind::Tcg),
            Err(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use config::task::{self, Provenance};

    use super::*;

    #[test]
    fn a_snapshot_states_the_inputs_of_its_image() {
        let snapshot = tempfile::tempdir().unwrap();
        read(snapshot.path()).unwrap_err();
        let provenance = Provenance {
            revision_uuid: "u-u".into(),
            toolchain_id: "1".repeat(64).parse().unwrap(),
            bootstrap_version: 1,
        };
        let put = |name: &str, text: &str| {
            sys::file::replace(&snapshot.path().join(name), text.as_bytes()).unwrap();
        };
        put(task::BOOTSTRAP, &provenance.print());
        let without = read(snapshot.path()).unwrap().unwrap();
        assert_eq!(without.contents_sha256, None);
        assert_eq!(without.toolchain_sha256, provenance.toolchain_id);
        put(content_manifest::FILE, "");
        let hash = read(snapshot.path())
            .unwrap()
            .unwrap()
            .contents_sha256
            .unwrap();
        assert!(hash.as_str().starts_with("e3b0c442"), "{hash}");
        assert_eq!(read(snapshot.path()).unwrap().unwrap().image_sha256, None);
        put(content_manifest::IMAGE_FILE, "");
        let image = read(snapshot.path()).unwrap().unwrap().image_sha256;
        assert_eq!(image, Some(hash));
    }
}
