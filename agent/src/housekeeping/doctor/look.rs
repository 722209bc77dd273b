//! Looks at everything that an examination depends on.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::doctor::Cleaning;
use config::layout::Entry;
use config::machine::{self, Firmware, Machine};
use config::task::{Digest, RESULT};
use config::{BuildId, MachineName};
use store::{Holder, Volume, VolumeId};
use tracing::warn;

use super::{Group, Guest, Inventory, Network, Recorded, Records};
use crate::blocking;
use crate::records::Integrity;
use crate::scheduler::{self, Action};
use crate::session::guests_directory;
use crate::state::AgentState;
use guest::network;
use guest::{GuestError, cgroup, check_firmware};

/// How long a source may wait for its build.
const SOURCE_AGE_MAX: Duration = Duration::from_hours(24);

/// Looks at the host. What runs is noted before and after everything else: what
/// begins or ends meanwhile is not taken for something that was left.
///
/// # Errors
/// When a directory of ours cannot be read.
pub async fn look(agent: &Arc<AgentState>) -> io::Result<Inventory> {
    let before = agent.jobs.running();
    let ours = Arc::clone(agent);
    let mut seen = blocking(move || look_around(&ours)).await?;
    for jobs in [before, agent.jobs.running()] {
        seen.running
            .extend(jobs.builds.keys().chain(jobs.holds.keys()));
        seen.copies.extend(jobs.debug_sessions.keys());
        seen.bootstraps |= !jobs.images.is_empty();
    }
    Ok(seen)
}

fn look_around(agent: &AgentState) -> io::Result<Inventory> {
    let prefix = format!("{}-", agent.settings.name);
    let guests = guests(agent, &prefix)?;
    let directories = sys::file::entries(&agent.paths.builds())?;
    let sources = sources(&agent.paths.sources())?;
    // What is recorded later than it was listed would seem to have no record.
    let health = agent
        .records
        .check_integrity()
        .unwrap_or_else(|error| Integrity {
            faults: vec![sys::error_report::chain(&error)],
            ..Integrity::default()
        });
    let used = |path: &Path| digest(path).is_some_and(|digest| health.sources.contains(&digest));
    let unused = sources
        .into_iter()
        .filter(|(path, _)| health.faults.is_empty() && !used(path));
    let unused = unused.collect();
    Ok(Inventory {
        networks: networks(&prefix)?,
        groups: groups(&prefix),
        prefix,
        guests,
        records: records(agent, health),
        directories,
        unused,
        sources: agent.paths.sources(),
        short: short(agent),
        without_firmware: without_firmware(agent),
        ..Inventory::default()
    })
}

fn guests(agent: &AgentState, prefix: &str) -> io::Result<Vec<Guest>> {
    let directory = guests_directory(&agent.settings.paths.run);
    let runs = sys::file::entries(&directory)?.into_iter();
    let guest = |run: PathBuf| {
        let tag = run.file_name()?.to_str()?.to_owned();
        let find = || guest::Guest::find(&run);
        let pid = || Some(find().ok()??.pid());
        let found = pid();
        // A guest that has just ended needs no network.
        let network = network::Network::open(&format!("{prefix}{tag}")).is_ok() || pid() != found;
        Some(Guest {
            pid: found,
            unreadable: find().is_err(),
            network,
            tag,
            run,
        })
    };
    Ok(runs.filter_map(guest).collect())
}

fn networks(prefix: &str) -> io::Result<Vec<Network>> {
    let names = network::list(prefix)?.into_iter();
    let network = |name: String| {
        // A network that was only half made has no processes.
        let inside = network::Network::open(&name).map(|network| network.processes());
        let inside = inside.into_iter().flatten().flatten();
        let processes = inside.map(|pid| Holder {
            pid,
            name: process_name(pid),
        });
        Network {
            processes: processes.collect(),
            name,
        }
    };
    Ok(names.map(network).collect())
}

fn process_name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

fn groups(prefix: &str) -> Vec<Group> {
    let group = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let inside = fs::read_to_string(path.join("cgroup.procs")).ok()?;
        name.starts_with(prefix).then_some(Group {
            busy: !inside.is_empty(),
            name,
            path,
        })
    };
    cgroup::groups().into_iter().filter_map(group).collect()
}

