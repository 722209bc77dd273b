//! The kinds of resources, and the reasons for which a guest does not get any.

use std::fmt;

use config::{BuildId, MachineName, ResourceName};
use store::VolumeId;

use crate::pressure::HighPressure;
use crate::{JobId, ResourceRequest};

/// The number of jobs that a reason names.
const NAMED_MAX: usize = 4;

/// A kind of resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// Guest slots.
    Guests,
    /// Processors.
    Cpus,
    /// Memory.
    Memory,
    /// Space in a volume.
    Disk(VolumeId),
    /// A countable resource.
    Count(ResourceName),
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
    /// It requests more of a countable resource than the host ever has.
    NeverCount {
        /// The resource.
        name: ResourceName,
        /// The number requested.
        wanted: u64,
        /// The number that the settings declare; 0 if they do not.
        total: u64,
    },
    /// Other programs use the memory.
    Taken {
        /// The memory requested, in MiB.
        wanted: u64,
        /// The memory available, in MiB.
        available: u64,
    },
    /// The host is under pressure, and these jobs have guests.
    Pressure(HighPressure, Vec<JobId>),
    /// The resource is reserved for a build that has waited too long.
    Reserved(BuildId, Resource),
}

impl Unschedulable {
    /// Returns true if the guest lacks a countable resource.
    pub(crate) fn is_for_count(&self) -> bool {
        matches!(
            self,
            Self::NeverCount { .. }
                | Self::Short {
                    what: Resource::Count(_),
                    ..
                }
        )
    }

    /// Returns true if no end of another job lets the guest start.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Never { .. } | Self::NeverCount { .. })
    }

    /// Returns true if a job on `machine` with this request could take what this guest waits for.
    pub(crate) fn competes_with(&self, machine: &MachineName, request: &ResourceRequest) -> bool {
        match self {
            Self::Machine(own, ..) => own == machine,
            Self::Never { .. } | Self::NeverCount { .. } => false,
            Self::Short {
                what: Resource::Count(name),
                ..
            }
            | Self::Reserved(_, Resource::Count(name)) => request.counts.contains_key(name),
            Self::Guests(_)
            | Self::Short { .. }
            | Self::Taken { .. }
            | Self::Pressure(..)
            | Self::Reserved(..) => true,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count(name) => return write!(f, "resource {name}"),
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
                let unit = match what {
                    Resource::Guests | Resource::Cpus | Resource::Count(_) => "",
                    Resource::Memory | Resource::Disk(_) => " MiB",
                };
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
            Self::NeverCount { name, total: 0, .. } => write!(
                f,
                "resource {name}, which this host does not have; the setting guests.resources declares it"
            ),
            Self::NeverCount {
                name,
                wanted,
                total,
            } => write!(
                f,
                "more of resource {name} than this host has: {wanted} wanted, {total} in all; lower the request, or raise its count in the setting guests.resources"
            ),
            Self::Taken { wanted, available } => write!(
                f,
                "memory: {wanted} MiB wanted, {available} available beyond the host's reserve; other programs hold the rest"
            ),
            Self::Pressure(pressure, jobs) => {
                let verb = if jobs.len() == 1 { "has" } else { "have" };
                write!(f, "{pressure}; {} {verb} a guest", listed(jobs))
            }
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
            JobId::Fork(id) => others.push(format!("the fork of build {id}")),
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
