//! The reasons for which a host cannot start a build, and the sentence about the whole farm.

use std::collections::BTreeMap;
use std::fmt;

use config::{MachineName, ResourceName, ToolchainName};

use crate::site::{HostState, Site};
use crate::{Capacity, Offer, OfferedMachine, Published, Requirements, Revision, Standing};

/// The reason for which a host does not start a build now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It does not have the machine.
    Machine(MachineName),
    /// It does not have the toolchain in the machine.
    Toolchain(ToolchainName),
    /// It has too few of something, also when it is idle.
    TooSmall(Shortage),
    /// It is still fetching the current revision.
    Revision {
        /// The machine.
        machine: MachineName,
        /// The revision that it has.
        has: Revision,
        /// The current one.
        current: Revision,
    },
    /// Its revision is newer than the published one.
    Newer {
        /// The machine.
        machine: MachineName,
        /// The revision that it has.
        has: Revision,
        /// The published one.
        published: Revision,
    },
    /// Its revision has the number of the published one, and the host does not know its content.
    Unknown(MachineName, Revision),
    /// Its revision has the number of the published one, and other content.
    OtherContent(MachineName, Revision),
    /// All guest slots are in use.
    Guests,
    /// Others use what the build needs.
    Busy(Shortage),
}

/// A thing of which there is too little.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortage {
    /// Processors: wanted, available.
    Cpus(u64, u64),
    /// Memory in MiB: wanted, available.
    Memory(u64, u64),
    /// A countable resource: wanted, available.
    Resource(ResourceName, u64, u64),
}

impl Refusal {
    /// Returns true if the host can never start the build as it is.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Machine(_) | Self::Toolchain(_) | Self::TooSmall(_)
        )
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpus(wanted, has) => write!(f, "processors ({wanted} wanted, {has} there)"),
            Self::Memory(wanted, has) => write!(f, "memory ({wanted} MiB wanted, {has} there)"),
            Self::Resource(name, wanted, has) => {
                write!(f, "resource {name} ({wanted} wanted, {has} there)")
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(machine) => write!(f, "does not have machine {machine}"),
            Self::Toolchain(toolchain) => write!(f, "does not have toolchain {toolchain}"),
            Self::TooSmall(what) => write!(f, "is too small: {what}"),
            Self::Revision {
                machine,
                has,
                current,
            } => write!(
                f,
                "has revision {} of {machine} and fetches {}",
                has.0, current.0
            ),
            Self::Newer {
                machine,
                has,
                published,
            } => write!(
                f,
                "has revision {} of {machine}, and {} is published; {}",
                has.0,
                published.0,
                publish_hint(machine, *has)
            ),
            Self::Unknown(machine, revision) => write!(
                f,
                "does not know the content of revision {} of {machine}; {}",
                revision.0,
                record_hint(machine, *revision)
            ),
            Self::OtherContent(machine, revision) => write!(
                f,
                "has revision {} of {machine} with other content than the published one; {}",
                revision.0,
                delete_hint(machine)
            ),
            Self::Guests => write!(f, "uses all its guest slots"),
            Self::Busy(what) => write!(f, "is busy: {what}"),
        }
    }
}

/// Returns the reason for which a host with this offer, of which `free` is left, cannot start a build.
pub fn refusal(
    offer: &Offer,
    free: &Capacity,
    requirements: &Requirements,
    published: &BTreeMap<MachineName, Published>,
) -> Option<Refusal> {
    let machine = &requirements.machine;
    let Some(offered) = offer.machines.get(machine) else {
        return Some(Refusal::Machine(machine.clone()));
    };
    if !offered.toolchains.contains(&requirements.toolchain) {
        return Some(Refusal::Toolchain(requirements.toolchain.clone()));
    }
    if let Some(what) = shortage(&offer.total, requirements) {
        return Some(Refusal::TooSmall(what));
    }
    if let Some(published) = published.get(machine)
        && let Some(refusal) = unlike(machine, offered, published)
    {
        return Some(refusal);
    }
    if free.guests == 0 {
        return Some(Refusal::Guests);
    }
    shortage(free, requirements).map(Refusal::Busy)
}

/// Returns the reason for which the revision of a host does not count as the published one.
pub fn unlike(
    machine: &MachineName,
    offered: &OfferedMachine,
    published: &Published,
) -> Option<Refusal> {
    let (machine, has) = (machine.clone(), offered.revision);
    match published.standing(has, offered.content.as_ref()) {
        Standing::Current => None,
        Standing::Older => Some(Refusal::Revision {
            machine,
            has,
            current: published.revision,
        }),
        Standing::Newer => Some(Refusal::Newer {
            machine,
            has,
            published: published.revision,
        }),
        Standing::Unknown => Some(Refusal::Unknown(machine, has)),
        Standing::Other => Some(Refusal::OtherContent(machine, has)),
    }
}

