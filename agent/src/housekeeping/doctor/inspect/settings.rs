//! The facts about files and numbers that the settings name.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use config::layout::Entry;
use config::{MachineName, ResourceName};
use state::AgentState;
use store::Volume;

/// Returns the files with secrets that other users may read, with their modes: the secrets of
/// builds, and those that the settings name.
pub(super) fn open_secrets(agent: &AgentState) -> Vec<(PathBuf, u32)> {
    let settings = agent.settings();
    let tls = settings.http.tls.as_ref().map(|tls| &tls.key);
    let named = [
        tls,
        settings.pr.token_file.as_ref(),
        settings.pr.client_token_file.as_ref(),
        settings.layers.git_credentials.as_ref(),
    ];
    let open = |path: &PathBuf| {
        let mode = fs::metadata(path).ok()?.mode() & 0o7777;
        (mode & 0o004 != 0).then(|| (path.clone(), mode))
    };
    let mut found: Vec<_> = named.into_iter().flatten().filter_map(open).collect();
    // A directory that cannot be read is reported by each use of a secret.
    found.extend(agent.secrets.open_files().unwrap_or_default());
    found
}

/// Returns the machines that need more of a countable resource than the host has.
pub(super) fn undeclared(agent: &AgentState) -> Vec<(MachineName, ResourceName, u32, u32)> {
    let settings = agent.settings();
    let has = &settings.guests.resources;
    let of_machine = |volume: &Volume, machine: MachineName| {
        let manifest = store::machine_manifest(&volume.entry(&machine, &Entry::Current)).ok();
        let needs = manifest.map(|it| it.resources).unwrap_or_default();
        let lacking = needs.iter().filter_map(|(name, wanted)| {
            let total = has.get(name).map_or(0, u32::from);
            (u32::from(wanted) > total).then(|| (name.clone(), u32::from(wanted), total))
        });
        let lacking: Vec<_> = lacking.collect();
        lacking
            .into_iter()
            .map(move |(name, wanted, total)| (machine.clone(), name, wanted, total))
    };
    let of_volume = |volume: &Volume| {
        let machines = volume.machines().unwrap_or_default().into_iter();
        machines
            .flat_map(|machine| of_machine(volume, machine))
            .collect::<Vec<_>>()
    };
    agent.volumes.iter().flat_map(of_volume).collect()
}
