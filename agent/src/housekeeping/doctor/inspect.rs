//! The inspection of the host, which gives the inventory.

mod caches;
mod controllers;
mod settings;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::builds::Readiness;
use config::doctor::Cleaning;
use config::feeds::FeedStatus;
use config::layout::Entry;
use config::machine::Firmware;
use config::pressure::Pressure;
use config::schedule::{Page, Schedule};
use config::task::{Digest, RESULT};
use config::{BuildId, MachineName, ScheduleName, ToolchainName};
use guest::network;
use guest::{GuestError, cgroup, check_firmware};
use jiff::Timestamp;
use planner::Action;
use records::Integrity;
use session::guests_directory;
use store::{Holder, Volume, VolumeId};
use sys::blocking::blocking;
use tracing::warn;

use super::inventory::network_tag;
use super::{Group, Guest, Inventory, Network, Recorded, Records};
use crate::scheduler::{self, pressure};
use crate::triggers;
use state::AgentState;

/// The time for which a refused package is reported, in hours.
const REFUSED_HOURS: i64 = 7 * 24;

/// The age from which an unused source is reported.
const SOURCE_AGE_MAX: Duration = Duration::from_hours(24);

/// Returns the inventory of the host. The running jobs are read before and after everything
/// else, so that jobs that start or end meanwhile are not reported as leftovers.
///
/// # Errors
/// A directory of the agent cannot be read.
pub async fn inspect(agent: &Arc<AgentState>) -> io::Result<Inventory> {
    // Damaged records are a finding of their own.
    let schedules = agent.records.schedules(Page::default()).await;
    let schedules = schedules.unwrap_or_default();
    let mut inventory = with_jobs(agent, move |agent| read(agent, schedules)).await?;
    // Damaged records are a finding of their own.
    let counts = agent.records.lease_counts().await.unwrap_or_default();
    inventory.unnamed_controllers = controllers::unnamed(agent, &counts);
    let notified = agent
        .records
        .notification_counts()
        .await
        .unwrap_or_default();
    inventory.lost_notifications = notified
        .into_iter()
        .filter(|it| it.given_up > 0 && !it.failure.is_empty())
        .map(|it| (it.rule, it.given_up, it.failure))
        .collect();
    inventory.feeds = feeds(agent).await;
    Ok(inventory)
}

/// Returns the part of the inventory that reads neither the records of builds nor images.
///
/// # Errors
/// A directory of the agent cannot be read.
pub(super) async fn inspect_running(agent: &Arc<AgentState>) -> io::Result<Inventory> {
    let mut inventory = with_jobs(agent, read_running).await?;
    inventory.feeds = feeds(agent).await;
    Ok(inventory)
}

/// Reads an inventory, and adds the running jobs.
async fn with_jobs(
    agent: &Arc<AgentState>,
    read: impl FnOnce(&AgentState) -> io::Result<Inventory> + Send + 'static,
) -> io::Result<Inventory> {
    let before = agent.jobs.running();
    let ready_before = agent.ready.images();
    let shared = Arc::clone(agent);
    let mut inventory = blocking(move || read(&shared)).await?;
    for jobs in [before, agent.jobs.running()] {
        inventory
            .running
            .extend(jobs.builds.keys().chain(jobs.holds.keys()));
        inventory.copies.extend(jobs.debug_sessions.keys());
        inventory.bootstraps |= !jobs.images.is_empty();
    }
    let ready = ready_before
        .into_keys()
        .chain(agent.ready.images().into_keys());
    inventory.ready.extend(ready);
    Ok(inventory)
}

/// Reads the leftovers of guests, and the resources of the host. Blocks.
fn read_running(agent: &AgentState) -> io::Result<Inventory> {
    let prefix = format!("{}-", agent.settings().name);
    Ok(Inventory {
        guests: guests(agent, &prefix)?,
        networks: networks(&prefix)?,
        groups: groups(&prefix),
        prefix,
        short: short(agent),
        pressure_directory: agent.settings().paths.pressure.clone(),
        high_pressure: high_pressure(agent),
        controllers: controllers::facts(agent),
        ..Inventory::default()
    })
}