fn records(agent: &AgentState, health: Integrity) -> Records {
    let recorded = |(id, (state, attempts)): (BuildId, _)| {
        let directory = agent.paths.build(id);
        let result = directory.join(RESULT).exists();
        let lost = (!directory.exists()).then_some(directory);
        (
            id,
            Recorded {
                state,
                attempts,
                result,
                lost,
            },
        )
    };
    Records {
        path: agent.records.path().to_owned(),
        faults: health.faults,
        builds: health.builds.into_iter().map(recorded).collect(),
    }
}

fn digest(path: &Path) -> Option<Digest> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The sources that were handed in long ago, and what a killed agent was receiving.
fn sources(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let now = SystemTime::now();
    let old = |path: PathBuf| {
        let half = path.file_name()?.to_str()?.starts_with(".tmp");
        let data = fs::symlink_metadata(&path).ok()?;
        let age = now.duration_since(data.modified().ok()?).ok()?;
        let ours = data.is_file() && (half || digest(&path).is_some());
        (ours && age > SOURCE_AGE_MAX).then_some((path, data.len()))
    };
    let paths = sys::file::entries(directory)?;
    Ok(paths.into_iter().filter_map(old).collect())
}

/// What is wrong with a manifest is told by who starts the machine.
fn without_firmware(agent: &AgentState) -> Vec<(MachineName, String)> {
    let Err(GuestError::NoFirmware { path, source }) = check_firmware(&agent.settings.guests.uefi)
    else {
        return Vec::new();
    };
    let wants = |volume: &Volume, machine: &MachineName| {
        let current = volume.directory(machine).join(machine.as_str());
        let text = fs::read_to_string(current.join(machine::FILE)).ok()?;
        Some(Machine::parse(&text).ok()?.firmware == Firmware::Uefi)
    };
    let of_volume = |volume: &Volume| {
        let mut machines = volume.machines().unwrap_or_default();
        machines.retain(|machine| wants(volume, machine) == Some(true));
        machines
    };
    let machines = agent.volumes.iter().flat_map(of_volume);
    let proof = format!("{}: {source}", path.display());
    machines.map(|machine| (machine, proof.clone())).collect()
}

fn short(agent: &AgentState) -> Vec<(PathBuf, u64)> {
    let paths = &agent.settings.paths;
    let volumes = agent.volumes.iter().map(Volume::path);
    let places = std::iter::once(paths.state.as_path()).chain(volumes);
    let free = |place: &Path| Some((place.to_owned(), store::space::bytes_free(place).ok()?));
    let known = places.filter_map(free);
    known
        .filter(|(_, free)| *free < paths.reserve_bytes)
        .collect()
}

/// Returns the deletions of the scheduler's next round.
pub async fn cleaning(agent: &Arc<AgentState>) -> Vec<Cleaning> {
    let observed = match scheduler::observe(agent, BTreeMap::new()).await {
        Ok(observed) => observed,
        Err(error) => {
            let error = &error as &dyn Error;
            warn!(error, "cannot observe what the scheduler deletes");
            return Vec::new();
        }
    };
    let cleaning = |machine: &MachineName, volume: VolumeId, entry: Option<Entry>| {
        Some(Cleaning {
            volume: agent.volumes.get(volume)?.path().to_owned(),
            machine: machine.clone(),
            entry: entry.map(|entry| entry.name(machine)),
        })
    };
    let mut deletions = Vec::new();
    for action in observed.plan() {
        match action {
            Action::DeleteSnapshot(volume, key, tag) => {
                let entry = Entry::Snapshot(key.toolchain.clone(), tag);
                deletions.extend(cleaning(&key.machine, volume, Some(entry)));
            }
            Action::DeleteImage(volume, key) => {
                let entry = Entry::Image(key.toolchain.clone());
                deletions.extend(cleaning(&key.machine, volume, Some(entry)));
            }
            Action::FinishDeletions(volume) => {
                for (machine, state) in &observed.machines {
                    let in_use = state.view.snapshots.iter().any(|snapshot| snapshot.in_use);
                    if state.volume == volume && state.view.deleting && !in_use {
                        deletions.extend(cleaning(machine, volume, None));
                    }
                }
            }
            _ => {}
        }
    }
    deletions
}
