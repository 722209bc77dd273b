//! Looks: what the host can give to guests, and what each machine's guests take.

use std::collections::BTreeMap;
use std::path::Path;

use config::layout::Entry;
use config::machine::{self, Machine};
use config::settings::Settings;
use config::task::Digest;
use config::{MachineName, ToolchainName};
use store::MachineView;

use super::admission::{Capacity, ResourceRequest};
use super::plan::{ImageKey, MachineState};
use crate::state::agent_state::AgentState;

const MIB: u64 = 1024 * 1024;

/// What the host can give now; `free` is what is free in each volume, in bytes.
pub(super) fn capacity(settings: &Settings, free: &BTreeMap<usize, u64>) -> Capacity {
    let guests = &settings.guests;
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let memory = memory();
    let own = guests.memory_reserve_bytes / MIB;
    let reserve = settings.paths.reserve_bytes;
    let disk = free
        .iter()
        .map(|(volume, bytes)| (*volume, bytes.saturating_sub(reserve) / MIB));
    Capacity {
        guests: guests.parallel_max,
        cpus: (processors * guests.cpu_percent / 100).max(1),
        memory: guests
            .memory_bytes
            .map_or(memory.total.saturating_sub(own), |bytes| bytes / MIB),
        available: memory.available.saturating_sub(own),
        disk: disk.collect(),
    }
}

/// Memory of the host, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    total: u64,
    available: u64,
}

/// What the kernel says. Where it says nothing, memory limits nobody.
fn memory() -> Memory {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    read_memory(&text)
}

fn read_memory(text: &str) -> Memory {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line
            .trim_start_matches(':')
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()?;
        Some(kibibytes / 1024)
    };
    let total = value("MemTotal").unwrap_or(u64::MAX / MIB);
    Memory {
        total,
        available: value("MemAvailable").unwrap_or(total),
    }
}

/// What the guests of each machine with each toolchain take.
pub(super) fn demands(
    agent: &AgentState,
    machines: &BTreeMap<MachineName, MachineState>,
    toolchains: &BTreeMap<ToolchainName, Digest>,
) -> BTreeMap<ImageKey, ResourceRequest> {
    let pair = |(machine, toolchain): (&MachineName, &ToolchainName)| ImageKey {
        machine: machine.clone(),
        toolchain: toolchain.clone(),
    };
    let names = machines.keys();
    let pairs = names.flat_map(|machine| std::iter::repeat(machine).zip(toolchains.keys()));
    let demand = |pair: ImageKey| {
        let seen = machines.get(&pair.machine)?;
        let directory = agent.volumes.get(seen.volume)?.directory(&pair.machine);
        let demand = demand(&agent.settings, &directory, &seen.view, &pair)?;
        Some((pair, demand))
    };
    pairs.map(pair).filter_map(demand).collect()
}

/// What the manifest in the image says, or that in the current revision.
fn demand(
    settings: &Settings,
    directory: &Path,
    view: &MachineView,
    pair: &ImageKey,
) -> Option<ResourceRequest> {
    let image = view.image(&pair.toolchain);
    let image = image.map(|image| Entry::Image(image.toolchain.clone()));
    let entry = image.or_else(|| view.current.map(Entry::Revision))?;
    let path = directory.join(entry.name(&view.name)).join(machine::FILE);
    let text = std::fs::read_to_string(path).ok()?;
    // Whoever starts a guest of it tells what is wrong with a manifest.
    Machine::parse(&text)
        .ok()
        .map(|machine| of(settings, &machine))
}

fn of(settings: &Settings, machine: &Machine) -> ResourceRequest {
    let guests = &settings.guests;
    let own = machine
        .parallel_max
        .map(|most| usize::try_from(most.get()).unwrap_or(usize::MAX));
    let growth = machine
        .disk_growth_kib
        .map(|kibibytes| kibibytes.get().div_ceil(1024));
    ResourceRequest {
        cpus: machine.cpus.get().into(),
        memory: machine.memory_kib.get().div_ceil(1024),
        disk: growth.unwrap_or(guests.disk_growth_bytes / MIB),
        machine_max: own.or(guests.per_machine_max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read_and_missing_ones_limit_nobody() {
        let text = "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:    8192000 kB\n";
        let memory = read_memory(text);
        assert_eq!((memory.total, memory.available), (16_000, 8_000));
        assert!(read_memory("").available > 1 << 40);
    }

    #[test]
    fn a_machines_own_words_count_before_the_settings() {
        let settings = Settings::parse("guests.per_machine_max = 7\n").unwrap();
        let text = ": 1\nid: x\nsummary: y\nram-minimum: 262144\ncpus: 2\n";
        let plain = of(&settings, &Machine::parse(text).unwrap());
        let expected = ResourceRequest {
            cpus: 2,
            memory: 256,
            disk: 256,
            machine_max: Some(7),
        };
        assert_eq!(plain, expected);
        let text = format!("{text}parallel-max: 1\ndisk-growth: 1048576\n");
        let own = of(&settings, &Machine::parse(&text).unwrap());
        assert_eq!(
            own,
            ResourceRequest {
                disk: 1024,
                machine_max: Some(1),
                ..expected
            }
        );
    }
}
