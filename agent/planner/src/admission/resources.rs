//! The resources of the host, their allocations, and the reasons for which a guest does
//! not get any.

use std::collections::BTreeSet;
use std::fmt;

use config::{BuildId, MachineName};
use store::VolumeId;

use crate::{Capacity, JobId, ResourceRequest};

/// The number of jobs that a reason names.
const NAMED_MAX: usize = 4;

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

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Guest slots.
    Guests,
    /// Processors.
    Cpus,
    /// Memory.
    Memory,
    /// Space in a volume.
    Disk(VolumeId),
}

/// The reason for which a guest does not start now. It reads as what the guest waits
/// for: `memory: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unschedulable {
    /// All guest slots are in use.
    Guests(usize),
    /// All guest slots of its machine are in use.
    Machine(MachineName, usize, Vec<JobId>),
    /// Too little of a resource is free.
    Short {
        /// The resource.
        what: Resource,
        /// The amount requested.
        wanted: u64,
        /// The amount that is free.
        free: u64,
        /// The amount that the host has.
        total: u64,
        /// The jobs that hold the rest.
        holders: Vec<JobId>,
    },
    /// It requests more memory than the host ever has for guests.
    Never {
        /// The memory requested, in MiB.
        wanted: u64,
        /// The memory for guests, in MiB.
        total: u64,
    },
    /// Other programs use the memory.
    Taken {
        /// The memory requested, in MiB.
        wanted: u64,
        /// The memory available, in MiB.
        available: u64,
    },
    /// The resource is reserved for a build that has waited too long.
    Reserved(BuildId, Resource),
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
            Unschedulable::Short { what, .. } => *what,
            Unschedulable::Taken { .. } => Resource::Memory,
            // A reservation would not let the build start earlier.
            Unschedulable::Machine(..)
            | Unschedulable::Never { .. }
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
        if request.memory > self.capacity.memory {
            return Some(Unschedulable::Never {
                wanted: request.memory,
                total: self.capacity.memory,
            });
        }
        self.check_slots(machine, request)
            .or_else(|| self.check_reservations(volume))
            .or_else(|| self.check_amounts(volume, request))
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

    fn check_reservations(&self, volume: VolumeId) -> Option<Unschedulable> {
        let applies = |resource: Resource| match resource {
            Resource::Disk(other) => other == volume,
            Resource::Guests | Resource::Cpus | Resource::Memory => true,
        };
        let (id, resource) = self.reservations.iter().find(|it| applies(it.1))?;
        Some(Unschedulable::Reserved(*id, *resource))
    }

    fn check_amounts(&self, volume: VolumeId, request: &ResourceRequest) -> Option<Unschedulable> {
        let wanted = [
            (Resource::Cpus, request.cpus, self.capacity.cpus),
            (Resource::Memory, request.memory, self.capacity.memory),
        ];
        for (what, wanted, total) in wanted {
            let free = total.saturating_sub(self.allocated(what));
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
        let what = Resource::Disk(volume);
        let total = *self.capacity.disk.get(&volume)?;
        let free = total.saturating_sub(self.allocated(what));
        (request.disk > free).then(|| self.short(what, request.disk, free, total))
    }

    fn short(&self, what: Resource, wanted: u64, free: u64, total: u64) -> Unschedulable {
        let holders = self.allocations.iter().filter(|it| it.amount(what) > 0);
        Unschedulable::Short {
            what,
            wanted,
            free,
            total,
            holders: holders.map(|it| it.job.clone()).collect(),
        }
    }

    /// Returns the allocated amount of a resource.
    pub fn allocated(&self, what: Resource) -> u64 {
        self.allocations.iter().map(|it| it.amount(what)).sum()
    }
}

impl Unschedulable {
    /// Returns true if a job on `machine` could take what this guest waits for.
    pub(crate) fn competes_with(&self, machine: &MachineName) -> bool {
        match self {
            Self::Machine(own, ..) => own == machine,
            Self::Never { .. } => false,
            Self::Guests(_) | Self::Short { .. } | Self::Taken { .. } | Self::Reserved(..) => true,
        }
    }
}

impl Allocation {
    fn amount(&self, what: Resource) -> u64 {
        match what {
            Resource::Guests => 1,
            Resource::Cpus => self.request.cpus,
            Resource::Memory => self.request.memory,
            Resource::Disk(volume) if volume == self.volume => self.request.disk,
            Resource::Disk(_) => 0,
        }
    }
}

/// Converts a number of processors or MiB, which an `f64` holds exactly.
fn number(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guests => "a guest",
            Self::Cpus => "processors",
            Self::Memory => "memory",
            Self::Disk(_) => "space on its volume",
        })
    }
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guests(run) => write!(f, "a guest: {run} of {run} run"),
            Self::Machine(machine, most, holders) => {
                let (hold, verb) = (listed(holders), if *most == 1 { "runs" } else { "run" });
                write!(
                    f,
                    "a guest of machine {machine}, which may have {most} at once: {hold} {verb} on it"
                )
            }
            Self::Short {
                what,
                wanted,
                free,
                total,
                holders,
            } => {
                let unit = if *what == Resource::Cpus { "" } else { " MiB" };
                write!(f, "{what}: {wanted}{unit} wanted, {free} of {total} free")?;
                match holders.as_slice() {
                    [] => Ok(()),
                    [one] => write!(f, "; {} holds the rest", listed(std::slice::from_ref(one))),
                    all => write!(f, "; {} hold the rest", listed(all)),
                }
            }
            Self::Never { wanted, total } => write!(
                f,
                "more memory than this host gives to guests: {wanted} MiB wanted, {total} in all; lower the machine's `ram-minimum` or the build's request, or raise the setting guests.memory_mib"
            ),
            Self::Taken { wanted, available } => write!(
                f,
                "memory: {wanted} MiB wanted, {available} available beyond the host's reserve; other programs hold the rest"
            ),
            Self::Reserved(id, what) => write!(
                f,
                "build {id}, which has waited long for {what} that is kept for it"
            ),
        }
    }
}

/// Returns the names of jobs as a list: `builds 9 and 10`, `build 9 and the bootstrap of x`.
pub(crate) fn listed(holders: &[JobId]) -> String {
    let mut builds = Vec::new();
    let mut others = Vec::new();
    for holder in holders {
        match holder {
            JobId::Build(id) => builds.push(id.to_string()),
            JobId::Bootstrap(key) => others.push(format!("the bootstrap of {}", key.machine)),
            JobId::Copy(copy) => others.push(format!("a copy of build {}", copy.build)),
        }
    }
    if builds.len() > NAMED_MAX {
        let more = builds.len() - NAMED_MAX;
        builds.truncate(NAMED_MAX);
        builds.push(format!("{more} more"));
    }
    if !builds.is_empty() {
        let word = if builds.len() == 1 { "build" } else { "builds" };
        others.insert(0, format!("{word} {}", config::join_and(&builds)));
    }
    config::join_and(&others)
}