/// Returns the feeds, with the packages that were refused recently.
async fn feeds(agent: &AgentState) -> Vec<FeedStatus> {
    let now = Timestamp::now();
    let mut feeds = triggers::feeds::describe(agent).await.unwrap_or_default();
    for repository in feeds.iter_mut().flat_map(|feed| &mut feed.repositories) {
        let is_recent = |at| now.duration_since(at).as_hours() < REFUSED_HOURS;
        repository.refused.retain(|refused| is_recent(refused.at));
    }
    feeds
}

/// Reads everything but the running jobs and the schedules. Blocks.
fn read(agent: &AgentState, schedules: Vec<Schedule>) -> io::Result<Inventory> {
    let running = read_running(agent)?;
    let directories = sys::file::entries(&agent.paths.builds())?;
    let sources = sources(&agent.paths.sources())?;
    // Read after the listings: a new directory must not seem to lack its record.
    let integrity = agent
        .records
        .check_integrity()
        .unwrap_or_else(|error| Integrity {
            faults: vec![sys::error_report::chain(&error)],
            ..Integrity::default()
        });
    let used = |path: &Path| digest(path).is_some_and(|digest| integrity.sources.contains(&digest));
    // A record that cannot be read may name any source.
    let is_known = integrity.faults.is_empty()
        && integrity.unreadable.is_empty()
        && integrity.unreadable_schedules.is_empty();
    let unused = sources
        .into_iter()
        .filter(|(path, _)| is_known && !used(path));
    let unused = unused.collect();
    Ok(Inventory {
        records: records(agent, integrity),
        directories,
        unused,
        sources: agent.paths.sources(),
        open: open_directories(agent),
        unreported_pressure: unreported_pressure(agent),
        without_firmware: without_firmware(agent),
        failed_bootstraps: bootstraps_with(agent, |image| &image.bootstrap_error),
        waiting_bootstraps: bootstraps_with(agent, |image| &image.bootstrap_wait),
        schedules: without_machine(agent, schedules),
        caches: caches::facts(agent),
        unnamed_caches: agent.caches.unnamed(),
        catalog: agent.paths.layers(),
        // Each use of a catalog that cannot be opened fails with the reason.
        unreadable_catalog: agent.catalog.unreadable().unwrap_or_default(),
        hashserv_unmatched: caches::unmatched_of_hashserv(agent),
        open_secrets: settings::open_secrets(agent),
        undeclared: settings::undeclared(agent),
        machined_fault: agent.machined_fault.lock().clone(),
        ..running
    })
}

