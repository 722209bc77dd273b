//! The resources of the host and the resource requests of machines.

use std::collections::BTreeMap;

use config::machine::Machine;
use config::settings::Settings;
use config::{MIB, ResourceCounts, ResourceName};
use planner::{Capacity, ResourceRequest};
use store::VolumeId;

/// Returns the resources of the host; `free` holds the free bytes of each volume.
pub(super) fn capacity(settings: &Settings, free: &BTreeMap<VolumeId, u64>) -> Capacity {
    let guests = &settings.guests;
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let memory = host_memory();
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
        counts: counts(&guests.resources),
        // Set by the loop, which knows since when pressure is high.
        pressure: None,
    }
}

/// Returns the resources that a guest of a machine takes.
pub(super) fn request(settings: &Settings, machine: &Machine) -> ResourceRequest {
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
        counts: counts(&machine.resources),
    }
}

fn counts(counts: &ResourceCounts) -> BTreeMap<ResourceName, u64> {
    let counts = counts.iter();
    counts
        .map(|(name, count)| (name.clone(), count.get().into()))
        .collect()
}

/// Memory of the host, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HostMemory {
    total: u64,
    available: u64,
}

/// Reads the memory of the host. A value that the kernel does not state limits nothing.
fn host_memory() -> HostMemory {
    let text = sys::trusted::read_text("/proc/meminfo").unwrap_or_default();
    parse_meminfo(&text)
}

fn parse_meminfo(text: &str) -> HostMemory {
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
    HostMemory {
        total,
        available: value("MemAvailable").unwrap_or(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_the_kernel_does_not_state_limits_nothing() {
        let text = "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:    8192000 kB\n";
        let memory = parse_meminfo(text);
        assert_eq!((memory.total, memory.available), (16_000, 8_000));
        assert!(parse_meminfo("").available > 1 << 40);
    }

    #[test]
    fn a_machines_manifest_overrides_the_settings() {
        let settings = Settings::parse("guests.per_machine_max = 7\n").unwrap();
        let text = ": 1\nid: x\nsummary: y\nram-minimum: 262144\ncpus: 2\n";
        let plain = request(&settings, &Machine::parse(text).unwrap());
        let expected = ResourceRequest {
            cpus: 2,
            memory: 256,
            disk: 256,
            machine_max: Some(7),
            counts: BTreeMap::new(),
        };
        assert_eq!(plain, expected);
        let text = format!("{text}parallel-max: 1\ndisk-growth: 1048576\nresources: license=2\n");
        let own = request(&settings, &Machine::parse(&text).unwrap());
        assert_eq!(
            own,
            ResourceRequest {
                disk: 1024,
                machine_max: Some(1),
                counts: [("license".parse().unwrap(), 2)].into(),
                ..expected
            }
        );
    }
}
