//! The resources of the host and their allocations.

use std::collections::{BTreeMap, BTreeSet};

use config::{BuildId, Load, MachineName, ResourceName};
use store::VolumeId;

use super::unschedulable::{Resource, Unschedulable};
use crate::{Capacity, JobId, ResourceRequest};

/// The resources that a job has been given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The job.
    pub job: JobId,
    /// Its machine.
    pub machine: MachineName,
    /// The volume of its snapshot.
    pub volume: VolumeId,
    /// The resources.
    pub request: ResourceRequest,
}

/// The resources of the host, with allocations and reservations.
#[derive(Debug, Clone, Default)]
pub struct ResourcePool {
    capacity: Capacity,
    allocations: Vec<Allocation>,
    reservations: Vec<(BuildId, Resource)>,
    /// The memory of new allocations, which the available memory does not show yet.
    new_memory: u64,
}

impl ResourcePool {
    /// Returns the pool of a host on which these jobs run.
    pub fn new(capacity: Capacity, allocations: Vec<Allocation>) -> Self {
        Self {
            capacity,
            allocations,
            ..Self::default()
        }
    }

    /// The resources of the host.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// The allocations.
    pub fn allocations(&self) -> &[Allocation] {
        &self.allocations
    }

    /// Returns the pool as it is once these jobs have ended.
    #[must_use]
    pub fn without(&self, ended: &BTreeSet<JobId>) -> Self {
        let mut pool = self.clone();
        let freed = pool
            .allocations
            .extract_if(.., |it| ended.contains(&it.job))
            .map(|it| it.request.memory)
            .sum();
        pool.capacity.available = pool.capacity.available.saturating_add(freed);
        pool
    }

    /// Adds an allocation.
    pub fn allocate(&mut self, allocation: Allocation) {
        self.new_memory += allocation.request.memory;
        self.allocations.push(allocation);
    }

    /// Reserves the resource that a build lacks, so that later ones do not take it.
    pub fn reserve_for(&mut self, id: BuildId, unschedulable: &Unschedulable) {
        let resource = match unschedulable {
            Unschedulable::Guests(_) => Resource::Guests,
            Unschedulable::Short { what, .. } => what.clone(),
            Unschedulable::Taken { .. } => Resource::Memory,
            // A reservation would not let the build start earlier.
            Unschedulable::Machine(..)
            | Unschedulable::Never { .. }
            | Unschedulable::NeverCount { .. }
            | Unschedulable::Pressure(..)
            | Unschedulable::Reserved(..) => return,
        };
        self.reservations.push((id, resource));
    }

    /// Returns the fraction of the host that a guest takes: its dominant share.
    pub fn weight(&self, request: &ResourceRequest) -> f64 {
        let part = |wanted: u64, total: u64| number(wanted) / number(total.max(1));
        let cpus = part(request.cpus, self.capacity.cpus);
        cpus.max(part(request.memory, self.capacity.memory))
            .clamp(0.001, 1.0)
    }

    /// Returns the reason for which a guest cannot start now, if there is one.
    pub fn check(
        &self,
        machine: &MachineName,
        volume: VolumeId,
        request: &ResourceRequest,
    ) -> Option<Unschedulable> {
        self.check_totals(request)
            .or_else(|| self.check_slots(machine, request))
            .or_else(|| self.check_pressure())
            .or_else(|| self.check_reservations(volume, request))
            .or_else(|| self.check_amounts(volume, request))
    }

    /// Returns the reason for which these guests cannot start now together, if there is one.
    pub fn check_together(&self, guests: &[Allocation]) -> Option<Unschedulable> {
        let [first, others @ ..] = guests else {
            return None;
        };
        if others.is_empty() {
            return self.check(&first.machine, first.volume, &first.request);
        }
        let of_volume = |volume| {
            let on_volume = guests.iter().filter(|it| it.volume == volume);
            let disk = on_volume.map(|it| it.request.disk).sum();
            let first = first.request.clone();
            let sum = others.iter().fold(first, |sum, it| sum.plus(&it.request));
            ResourceRequest { disk, ..sum }
        };
        self.check_totals(&of_volume(first.volume))
            .or_else(|| self.check_slots_together(guests))
            .or_else(|| self.check_pressure())
            .or_else(|| {
                let mut guests = guests.iter();
                guests.find_map(|it| self.check_reservations(it.volume, &it.request))
            })
            .or_else(|| {
                let volumes: BTreeSet<_> = guests.iter().map(|it| it.volume).collect();
                let mut volumes = volumes.into_iter();
                volumes.find_map(|volume| self.check_amounts(volume, &of_volume(volume)))
            })
    }

    /// Returns the reason for which these guests have no slots, if there is one.
    fn check_slots_together(&self, guests: &[Allocation]) -> Option<Unschedulable> {
        let (mut pool, mut guests) = (self.clone(), guests.iter());
        guests.find_map(|guest| {
            let reason = pool.check_slots(&guest.machine, &guest.request);
            pool.allocate(guest.clone());
            reason
        })
    }

    /// Returns the memory that guests could take now, in MiB.
    pub fn free_memory(&self) -> u64 {
        let free = self
            .capacity
            .memory
            .saturating_sub(self.allocated(&Resource::Memory));
        free.min(self.capacity.available.saturating_sub(self.new_memory))
    }

