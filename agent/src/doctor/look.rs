//! Looks at everything that an examination depends on.

use std::collections::BTreeMap;
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
use store::{Holder, Volume};
use tracing::warn;

use super::{Group, Guest, Network, Recorded, Records, Seen};
use crate::blocking;
use crate::guest::{GuestError, cgroup, firmware};
use crate::guest_tag::CopyTag;
use crate::host::Host;
use crate::network;
use crate::reconcile::{self, Step};
use crate::records::Health;
use crate::session::guests_directory;

/// How long a source may wait for its build.
const SOURCE_AGE_MAX: Duration = Duration::from_hours(24);

/// Looks at the host. What runs is noted before and after everything else: what
/// begins or ends meanwhile is not taken for something that was left.
///
/// # Errors
/// When a directory of ours cannot be read.
pub async fn look(host: &Arc<Host>) -> io::Result<Seen> {
    let before = note_jobs(host);
    let ours = Arc::clone(host);
    let mut seen = blocking(move || look_around(&ours)).await?;
    for noted in [before, note_jobs(host)] {
        seen.running.extend(noted.running);
        seen.copies.extend(noted.copies);
        seen.bootstraps |= noted.bootstraps;
    }
    Ok(seen)
}

/// What runs at an instant.
struct Noted {
    running: Vec<BuildId>,
    copies: Vec<CopyTag>,
    bootstraps: bool,
}

fn note_jobs(host: &Host) -> Noted {
    host.with_jobs(|jobs| {
        let running = jobs.builds.keys().chain(jobs.held.keys());
        Noted {
            running: running.copied().collect(),
            copies: jobs.attached.keys().copied().collect(),
            bootstraps: !jobs.bootstraps.is_empty(),
        }
    })
}

fn look_around(host: &Host) -> io::Result<Seen> {
    let prefix = format!("{}-", host.settings.name);
    let guests = guests(host, &prefix)?;
    let directories = store::file::entries(&host.builds_directory())?;
    let sources = sources(&host.sources_directory())?;
    // What is recorded later than it was listed would seem to have no record.
    let health = host.records.health().unwrap_or_else(|error| Health {
        faults: vec![crate::chain(&error)],
        ..Health::default()
    });
    let used = |path: &Path| digest(path).is_some_and(|digest| health.sources.contains(&digest));
    let unused = sources
        .into_iter()
        .filter(|(path, _)| health.faults.is_empty() && !used(path));
    let unused = unused.collect();
    Ok(Seen {
        networks: networks(&prefix)?,
        groups: groups(&prefix),
        prefix,
        guests,
        records: records(host, health),
        directories,
        unused,
        sources: host.sources_directory(),
        short: short(host),
        without_firmware: without_firmware(host),
        ..Seen::default()
    })
}

fn guests(host: &Host, prefix: &str) -> io::Result<Vec<Guest>> {
    let directory = guests_directory(&host.settings.paths.run);
    let runs = store::file::entries(&directory)?.into_iter();
    let guest = |run: PathBuf| {
        let tag = run.file_name()?.to_str()?.to_owned();
        let find = || crate::guest::Guest::find(&run);
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

fn records(host: &Host, health: Health) -> Records {
    let recorded = |(id, (state, attempts)): (BuildId, _)| {
        let directory = host.build_directory(id);
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
        path: host.records.path().to_owned(),
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
    let paths = store::file::entries(directory)?;
    Ok(paths.into_iter().filter_map(old).collect())
}

/// What is wrong with a manifest is told by who starts the machine.
fn without_firmware(host: &Host) -> Vec<(MachineName, String)> {
    let Err(GuestError::NoFirmware { path, source }) = firmware(&host.settings.guests.uefi) else {
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
    let machines = host.volumes.iter().flat_map(of_volume);
    let proof = format!("{}: {source}", path.display());
    machines.map(|machine| (machine, proof.clone())).collect()
}

fn short(host: &Host) -> Vec<(PathBuf, u64)> {
    let paths = &host.settings.paths;
    let volumes = host.volumes.iter().map(Volume::path);
    let places = std::iter::once(paths.state.as_path()).chain(volumes);
    let free = |place: &Path| Some((place.to_owned(), store::space::bytes_free(place).ok()?));
    let known = places.filter_map(free);
    known
        .filter(|(_, free)| *free < paths.reserve_bytes)
        .collect()
}

/// What the reconciler deletes in its next round.
pub async fn cleaning(host: &Arc<Host>) -> Vec<Cleaning> {
    let world = match reconcile::look(host, BTreeMap::new()).await {
        Ok(world) => world,
        Err(error) => {
            warn!(
                "cannot tell what is to be cleaned: {}",
                crate::chain(&error)
            );
            return Vec::new();
        }
    };
    let going = |machine: &MachineName, volume: usize, entry: Option<Entry>| {
        Some(Cleaning {
            volume: host.volumes.get(volume)?.path().to_owned(),
            machine: machine.clone(),
            entry: entry.map(|entry| entry.name(machine)),
        })
    };
    let of = |pair: &reconcile::Pair, entry| {
        let volume = world.machines.get(&pair.machine)?.volume;
        going(&pair.machine, volume, Some(entry))
    };
    let mut cleaning = Vec::new();
    for step in world.plan() {
        match step {
            Step::DropSnapshot(pair, tag) => {
                cleaning.extend(of(&pair, Entry::Snapshot(pair.toolchain.clone(), tag)));
            }
            Step::DropImage(pair) => {
                cleaning.extend(of(&pair, Entry::Image(pair.toolchain.clone())));
            }
            Step::FinishDeletions(volume) => {
                let leaving = world.machines.iter().filter(|(_, seen)| {
                    let unused = seen.view.snapshots.iter().all(|snapshot| !snapshot.in_use);
                    seen.volume == volume && seen.view.deleting && unused
                });
                cleaning.extend(leaving.filter_map(|(machine, _)| going(machine, volume, None)));
            }
            _ => {}
        }
    }
    cleaning
}