/// Returns the way to mend a host that does not know the content of its revision.
fn record_hint(machine: &MachineName, revision: Revision) -> String {
    format!("`buildhost record {machine} {}` there reads it", revision.0)
}

/// Returns the ways to mend a host whose revision was not published.
fn publish_hint(machine: &MachineName, revision: Revision) -> String {
    format!(
        "`buildhost publish {machine} {}` in the farm gives it to all hosts, and `buildhost rollback {machine}` \
         there takes it back",
        revision.0
    )
}

/// Returns the way to mend a host whose revision has other content.
fn delete_hint(machine: &MachineName) -> String {
    format!("after `buildhost delete {machine}` there it fetches the published one")
}

/// Returns the first thing of which there is too little.
pub(super) fn shortage(has: &Capacity, wanted: &Requirements) -> Option<Shortage> {
    if has.cpus < wanted.cpus {
        return Some(Shortage::Cpus(wanted.cpus, has.cpus));
    }
    if has.memory_mib < wanted.memory_mib {
        return Some(Shortage::Memory(wanted.memory_mib, has.memory_mib));
    }
    wanted.resources.iter().find_map(|(name, count)| {
        let there = has.resources.get(name).copied().unwrap_or_default();
        (there < *count).then(|| Shortage::Resource(name.clone(), *count, there))
    })
}

/// Returns the reason for which a build waits, as one sentence about the whole farm. Each host comes with the
/// reason for which a maintenance window keeps the build off it.
pub fn why<'a>(
    requirements: &Requirements,
    hosts: impl IntoIterator<Item = (&'a Site, Option<String>)>,
    published: &BTreeMap<MachineName, Published>,
) -> String {
    let (mut nearest, mut possible): (Option<Near<'_>>, _) = (None, 0_usize);
    let mut never: Option<(Refusal, &str)> = None;
    for (site, window) in hosts {
        let (name, offer) = (site.name.as_str(), &site.offer);
        let halt = halt(site, window);
        let near = match (refusal(offer, &offer.free, requirements, published), halt) {
            (None, None) => return format!("host {name} can start it now"),
            (Some(refusal), _) if refusal.is_final() => {
                // The refusal that comes last in the order of the checks is the nearest to a start.
                never = never.max(Some((refusal, name)));
                continue;
            }
            (Some(_), Some(halt)) => (1, name, Reason::Halt(halt)),
            (Some(refusal), None) => (1, name, Reason::Refusal(refusal)),
            (None, Some(halt)) => (2, name, Reason::Halt(halt)),
        };
        possible += 1;
        nearest = Some(nearest.map_or(near.clone(), |it| it.min(near)));
    }
    if let Some((_, name, reason)) = nearest {
        return match possible - 1 {
            0 => format!("host {name} {reason}"),
            1 => format!("host {name} {reason}; another host could take it as well"),
            more => format!("host {name} {reason}; {more} other hosts could take it as well"),
        };
    }
    match never {
        None => "no host can ever start it, because the farm has no hosts".to_owned(),
        Some((Refusal::Machine(machine), _)) => {
            format!("no host can ever start it, because none has machine {machine}")
        }
        Some((Refusal::Toolchain(toolchain), _)) => {
            format!(
                "no host can ever start it, because none has toolchain {toolchain} in machine {}",
                requirements.machine
            )
        }
        Some((refusal, name)) => {
            format!("no host can ever start it, because the nearest, host {name}, {refusal}")
        }
    }
}

/// A host that could take the build, and the reason for which it does not. Those with a lower number are
/// nearer to a start.
type Near<'a> = (u8, &'a str, Reason);

/// The reason for which a host that could take a build does not, as the end of a sentence about the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Halt(String),
    Refusal(Refusal),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Halt(halt) => f.write_str(halt),
            Self::Refusal(refusal) => refusal.fmt(f),
        }
    }
}

/// Returns the reason for which a host starts nothing, if there is one.
fn halt(site: &Site, window: Option<String>) -> Option<String> {
    let halt = match site.state {
        HostState::Drained => return Some("is drained".to_owned()),
        HostState::Silent | HostState::New | HostState::Revoked => {
            Some("it gives no sign of life".to_owned())
        }
        _ => window.or_else(|| site.offer.halt.clone()),
    };
    halt.map(|it| format!("starts nothing: {it}"))
}