    /// Returns the reason for which a guest can never start on this host, if there is one.
    fn check_totals(&self, request: &ResourceRequest) -> Option<Unschedulable> {
        let (wanted, total) = (request.memory, self.capacity.memory);
        if wanted > total {
            return Some(Unschedulable::Never { wanted, total });
        }
        request.counts.iter().find_map(|(name, wanted)| {
            let (name, wanted, total) = (name.clone(), *wanted, self.total(name));
            (wanted > total).then_some(Unschedulable::NeverCount {
                name,
                wanted,
                total,
            })
        })
    }

    /// Returns the number of a countable resource that the host has.
    fn total(&self, name: &ResourceName) -> u64 {
        self.capacity.counts.get(name).copied().unwrap_or_default()
    }

    /// Returns the allocated processors, and the allocated memory in MiB.
    pub fn allocated_amounts(&self) -> (u64, u64) {
        let (cpus, memory) = (Resource::Cpus, Resource::Memory);
        (self.allocated(&cpus), self.allocated(&memory))
    }

    /// Returns the use of each countable resource.
    pub fn loads(&self) -> BTreeMap<ResourceName, Load> {
        let names = self.capacity.counts.iter();
        let load = |(name, total): (&ResourceName, &u64)| {
            let load = Load {
                taken: self.allocated(&Resource::Count(name.clone())),
                total: Some(*total),
            };
            (name.clone(), load)
        };
        names.map(load).collect()
    }

    fn check_slots(
        &self,
        machine: &MachineName,
        request: &ResourceRequest,
    ) -> Option<Unschedulable> {
        let running = self.allocations.len();
        if self.capacity.guests.is_some_and(|most| running >= most) {
            return Some(Unschedulable::Guests(running));
        }
        let most = request.machine_max?;
        let holders: Vec<_> = self
            .allocations
            .iter()
            .filter(|it| it.machine == *machine)
            .map(|it| it.job.clone())
            .collect();
        (holders.len() >= most).then(|| Unschedulable::Machine(machine.clone(), most, holders))
    }

    /// One guest may always run: the pressure of other programs must not stop all builds.
    fn check_pressure(&self) -> Option<Unschedulable> {
        let pressure = self.capacity.pressure?;
        let jobs: Vec<_> = self.allocations.iter().map(|it| it.job.clone()).collect();
        (!jobs.is_empty()).then_some(Unschedulable::Pressure(pressure, jobs))
    }

    fn check_reservations(
        &self,
        volume: VolumeId,
        request: &ResourceRequest,
    ) -> Option<Unschedulable> {
        let applies = |resource: &Resource| match resource {
            Resource::Disk(other) => *other == volume,
            Resource::Count(name) => request.counts.contains_key(name),
            Resource::Guests | Resource::Cpus | Resource::Memory => true,
        };
        let (id, resource) = self.reservations.iter().find(|it| applies(&it.1))?;
        Some(Unschedulable::Reserved(*id, resource.clone()))
    }

    fn check_amounts(&self, volume: VolumeId, request: &ResourceRequest) -> Option<Unschedulable> {
        let wanted = [
            (Resource::Cpus, request.cpus, self.capacity.cpus),
            (Resource::Memory, request.memory, self.capacity.memory),
        ];
        for (what, wanted, total) in wanted {
            let free = total.saturating_sub(self.allocated(&what));
            // A machine with more processors than its host runs alone.
            let alone = what == Resource::Cpus && self.allocations.is_empty();
            if wanted > free && !alone {
                return Some(self.short(what, wanted, free, total));
            }
        }
        let available = self.capacity.available.saturating_sub(self.new_memory);
        if request.memory > available {
            let wanted = request.memory;
            return Some(Unschedulable::Taken { wanted, available });
        }
        let disk = self.capacity.disk.get(&volume);
        let disk = disk.map(|total| (Resource::Disk(volume), request.disk, *total));
        let counts = request.counts.iter().map(|(name, wanted)| {
            let total = self.total(name);
            (Resource::Count(name.clone()), *wanted, total)
        });
        disk.into_iter()
            .chain(counts)
            .find_map(|(what, wanted, total)| {
                let free = total.saturating_sub(self.allocated(&what));
                (wanted > free).then(|| self.short(what, wanted, free, total))
            })
    }

    fn short(&self, what: Resource, wanted: u64, free: u64, total: u64) -> Unschedulable {
        let holders = self.allocations.iter().filter(|it| it.amount(&what) > 0);
        Unschedulable::Short {
            wanted,
            free,
            total,
            holders: holders.map(|it| it.job.clone()).collect(),
            what,
        }
    }

    /// Returns the allocated amount of a resource.
    pub fn allocated(&self, what: &Resource) -> u64 {
        self.allocations.iter().map(|it| it.amount(what)).sum()
    }
}

impl Allocation {
    fn amount(&self, what: &Resource) -> u64 {
        match what {
            Resource::Guests => 1,
            Resource::Cpus => self.request.cpus,
            Resource::Memory => self.request.memory,
            Resource::Disk(volume) if *volume == self.volume => self.request.disk,
            Resource::Disk(_) => 0,
            Resource::Count(name) => self.request.counts.get(name).copied().unwrap_or_default(),
        }
    }
}

/// Converts a number of processors or MiB, which an `f64` holds exactly.
fn number(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
