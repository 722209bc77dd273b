//! The resources of the host and of its guests, as plain numbers.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use config::ResourceName;
use config::builds::Resources;
use store::VolumeId;

use crate::pressure::HighPressure;

/// The resources that a guest takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceRequest {
    /// The number of processors.
    pub cpus: u64,
    /// Memory, in MiB.
    pub memory: u64,
    /// The growth of its snapshot, in MiB.
    pub disk: u64,
    /// The number of guests that its machine may have at once; `None` for no limit.
    pub machine_max: Option<usize>,
    /// Countable resources of the host.
    pub counts: BTreeMap<ResourceName, u64>,
}

impl ResourceRequest {
    /// Returns the request of a guest whose build asks for these resources on a machine with this
    /// request. It gets the larger number of each countable resource.
    #[must_use]
    pub fn with(mut self, resources: &Resources) -> Self {
        let number = |number: NonZeroU32| u64::from(number.get());
        for (name, count) in resources.counts.iter() {
            let own = self.counts.entry(name.clone()).or_default();
            *own = number(count).max(*own);
        }
        Self {
            cpus: resources.cpus.map_or(self.cpus, number),
            memory: resources.memory_mib.map_or(self.memory, number),
            ..self
        }
    }

    /// Returns the request of this guest and another one together, which have no machine in common.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (name, count) in &other.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        Self {
            cpus: self.cpus + other.cpus,
            memory: self.memory + other.memory,
            disk: self.disk + other.disk,
            machine_max: None,
            ..self
        }
    }

    /// Returns the request that is enough for this guest and for another one of its machine.
    #[must_use]
    pub fn at_least(mut self, other: Self) -> Self {
        for (name, count) in other.counts {
            let own = self.counts.entry(name).or_default();
            *own = count.max(*own);
        }
        Self {
            cpus: self.cpus.max(other.cpus),
            memory: self.memory.max(other.memory),
            disk: self.disk.max(other.disk),
            ..self
        }
    }
}

/// The resources that the host has for guests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// The number of guests that may run at once; `None` for no limit of its own.
    pub guests: Option<usize>,
    /// The number of processors, overcommitment included.
    pub cpus: u64,
    /// Memory for all guests together, in MiB.
    pub memory: u64,
    /// Memory that is available now beyond the host's reserve, in MiB.
    pub available: u64,
    /// Free space of each volume beyond its reserve, in MiB.
    pub disk: BTreeMap<VolumeId, u64>,
    /// Countable resources.
    pub counts: BTreeMap<ResourceName, u64>,
    /// The pressure for which no guest starts beside another one.
    pub pressure: Option<HighPressure>,
}