fn guests(agent: &AgentState, prefix: &str) -> io::Result<Vec<Guest>> {
    let directory = guests_directory(&agent.settings().paths.run);
    let runs = sys::file::entries(&directory)?.into_iter();
    let guest = |run: PathBuf| {
        let tag = run.file_name()?.to_str()?.to_owned();
        let find = || guest::Guest::find(&run);
        let pid = || Some(find().ok()??.pid());
        let found = pid();
        // A guest that has just ended needs no network.
        let network = format!("{prefix}{}", network_tag(&tag));
        let network = network::Network::open(&network).is_ok() || pid() != found;
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
        // An incomplete network has no processes.
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
    let name = sys::trusted::read_text(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

fn groups(prefix: &str) -> Vec<Group> {
    let group = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let inside = sys::trusted::read_text(path.join("cgroup.procs")).ok()?;
        name.starts_with(prefix).then_some(Group {
            busy: !inside.is_empty(),
            name,
            path,
        })
    };
    cgroup::groups().into_iter().filter_map(group).collect()
}

fn records(agent: &AgentState, integrity: Integrity) -> Records {
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
        faults: integrity.faults,
        unreadable: integrity.unreadable,
        unreadable_schedules: integrity.unreadable_schedules,
        builds: integrity.builds.into_iter().map(recorded).collect(),
    }
}

fn digest(path: &Path) -> Option<Digest> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Returns old sources, and incomplete uploads of a killed agent.
fn sources(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let now = SystemTime::now();
    let old = |path: PathBuf| {
        let is_upload = path.file_name()?.to_str()?.starts_with(".tmp");
        let data = fs::symlink_metadata(&path).ok()?;
        let age = now.duration_since(data.modified().ok()?).ok()?;
        let is_source = data.is_file() && (is_upload || digest(&path).is_some());
        (is_source && age > SOURCE_AGE_MAX).then_some((path, data.len()))
    };
    let paths = sys::file::entries(directory)?;
    Ok(paths.into_iter().filter_map(old).collect())
}

/// Returns the machines and toolchains for which `text` says something about the bootstrap,
/// with that text.
fn bootstraps_with(
    agent: &AgentState,
    text: fn(&Readiness) -> &String,
) -> Vec<(MachineName, ToolchainName, String)> {
    let readiness = agent.status().map(|status| status.machines);
    readiness
        .into_iter()
        .flatten()
        .filter(|image| !text(image).is_empty())
        .map(|image| {
            let text = text(&image).clone();
            (image.machine, image.toolchain, text)
        })
        .collect()
}

/// Returns the machines whose firmware is missing. The start of a guest reports invalid
/// manifests.
fn without_firmware(agent: &AgentState) -> Vec<(MachineName, String)> {
    let Err(GuestError::NoFirmware { path, source }) =
        check_firmware(&agent.settings().guests.uefi)
    else {
        return Vec::new();
    };
    let wants = |volume: &Volume, machine: &MachineName| {
        let manifest = store::machine_manifest(&volume.entry(machine, &Entry::Current));
        Some(manifest.ok()?.firmware == Firmware::Uefi)
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

/// Returns the schedules whose machines do not exist in any volume.
fn without_machine(
    agent: &AgentState,
    schedules: Vec<Schedule>,
) -> Vec<(ScheduleName, MachineName)> {
    let mut lacking: Vec<_> = schedules
        .into_iter()
        .map(|it| (it.name, it.build.machine))
        .collect();
    lacking.retain(|(_, machine)| matches!(agent.volumes.of_machine(machine), Ok(None)));
    lacking
}

/// Returns the directories of the agent that other users may enter. The group of the setting
/// `http.group` may pass through the run directory.
pub(in crate::housekeeping) fn open_directories(agent: &AgentState) -> Vec<(PathBuf, u32)> {
    let paths = &agent.settings().paths;
    let group = if agent.settings().http.group.is_some() {
        0o010
    } else {
        0
    };
    let directories = [(&paths.state, 0o077), (&paths.run, 0o077 & !group)];
    let open = |(path, refused): (&PathBuf, u32)| {
        let mode = fs::metadata(path).ok()?.mode();
        (mode & refused != 0).then(|| (path.clone(), mode & 0o7777))
    };
    directories.into_iter().filter_map(open).collect()
}

fn short(agent: &AgentState) -> Vec<(PathBuf, u64)> {
    let paths = &agent.settings().paths;
    let volumes = agent.volumes.iter().map(Volume::path);
    let places = std::iter::once(paths.state.as_path()).chain(volumes);
    let free = |place: &Path| Some((place.to_owned(), store::space::bytes_free(place).ok()?));
    let known = places.filter_map(free);
    known
        .filter(|(_, free)| *free < paths.reserve_bytes)
        .collect()
}

/// Returns the pressure that the scheduler last found to be high.
fn high_pressure(agent: &AgentState) -> Vec<Pressure> {
    let pressure = agent.status().map(|status| status.pressure);
    let mut high = pressure.unwrap_or_default();
    high.retain(|it| it.high_since.is_some());
    high
}

fn unreported_pressure(agent: &AgentState) -> Vec<&'static str> {
    let settings = &agent.settings();
    let readings = pressure::read(&settings.paths.pressure);
    pressure::unreported(&readings, &settings.guests.pressure)
}

/// Returns the deletions of the scheduler's next round.
pub async fn planned_deletions(agent: &Arc<AgentState>) -> Vec<Cleaning> {
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
            Action::DeleteTrialImage(volume, key, revision) => {
                let entry = Entry::TrialImage(revision, key.toolchain.clone());
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
